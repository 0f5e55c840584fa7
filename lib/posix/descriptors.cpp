// SPDX-License-Identifier: Apache-2.0
#include "descriptors.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

namespace kpi {

namespace sys {

void close_fd(int fd)
{
    int kept = errno;
    close(fd);
    errno = kept;
}

} // namespace sys

bool is_want(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS ||
           error == EAGAIN || error == EINTR;
}

Fd lifted(int number)
{
    Fd made(number);
    if (number < 0 || number > 2)
        return made;
    return Fd(fcntl(number, F_DUPFD_CLOEXEC, 3));
}

} // namespace kpi
