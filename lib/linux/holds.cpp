// SPDX-License-Identifier: Apache-2.0
#include "holds.h"
#include "posix/descriptors.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace kpi {

namespace {

// 0: it is none.
uint64_t socket_of(const char *target)
{
    constexpr char kPrefix[] = "socket:[";
    constexpr size_t kLength = sizeof kPrefix - 1;
    return strncmp(target, kPrefix, kLength) == 0 ? strtoull(target + kLength, nullptr, 10) : 0;
}

} // namespace

void Means::note(int error)
{
    if (is_want(error))
        shortage_ = error;
}

Sockets::Sockets(const char *path, Means &means)
    : folder_(path), means_(means), readable_(static_cast<bool>(folder_))
{
    means.note(folder_.error());
}

uint64_t Sockets::next()
{
    while (readable_) {
        const dirent *entry = folder_.next();
        if (entry == nullptr) {
            readable_ = folder_.error() == 0;
            means_.note(folder_.error());
            break;
        }
        if (uint64_t socket = entry->d_name[0] == '.' ? 0 : look(entry->d_name))
            return socket;
    }
    return 0;
}

// A descriptor that was closed meanwhile is none any more.
uint64_t Sockets::look(const char *name)
{
    char target[64];
    ssize_t length = readlinkat(folder_.fd(), name, target, sizeof target - 1);
    if (length < 0)
        means_.note(errno);
    if (!means_.spend() || (length < 0 && errno != ENOENT))
        readable_ = false;
    target[length < 0 ? 0 : length] = '\0';
    return socket_of(target);
}

namespace {

Holds look_into(const char *path, uint64_t socket, Means &means)
{
    Sockets sockets(path, means);
    while (uint64_t each = sockets.next())
        if (each == socket)
            return Holds::Yes;
    return sockets.is_readable() ? Holds::No : Holds::Unreadable;
}

// Where the main thread has ended, only the folders of the others tell.
Holds look_into_threads(pid_t pid, uint64_t socket, Means &means)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    Directory threads(path);
    Holds result = threads ? Holds::No : Holds::Unreadable;
    while (pid_t thread = threads ? threads.next_number() : 0) {
        if (thread == pid)
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%d/fd", pid, thread);
        Holds each = look_into(path, socket, means);
        if (each == Holds::Yes)
            return each;
        if (each == Holds::Unreadable)
            result = each;
    }
    means.note(threads.error());
    return result;
}

} // namespace

// What a main thread leaves when it ends is empty for root and closed to others.
Holds holds(pid_t pid, uint64_t socket, Means &means)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    Holds result = look_into(path, socket, means);
    Stat stat;
    int error = result == Holds::Yes ? 0 : read_stat(pid, stat);
    means.note(error);
    if (result != Holds::Yes && error == 0 && stat.state == 'Z')
        return look_into_threads(pid, socket, means);
    return result == Holds::Unreadable && getpgid(pid) < 0 ? Holds::No : result;
}

} // namespace kpi
