/* SPDX-License-Identifier: Apache-2.0 */
#include "signals.hpp"

#include <cerrno>
#include <sys/prctl.h>
#include <system_error>
#include <unistd.h>

namespace {

/* Linux queues a blocked signal even where it is ignored, as SIGHUP under nohup(1) and
 * SIGINT in a shell's background job are: such a signal is none for kp-run either. */
bool is_ignored(int number)
{
    struct sigaction given;
    return sigaction(number, nullptr, &given) != 0 || given.sa_handler == SIG_IGN;
}

bool is_fault(int number)
{
    for (const int fault : {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP}) {
        if (number == fault)
            return true;
    }
    return false;
}

sigset_t taken_signals()
{
    sigset_t taken;
    sigemptyset(&taken);
    for (int number = 1; number <= SIGRTMAX; number++) {
        const bool is_libcs = number >= 32 && number < SIGRTMIN;
        if (!is_libcs && !is_fault(number) && !is_ignored(number))
            sigaddset(&taken, number);
    }
    return taken;
}

} // namespace

Signals::Signals()
{
    /* Inherited as ignored it would lose COMMAND's status. POSIX lets exec reset it too. */
    std::signal(SIGCHLD, SIG_DFL);

    const sigset_t taken = taken_signals();
    sigset_t blocked = taken;
    /* A warning to a reader that is gone, or to the terminal while COMMAND's shell has it,
     * must not end or stop kp-run. */
    sigaddset(&blocked, SIGPIPE);
    sigaddset(&blocked, SIGTTOU);
    sigprocmask(SIG_BLOCK, &blocked, &given_mask_);

    fd_ = signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd_ < 0)
        throw std::system_error(errno, std::generic_category(), "signalfd");
}

Signals::~Signals()
{
    close(fd_);
}

bool Signals::next(signalfd_siginfo &info)
{
    return read(fd_, &info, sizeof info) == sizeof info;
}

Default default_of(int number)
{
    switch (number) {
    case SIGCHLD:
    case SIGCONT:
    case SIGURG:
    case SIGWINCH:
        return Default::ignore;
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
        return Default::stop;
    default:
        return Default::end;
    }
}

namespace {

void let_it_act(int number)
{
    sigset_t one, before;
    sigemptyset(&one);
    sigaddset(&one, number);
    std::raise(number);
    sigprocmask(SIG_UNBLOCK, &one, &before);
    sigprocmask(SIG_SETMASK, &before, nullptr);
}

} // namespace

void stop_by(int number)
{
    let_it_act(is_ignored(number) ? SIGSTOP : number);
}

void die_of(int number)
{
    prctl(PR_SET_DUMPABLE, 0); /* COMMAND has left its own core, if any */
    std::signal(number, SIG_DFL);
    let_it_act(number);
}
