// SPDX-License-Identifier: Apache-2.0
// The search for the process that holds a socket.
#include "deadline.h"
#include "holds.h"
#include "kinship.h"
#include "pidfd.h"
#include "platform/listener.h"
#include "posix/descriptors.h"
#include "proc.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

// ---- the search for the owner

class OwnerSearch {
  public:
    OwnerSearch(const Listener &listener, const Kin &kin) : listener_(listener), kin_(kin) {}

    // The proxy first: it is the owner nearly always, and costs no search.
    Owner run(Process &outside)
    {
        errno = 0;
        if (!proc_is_ours()) {
            means_.note(errno);
            return by_user();
        }
        if (is_held_by(kin_.proxy))
            return Owner::Kin;
        if (is_held_by_member() || is_held_by_descendant(outside))
            return Owner::Kin;
        int error = 0;
        bool hides = hides_processes(error);
        means_.note(error);
        return unseen_ || hides ? by_user() : Owner::Other;
    }
    int shortage() const { return means_.shortage(); }

  private:
    // Where the holder can't be seen.
    Owner by_user()
    {
        bool is_plausible =
            claimed_ || is_own(listener_.uid) || is_of(kin_.proxy, listener_.uid, means_);
        return is_plausible ? Owner::Unknown : Owner::Other;
    }

    bool is_held_by(pid_t pid)
    {
        if (means_.is_spent()) {
            unseen_ = true;
            return false;
        }
        Holds result = holds(pid, listener_.socket, means_);
        if (result == Holds::Unreadable && may_be_of(pid, listener_.uid, means_)) {
            unseen_ = true;
            claimed_ = claimed_ || is_of(pid, listener_.uid, means_);
        }
        return result == Holds::Yes;
    }

    // Any process of the session may join the group, whoever runs it: that alone makes it no kin.
    bool is_held_by_member()
    {
        bool is_plausible =
            is_trusted(listener_.uid) || may_be_of(kin_.proxy, listener_.uid, means_);
        Descent descent(kin_.proxy, means_);
        Directory processes("/proc");
        while (pid_t pid = next(processes)) {
            bool counts = group_of(pid) == kin_.group && (is_plausible || descent.is_certain(pid));
            if (counts && is_held_by(pid))
                return true;
        }
        return false;
    }

    bool is_held_by_descendant(Process &outside)
    {
        Directory processes("/proc");
        Descent descent(kin_.proxy, means_);
        while (pid_t pid = next(processes)) {
            if (group_of(pid) == kin_.group)
                continue;
            Relation relation = descent.find(pid);
            if (relation == Relation::Kin && is_pinned_holder(pid, descent, outside))
                return true;
            if (relation == Relation::Unknown && may_be_of(pid, listener_.uid, means_))
                unseen_ = true;
        }
        return false;
    }

    // It is what was looked at if it is still the proxy's descendant once its descriptor is open,
    // and has not ended when its own descriptors were read.
    bool is_pinned_holder(pid_t pid, const Descent &descent, Process &outside)
    {
        Process found;
        found.pid = pid;
        found.end = open_pidfd(pid);
        means_.note(found.end ? 0 : errno);
        if (!descent.is_certain(pid) || !is_held_by(pid))
            return false;
        if (found.end && is_over(found))
            return false;
        if (outside.pid == 0)
            outside = static_cast<Process &&>(found);
        return true;
    }

    // 0: that was all. The proxy has been looked at.
    pid_t next(Directory &processes)
    {
        pid_t pid;
        do
            pid = processes ? processes.next_number() : 0;
        while (pid != 0 && (pid == kin_.proxy || pid == kin_.guard));
        means_.note(processes.error());
        if (processes.error() != 0)
            unseen_ = true;
        return pid;
    }

    const Listener &listener_;
    const Kin &kin_;
    Means means_;
    bool unseen_ = false;  // somebody who may be the owner can't be looked at
    bool claimed_ = false; // one of them is known to be of its user
};

// ---- for messages

