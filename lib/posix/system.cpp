// SPDX-License-Identifier: Apache-2.0
#include "system.h"
#include "platform/socket.h"
#include <sys/wait.h>

namespace kpi {

const char kOwnDescriptors[] = "/dev/fd";

Fd open_end(pid_t)
{
    return Fd();
}

int wait_for(const sys::Process &child, siginfo_t &info, int options)
{
    info = {};
    return waitid(P_PID, static_cast<id_t>(child.pid), &info, options);
}

void make_small(const Fd &) {}

// Then bind() chooses it: another one for each probe.
int choose_port_late(const Fd &)
{
    return 0;
}

} // namespace kpi

namespace kpi::sys {

bool can_share(uint16_t port)
{
    Fd second;
    return reserve_port(port, second) == 0;
}

} // namespace kpi::sys
