// SPDX-License-Identifier: Apache-2.0
// The search for a group's members in /proc.
#include "pidfd.h"
#include "platform/process.h"
#include "proc.h"
#include <errno.h>

namespace kpi::sys {

namespace {

enum class State { Lives, Over, Unreadable };

State state_of(pid_t pid)
{
    Stat stat;
    int result = read_stat(pid, stat);
    if (result != 0)
        return result == ENOENT || result == ESRCH ? State::Over : State::Unreadable;
    // One whose main thread alone has ended looks like a zombie, which counts as one thread.
    bool over = stat.state == 'X' || (stat.state == 'Z' && stat.threads <= 1);
    return over ? State::Over : State::Lives;
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
    if (!processes || !proc_is_ours())
        return Search::Unknown;
    while (found < size) {
        pid_t pid = processes.next_number();
        if (pid == 0) {
            unreadable = unreadable || processes.error() != 0;
            break;
        }
        if (pid == guard)
            continue;
        State state = state_of_member(pid, group, members[found]);
        found += state == State::Lives;
        unreadable = unreadable || state == State::Unreadable;
    }
    if (found != 0)
        return Search::Somebody;
    int unused;
    return unreadable || hides_processes(unused) ? Search::Unknown : Search::Nobody;
}

} // namespace kpi::sys