bool all_users_have_numbers()
{
    char text[64];
    unsigned inside = 1, outside = 1, count = 0;
    Fd file = lifted(open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC));
    ssize_t length = file ? read(file.get(), text, sizeof text - 1) : -1;
    if (length < 0)
        return errno == ENOENT; // a kernel without user namespaces, or no /proc
    text[length] = '\0';
    return sscanf(text, "%u %u %u", &inside, &outside, &count) == 3 && inside == 0 &&
           outside == 0 && count == UINT32_MAX;
}

void read_name(pid_t pid, char *name, size_t size)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    Fd file = lifted(open(path, O_RDONLY | O_CLOEXEC));
    ssize_t length = file ? read(file.get(), name, size - 1) : -1;
    while (length > 0 && name[length - 1] == '\n')
        --length;
    name[length > 0 ? length : 0] = '\0';
}

// Calls visit(pid) for the proxy and for each of its kin, until that returns true.
template <typename Visit>
bool any_of_kin(const Kin &kin, Visit visit)
{
    if (!proc_is_ours())
        return false;
    if (visit(kin.proxy))
        return true;
    Means means;
    Descent descent(kin.proxy, means);
    Directory processes("/proc");
    while (pid_t pid = processes ? processes.next_number() : 0) {
        if (pid == kin.proxy || pid == kin.guard)
            continue;
        bool is_kin = group_of(pid) == kin.group || descent.find(pid) == Relation::Kin;
        if (is_kin && visit(pid))
            return true;
    }
    return false;
}

} // namespace

int find_owner(const Listener &listener, const Kin &kin, Owner &owner, Process &outside)
{
    OwnerSearch search(listener, kin);
    owner = search.run(outside);
    bool known = owner == Owner::Kin && (outside.pid == 0 || outside.end);
    return known ? 0 : search.shortage();
}

bool may_be_kin(pid_t pid, const Kin &kin)
{
    Means means;
    pid_t group = group_of(pid);
    return group < 0 || group == kin.group || Descent(kin.proxy, means).is_certain(pid);
}

// The kernel makes the folder of a process when it is first read: 30 microseconds instead of 12.
void look_ahead(pid_t pid)
{
    Means means;
    holds(pid, 0, means);
}

bool find_holder(uint64_t socket, Holder &holder)
{
    Directory processes("/proc");
    if (!processes || !proc_is_ours())
        return false;
    Means means;
    while (pid_t pid = means.is_spent() ? 0 : processes.next_number()) {
        if (holds(pid, socket, means) != Holds::Yes)
            continue;
        holder.pid = pid;
        read_name(pid, holder.name, sizeof holder.name);
        return true;
    }
    return false;
}

size_t find_sockets(const Kin &kin, uint64_t *sockets, size_t size)
{
    size_t found = 0;
    Means means;
    any_of_kin(kin, [&](pid_t pid) {
        char path[32];
        snprintf(path, sizeof path, "/proc/%d/fd", pid);
        Sockets all(path, means);
        while (uint64_t socket = found < size ? all.next() : 0)
            sockets[found++] = socket;
        return found == size || means.is_spent();
    });
    return found;
}

bool is_stopped(const Kin &kin)
{
    return any_of_kin(kin, [](pid_t pid) {
        Stat stat;
        return read_stat(pid, stat) == 0 && stat.state == 'T';
    });
}

int64_t time_used(const Kin &kin)
{
    uint64_t ticks = 0;
    bool known = false;
    any_of_kin(kin, [&](pid_t pid) {
        Stat stat;
        if (read_stat(pid, stat) == 0) {
            ticks += stat.used;
            known = true;
        }
        return false;
    });
    return known ? static_cast<int64_t>(ticks) * (kSecond / sysconf(_SC_CLK_TCK)) : -1;
}

// In a user namespace all who have no number there share one.
bool is_own(uid_t uid)
{
    constexpr uid_t kNobodyKnown = 65534;
    if (uid == kNobodyKnown && !all_users_have_numbers())
        return false;
    return uid == getuid() || uid == geteuid();
}

bool is_trusted(uid_t uid)
{
    return uid == 0 || is_own(uid);
}

} // namespace kpi::sys
