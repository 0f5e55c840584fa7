// SPDX-License-Identifier: Apache-2.0
// POSIX does not tell who listens, or what a process holds.
#include "platform/listener.h"
#include <signal.h>
#include <sys/wait.h>

namespace kpi::sys {

bool tells_listeners()
{
    return false;
}

Listeners::Listeners(uint16_t port) : port_(port) {}

bool Listeners::next(Listener &)
{
    return false;
}

int find_owner(const Listener &, const Kin &, Owner &owner, Process &)
{
    owner = Owner::Unknown;
    return 0;
}

bool may_be_kin(pid_t, const Kin &)
{
    return true;
}

void look_ahead(pid_t) {}

bool find_holder(uint64_t, Holder &)
{
    return false;
}

size_t find_sockets(const Kin &, uint64_t *, size_t)
{
    return 0;
}

// The host's own child alone.
bool is_stopped(const Kin &kin)
{
    siginfo_t info = {};
    return waitid(P_PID, static_cast<id_t>(kin.proxy), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

int64_t time_used(const Kin &)
{
    return -1;
}

bool is_own(uid_t)
{
    return false;
}

bool is_trusted(uid_t)
{
    return false; // nobody is told of who could be
}

} // namespace kpi::sys
