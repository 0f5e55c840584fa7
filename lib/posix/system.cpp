// SPDX-License-Identifier: Apache-2.0
#include "system.h"
#include "platform/file.h"
#include "platform/socket.h"
#include <errno.h>
#include <sys/wait.h>

namespace kpi {

const char kOwnDescriptors[] = "/dev/fd";

Fd open_end(pid_t)
{
    errno = ENOSYS;
    return Fd();
}

int wait_for(const sys::Process &child, siginfo_t &info, int options)
{
    info = {};
    return waitid(P_PID, static_cast<id_t>(child.pid), &info, options);
}

void make_small(const Fd &) {}

// Then bind() chooses it, and each socket has another one.
int choose_port_late(const Fd &)
{
    return 0;
}

} // namespace kpi

namespace kpi::sys {

// POSIX leaves open what a socket is good for after a failed connect(); on BSD it is refused for
// ever.
const bool kReusesRefused = false;

// Where /dev/fd gives a duplicate, to let that block would change the host's own.
Fd reopen(int)
{
    return Fd();
}

bool can_share(uint16_t port)
{
    Fd second;
    return reserve_port(port, second) == 0;
}

} // namespace kpi::sys
