// SPDX-License-Identifier: Apache-2.0
#include "platform/file.h"
#include "descriptors.h"
#include "system.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kpi {

Fd open_again(int fd, int flags)
{
    char path[48];
    snprintf(path, sizeof path, "%s/%d", kOwnDescriptors, fd);
    return lifted(open(path, flags | O_CLOEXEC));
}

} // namespace kpi

namespace kpi::sys {

namespace {

int access_mode(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? flags : flags & O_ACCMODE;
}

size_t read_all(int fd, int64_t offset, char *buffer, size_t size)
{
    size_t length = 0;
    while (length < size) {
        ssize_t count =
            pread(fd, buffer + length, size - length, offset + static_cast<int64_t>(length));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            break;
        length += static_cast<size_t>(count);
    }
    return length;
}

} // namespace

bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

bool is_inherited(int fd)
{
    int flags = fcntl(fd, F_GETFD);
    return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

bool is_writable(int fd)
{
    int mode = access_mode(fd);
    return mode == O_WRONLY || mode == O_RDWR;
}

int duplicate(int fd, Fd &copy)
{
    copy = Fd(fcntl(fd, F_DUPFD_CLOEXEC, 3));
    return copy ? 0 : errno;
}

int make_pipe(Fd &read_end, Fd &write_end)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    read_end = lifted(ends[0]);
    int failure = read_end ? 0 : errno;
    write_end = lifted(ends[1]);
    if (!write_end)
        failure = errno;
    if (failure == 0)
        make_small(write_end);
    return failure;
}

bool is_broken(const Fd &write_end)
{
    pollfd wanted = {write_end.get(), 0, 0};
    return poll(&wanted, 1, 0) > 0;
}

int check_directory(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return errno;
    if (!S_ISDIR(info.st_mode))
        return ENOTDIR;
    // EPERM is a seccomp filter's answer, and says nothing of the directory.
    bool usable = faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 || errno == EPERM;
    return usable ? 0 : errno;
}

int64_t regular_file_size(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISREG(info.st_mode) ? int64_t{info.st_size} : -1;
}

size_t read_file(int fd, int64_t offset, char *buffer, size_t size)
{
    if (access_mode(fd) != O_WRONLY)
        return read_all(fd, offset, buffer, size);
    Fd readable = open_again(fd, O_RDONLY);
    return readable ? read_all(readable.get(), offset, buffer, size) : 0;
}

} // namespace kpi::sys
