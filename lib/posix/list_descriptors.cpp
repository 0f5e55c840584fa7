// SPDX-License-Identifier: Apache-2.0
// Closing all other descriptors in a child where its spawn has no call for that.
#include "system.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

namespace kpi {

namespace {

// What is closed at the exec anyhow need not be named. One that another thread has closed since is
// no error to posix_spawn().
int close_if_inherited(posix_spawn_file_actions_t &actions, int fd)
{
    int flags = fd > 2 ? fcntl(fd, F_GETFD) : -1;
    if (flags < 0 || (flags & FD_CLOEXEC) != 0)
        return 0;
    return posix_spawn_file_actions_addclose(&actions, fd);
}

int close_up_to_limit(posix_spawn_file_actions_t &actions)
{
    long limit = sysconf(_SC_OPEN_MAX);
    constexpr long kMost = 1 << 20;
    int result = 0;
    for (int fd = 3; result == 0 && fd < (limit < 0 || limit > kMost ? kMost : limit); ++fd)
        result = close_if_inherited(actions, fd);
    return result;
}

} // namespace

// Some systems' /dev/fd has the first three alone: it is believed if it has its own.
int close_others(posix_spawn_file_actions_t &actions)
{
    DIR *folder = opendir(kOwnDescriptors);
    int result = 0;
    bool complete = false;
    while (dirent *entry = folder != nullptr && result == 0 ? readdir(folder) : nullptr) {
        int fd = atoi(entry->d_name);
        complete = complete || fd == dirfd(folder);
        result = close_if_inherited(actions, fd);
    }
    if (folder != nullptr)
        closedir(folder);
    return result == 0 && !complete ? close_up_to_limit(actions) : result;
}

} // namespace kpi
