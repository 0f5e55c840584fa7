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

// With a level and a hint (Linux 6.5; before, any number is taken) that nobody else sets: what
// ionice(1) makes of a process is better than that.
constexpr int kIdlest = kIdleClass << kClassShift | 077;

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
    syscall(SYS_ioprio_set, kIoprioProcess, pid, kIdlest);
}

// The system tells the best of the group's members, which is the lowest number.
bool group_is_idle(pid_t group)
{
    return syscall(SYS_ioprio_get, kIoprioGroup, group) == kIdlest;
}

} // namespace kpi::sys
