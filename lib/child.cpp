// SPDX-License-Identifier: Apache-2.0
#include "child.h"
#include <errno.h>

namespace kpi {

int Child::spawn(const sys::Launch &launch)
{
    Child fresh;
    int result = sys::spawn(launch, fresh.process_);
    if (result == 0)
        *this = static_cast<Child &&>(fresh);
    return result;
}

bool Child::ended()
{
    if (ended_ || process_.pid == 0)
        return true;
    sys::Life life = sys::look(process_, exit_);
    ended_ = life != sys::Life::Alive;
    reaped_ = life == sys::Life::Gone;
    return ended_;
}

void Child::reap()
{
    if (!reaped_ && ended())
        sys::reap(process_);
    reaped_ = ended_;
}

int Child::signal(int signo)
{
    if (ended())
        return ESRCH;
    int result = sys::signal(process_, signo);
    return result == ENOSYS ? sys::signal_number(process_.pid, signo) : result;
}

int Child::signal_group(int signo)
{
    if (process_.pid == 0)
        return ESRCH;
    int result = sys::signal_group(process_, signo);
    if (result == ENOSYS && !reaped_)
        return sys::signal_group_number(process_.pid, signo);
    return result == ENOSYS ? ESRCH : result;
}

} // namespace kpi
