/* SPDX-License-Identifier: Apache-2.0 */
#include "command.hpp"

#include <cstdio>
#include <cstring>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

/* 0: it is not known, or there is none. */
pid_t parent_of(pid_t pid)
{
    char path[32], text[512];
    std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
    std::FILE *file = std::fopen(path, "re");
    if (file == nullptr)
        return 0;
    const std::size_t length = std::fread(text, 1, sizeof text - 1, file);
    std::fclose(file);
    text[length] = '\0';
    const std::string line = text;
    int parent = 0; /* behind the name, in parentheses, which may hold anything */
    std::sscanf(line.c_str() + line.rfind(')') + 1, " %*c %d", &parent);
    return parent;
}

bool descends(pid_t pid, pid_t ancestor)
{
    constexpr int most_generations = 100; /* numbers are reused: a line may have no end */
    for (int i = 0; i < most_generations && pid > 1; i++) {
        if (pid == ancestor)
            return true;
        pid = parent_of(pid);
    }
    return false;
}

/* Not what else the kernel sends, such as the alarm that was set before kp-run was executed. */
bool is_of_terminal(const signalfd_siginfo &info)
{
    if (info.ssi_code != SI_KERNEL)
        return false;
    for (const int number :
         {SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGWINCH}) {
        if (static_cast<int>(info.ssi_signo) == number)
            return true;
    }
    return false;
}

} // namespace

int Command::start(char *const argv[], const kp::Environment &env, const sigset_t &mask)
{
    posix_spawnattr_t attributes;
    int error = posix_spawnattr_init(&attributes);
    if (error != 0)
        return error;
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &mask);
    pid_t pid;
    error = posix_spawnp(&pid, argv[0], nullptr, &attributes, argv, env.get());
    posix_spawnattr_destroy(&attributes);
    if (error == 0)
        pid_ = last_pid_ = pid;
    return error;
}

void Command::look()
{
    int status;
    while (pid_ != 0 && waitpid(pid_, &status, WNOHANG | WUNTRACED | WCONTINUED) == pid_) {
        stopped_by_ = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
        if (WIFSTOPPED(status) || WIFCONTINUED(status))
            continue;
        status_ = status;
        pid_ = 0;
    }
}

int Command::exit_code() const
{
    return WEXITSTATUS(status_);
}

int Command::term_signal() const
{
    return WIFSIGNALED(status_) ? WTERMSIG(status_) : 0;
}

bool Command::leads_a_group() const
{
    return getpgid(pid_) == pid_;
}

/* The terminal tells kp-run's whole process group. Only of a hangup the leader of the session
 * alone is told. A process of COMMAND's that signals kp-run has signalled the process group, of
 * which COMMAND was told as well. */
bool Command::knows(const signalfd_siginfo &info) const
{
    if (!is_of_terminal(info))
        return descends(static_cast<pid_t>(info.ssi_pid), pid_);
    const bool told_alone = info.ssi_signo == SIGHUP && getsid(0) == getpid();
    return getpgid(pid_) == getpgrp() && !told_alone;
}

/* The terminal would tell all of COMMAND's process group. A number that somebody has sent along
 * with the signal goes along. */
void Command::hand_on(const signalfd_siginfo &info) const
{
    const int number = static_cast<int>(info.ssi_signo);
    if (info.ssi_code == SI_QUEUE) {
        sigval value;
        std::memcpy(&value, &info.ssi_ptr, sizeof value);
        sigqueue(pid_, number, value);
        return;
    }
    const bool to_group = is_of_terminal(info) && leads_a_group();
    kill(to_group ? -pid_ : pid_, number);
}
