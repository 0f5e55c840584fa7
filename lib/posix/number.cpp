// SPDX-License-Identifier: Apache-2.0
// Processes by their numbers.
#include "platform/process.h"
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

namespace kpi::sys {

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

} // namespace kpi::sys
