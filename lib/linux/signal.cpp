// SPDX-License-Identifier: Apache-2.0
#include "pidfd.h"
#include "platform/process.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

// ioprio_set(2); glibc has no header for it.
constexpr int kIoprioProcess = 1, kIoprioGroup = 2;
constexpr int kClassShift = 13, kIdleClass = 3;

} // namespace

bool is_over(const Process &process)
{
    pollfd wanted = {process.end.get(), POLLIN, 0};
    return poll(&wanted, 1, 0) > 0;
}

int signal(const Process &process, int signo)
{
    return signal_pidfd(process.end, signo, 0);
}

int signal_group(const Process &leader, int signo)
{
    return signal_pidfd(leader.end, signo, kSignalGroup);
}

bool signals_groups(const Process &leader)
{
    int result = signal_group(leader, 0);
    return result == 0 || result == ESRCH;
}

int signal_number(pid_t pid, int signo)
{
    return kill(pid, signo) == 0 ? 0 : errno;
}

int signal_group_number(pid_t group, int signo)
{
    return kill(-group, signo) == 0 ? 0 : errno;
}

pid_t group_of(pid_t pid)
{
    return getpgid(pid);
}

int own_nice()
{
    return getpriority(PRIO_PROCESS, 0);
}

int group_nice(pid_t group)
{
    errno = 0;
    int nice = getpriority(PRIO_PGRP, static_cast<id_t>(group));
    return errno == 0 ? nice : kLowestPriority + 1;
}

void set_nice(pid_t pid, int nice)
{
    setpriority(PRIO_PROCESS, static_cast<id_t>(pid), nice);
}

void set_idle(pid_t pid)
{
    syscall(SYS_ioprio_set, kIoprioProcess, pid, kIdleClass << kClassShift);
}

// The system tells the best class of the group's members.
bool group_is_idle(pid_t group)
{
    return syscall(SYS_ioprio_get, kIoprioGroup, group) >> kClassShift == kIdleClass;
}

} // namespace kpi::sys
