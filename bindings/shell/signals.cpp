/* SPDX-License-Identifier: Apache-2.0 */
#include "signals.hpp"

#include <cerrno>
#include <system_error>
#include <unistd.h>

namespace {

/* Linux queues a blocked signal even where it is ignored, as SIGHUP under nohup(1) and
 * SIGINT in a shell's background job are: such a signal is none for kp-run either. */
bool is_ignored(int number)
{
    struct sigaction given;
    sigaction(number, nullptr, &given);
    return given.sa_handler == SIG_IGN;
}

sigset_t taken_signals()
{
    sigset_t taken;
    sigemptyset(&taken);
    sigaddset(&taken, SIGCHLD);
    for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2}) {
        if (!is_ignored(number))
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
    return read(fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info);
}
