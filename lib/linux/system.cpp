// SPDX-License-Identifier: Apache-2.0
#include "posix/system.h"
#include "pidfd.h"
#include "platform/socket.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace kpi {

// By the thread: once the main thread has ended, the process's is empty or closed.
const char kOwnDescriptors[] = "/proc/thread-self/fd";

Fd open_end(pid_t pid)
{
    return open_pidfd(pid);
}

// By number where the descriptor can't be waited for: before Linux 5.4, or behind a filter.
int wait_for(const sys::Process &child, siginfo_t &info, int options)
{
    info = {};
    if (child.end) {
        int result = waitid(static_cast<idtype_t>(kPidfdId), static_cast<id_t>(child.end.get()),
                            &info, options);
        if (result == 0 || errno == ECHILD)
            return result;
    }
    return waitid(P_PID, static_cast<id_t>(child.pid), &info, options);
}

// A user's pipes have a common limit of 64 MiB: 1,000 of the usual 64 KiB reach it. Not being able
// to shrink one harms nothing.
void make_small(const Fd &pipe)
{
    fcntl(pipe.get(), F_SETPIPE_SZ, 4096);
}

int choose_port_late(const Fd &socket)
{
    int on = 1;
    return setsockopt(socket.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) == 0
               ? 0
               : errno;
}

} // namespace kpi

namespace kpi::sys {

const bool kReusesRefused = true;

bool can_share(uint16_t)
{
    return true;
}

} // namespace kpi::sys
