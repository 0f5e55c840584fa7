// SPDX-License-Identifier: Apache-2.0
#include "platform/file.h"
#include "posix/descriptors.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

// /dev/ptmx: whoever opens a terminal's master side again makes another terminal.
constexpr dev_t kMaster = 5 << 8 | 2;

bool is_pipe_or_terminal(int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return false;
    bool may_be_terminal = S_ISCHR(info.st_mode) && info.st_rdev != kMaster;
    return S_ISFIFO(info.st_mode) || (may_be_terminal && isatty(fd) == 1);
}

} // namespace

// To wait for a FIFO's reader, or for a serial line, is not for the host: it opens without
// blocking. What else was set stays, such as the packets of a pipe.
Fd reopen(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !is_pipe_or_terminal(fd))
        return Fd();
    Fd fresh = open_again(fd, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY);
    if (fresh && fcntl(fresh.get(), F_SETFL, flags & ~(O_NONBLOCK | O_ASYNC)) != 0)
        fresh.reset();
    return fresh;
}

} // namespace kpi::sys
