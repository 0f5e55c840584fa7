// SPDX-License-Identifier: Apache-2.0
// What POSIX has no way for: processes by descriptors, and those of a group by name.
#include "platform/process.h"
#include <errno.h>

namespace kpi::sys {

bool is_over(const Process &)
{
    return false;
}

int signal(const Process &, int)
{
    return ENOSYS;
}

int signal_group(const Process &, int)
{
    return ENOSYS;
}

bool signals_groups(const Process &)
{
    return false;
}

// There is no such class: the nice value tells alone.
void set_idle(pid_t) {}

bool group_is_idle(pid_t)
{
    return true;
}

Search find_members(pid_t, pid_t, Process *, size_t, size_t &found)
{
    found = 0;
    return Search::Unknown;
}

} // namespace kpi::sys
