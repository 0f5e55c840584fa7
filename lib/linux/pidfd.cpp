// SPDX-License-Identifier: Apache-2.0
#include "pidfd.h"
#include "posix/descriptors.h"
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kpi {

Fd open_pidfd(pid_t pid)
{
    return lifted(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

int signal_pidfd(const Fd &pidfd, int signo, unsigned flags)
{
    if (!pidfd)
        return ENOSYS;
    if (syscall(SYS_pidfd_send_signal, pidfd.get(), signo, nullptr, flags) == 0)
        return 0;
    return errno == EINVAL ? ENOSYS : errno; // an unknown flag
}

} // namespace kpi
