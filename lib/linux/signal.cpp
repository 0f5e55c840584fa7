// SPDX-License-Identifier: Apache-2.0
#include "pidfd.h"
#include "platform/process.h"
#include <errno.h>
#include <poll.h>
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
