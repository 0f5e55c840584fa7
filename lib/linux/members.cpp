// SPDX-License-Identifier: Apache-2.0
// The search for a group's members in /proc.
#include "descriptors.h"
#include "pidfd.h"
#include "platform/process.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

class Directory {
  public:
    explicit Directory(const char *path)
    {
        Fd fd = lifted(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (fd && (stream_ = fdopendir(fd.get())) != nullptr)
            fd.release();
    }
    Directory(const Directory &) = delete;
    Directory &operator=(const Directory &) = delete;
    ~Directory()
    {
        if (stream_ != nullptr)
            closedir(stream_);
    }
    explicit operator bool() const { return stream_ != nullptr; }
    const dirent *next() { return readdir(stream_); }

  private:
    DIR *stream_ = nullptr;
};

pid_t number_of(const char *text)
{
    char *end;
    long number = strtol(text, &end, 10);
    return *end == '\0' && number > 0 ? static_cast<pid_t>(number) : 0;
}

// The /proc of another pid namespace has other processes under our numbers.
bool shows_this_process()
{
    char target[16] = "";
    return readlink("/proc/self", target, sizeof target - 1) > 0 && number_of(target) == getpid();
}

// By the state in /proc/PID/stat, which stands behind the name's last parenthesis.
bool is_zombie(pid_t pid)
{
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    Fd file = lifted(open(path, O_RDONLY | O_CLOEXEC));
    ssize_t length = file ? read(file.get(), text, sizeof text - 1) : -1;
    if (length <= 0)
        return true; // it is gone altogether
    text[length] = '\0';
    const char *name_end = strrchr(text, ')');
    return name_end != nullptr && (name_end[2] == 'Z' || name_end[2] == 'X');
}

bool is_living_member(pid_t pid, pid_t group, Process &member)
{
    if (group_of(pid) != group)
        return false;
    member.pid = pid;
    member.end = open_pidfd(pid);
    // Asked again: what was opened may be somebody who took the number in between.
    if (group_of(pid) == group && !(member.end ? is_over(member) : is_zombie(pid)))
        return true;
    member.end.reset();
    return false;
}

} // namespace

Search find_members(pid_t group, pid_t guard, Process *members, size_t size, size_t &found)
{
    found = 0;
    Directory processes("/proc");
    if (!processes || !shows_this_process())
        return Search::Unknown;
    while (found < size) {
        const dirent *entry = processes.next();
        if (entry == nullptr)
            break;
        pid_t pid = number_of(entry->d_name);
        if (pid != 0 && pid != guard && is_living_member(pid, group, members[found]))
            ++found;
    }
    return found == 0 ? Search::Nobody : Search::Somebody;
}

} // namespace kpi::sys
