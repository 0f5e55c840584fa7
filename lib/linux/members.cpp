// SPDX-License-Identifier: Apache-2.0
// The search for a group's members in /proc.
#include "descriptors.h"
#include "pidfd.h"
#include "platform/process.h"
#include <dirent.h>
#include <errno.h>
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

// Fails with ENOENT or ESRCH for a process that is gone, and otherwise for reasons of the host's,
// such as no descriptor being left.
ssize_t read_stat(pid_t pid, char *text, size_t size)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    Fd file = lifted(open(path, O_RDONLY | O_CLOEXEC));
    return file ? read(file.get(), text, size) : -1;
}

enum class State { Lives, Over, Unreadable };

// By the state in /proc/PID/stat, which stands behind the name's last parenthesis.
State state_of(pid_t pid)
{
    char text[512];
    ssize_t length = read_stat(pid, text, sizeof text - 1);
    if (length < 0)
        return errno == ENOENT || errno == ESRCH ? State::Over : State::Unreadable;
    text[length] = '\0';
    const char *name_end = strrchr(text, ')');
    bool zombie = name_end != nullptr && (name_end[2] == 'Z' || name_end[2] == 'X');
    return zombie ? State::Over : State::Lives;
}

State state_of_member(pid_t pid, pid_t group, Process &member)
{
    if (group_of(pid) != group)
        return State::Over;
    member.pid = pid;
    member.end = open_pidfd(pid);
    State state = State::Lives;
    if (!member.end)
        state = state_of(pid);
    else if (is_over(member))
        state = State::Over;
    // Asked again: what was opened may be somebody who took the number in between.
    if (group_of(pid) != group)
        state = State::Over;
    if (state != State::Lives)
        member.end.reset();
    return state;
}

} // namespace

Search find_members(pid_t group, pid_t guard, Process *members, size_t size, size_t &found)
{
    found = 0;
    bool unreadable = false;
    Directory processes("/proc");
    if (!processes || !shows_this_process())
        return Search::Unknown;
    while (found < size) {
        errno = 0;
        const dirent *entry = processes.next();
        if (entry == nullptr && errno != 0)
            return Search::Unknown;
        if (entry == nullptr)
            break;
        pid_t pid = number_of(entry->d_name);
        if (pid == 0 || pid == guard)
            continue;
        State state = state_of_member(pid, group, members[found]);
        found += state == State::Lives;
        unreadable = unreadable || state == State::Unreadable;
    }
    if (found != 0)
        return Search::Somebody;
    return unreadable ? Search::Unknown : Search::Nobody;
}

} // namespace kpi::sys
