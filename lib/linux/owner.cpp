// SPDX-License-Identifier: Apache-2.0
// The search in /proc for the processes that hold a socket.
#include "descriptors.h"
#include "pidfd.h"
#include "platform/listener.h"
#include "proc.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

// How many descriptors one search looks at, of the 1.5 microseconds each: a step does not block.
class Budget {
  public:
    bool spend() { return --left_ >= 0; }
    bool is_spent() const { return left_ <= 0; }

  private:
    int left_ = 100000;
};

// ---- what one process holds

// 0: it is none.
uint64_t socket_of(const char *target)
{
    constexpr char kPrefix[] = "socket:[";
    constexpr size_t kLength = sizeof kPrefix - 1;
    return strncmp(target, kPrefix, kLength) == 0 ? strtoull(target + kLength, nullptr, 10) : 0;
}

// The sockets in one folder of descriptors.
class Sockets {
  public:
    Sockets(const char *path, Budget &budget) : folder_(path), budget_(budget)
    {
        readable_ = static_cast<bool>(folder_);
    }

    // 0: that was all, or the rest can't be read.
    uint64_t next()
    {
        while (readable_) {
            const dirent *entry = folder_.next();
            if (entry == nullptr) {
                readable_ = !folder_.has_failed();
                break;
            }
            if (uint64_t socket = entry->d_name[0] == '.' ? 0 : look(entry->d_name))
                return socket;
        }
        return 0;
    }
    bool is_readable() const { return readable_; }

  private:
    // A descriptor that was closed meanwhile is none any more.
    uint64_t look(const char *name)
    {
        char target[64];
        ssize_t length = readlinkat(folder_.fd(), name, target, sizeof target - 1);
        if (!budget_.spend() || (length < 0 && errno != ENOENT))
            readable_ = false;
        target[length < 0 ? 0 : length] = '\0';
        return socket_of(target);
    }

    Directory folder_;
    Budget &budget_;
    bool readable_;
};

enum class Holds { No, Yes, Unreadable };

Holds look_into(const char *path, uint64_t socket, Budget &budget)
{
    Sockets sockets(path, budget);
    while (uint64_t each = sockets.next())
        if (each == socket)
            return Holds::Yes;
    return sockets.is_readable() ? Holds::No : Holds::Unreadable;
}

// Where the main thread has ended, only the folders of the others tell.
Holds look_into_threads(pid_t pid, uint64_t socket, Budget &budget)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    Directory threads(path);
    Holds result = threads ? Holds::No : Holds::Unreadable;
    while (pid_t thread = threads ? threads.next_number() : 0) {
        if (thread == pid)
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%d/fd", pid, thread);
        Holds each = look_into(path, socket, budget);
        if (each == Holds::Yes)
            return each;
        if (each == Holds::Unreadable)
            result = each;
    }
    return result;
}

// Unreadable whatever the reason is: a process that lives may be hidden as if it were not there.
// What a main thread leaves when it ends is empty for root and closed to others.
Holds holds(pid_t pid, uint64_t socket, Budget &budget)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    Holds result = look_into(path, socket, budget);
    Stat stat;
    if (result != Holds::Yes && read_stat(pid, stat) == 0 && stat.state == 'Z')
        return look_into_threads(pid, socket, budget);
    return result == Holds::Unreadable && group_of(pid) < 0 ? Holds::No : result;
}

// ---- what can be known of a process that can't be read

// pidfd_info, Linux 6.13.
struct Info {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, parent;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
static_assert(sizeof(Info) == 64);
constexpr unsigned long kGetInfo = _IOC(_IOC_READ | _IOC_WRITE, 0xFF, 11, sizeof(Info));
constexpr uint64_t kInfoPid = 1 << 0, kInfoCredentials = 1 << 1;

bool get_info(pid_t pid, Info &info)
{
    info = {};
    info.mask = kInfoPid | kInfoCredentials;
    Fd pidfd = open_pidfd(pid);
    return pidfd && ioctl(pidfd.get(), kGetInfo, &info) == 0 && (info.mask & kInfoCredentials) != 0;
}

bool read_uids(pid_t pid, uid_t uids[4])
{
    char path[32], text[2048];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    Fd file = lifted(open(path, O_RDONLY | O_CLOEXEC));
    ssize_t length = file ? read(file.get(), text, sizeof text - 1) : -1;
    if (length < 0)
        return false;
    text[length] = '\0';
    const char *line = strstr(text, "\nUid:");
    return line != nullptr &&
           sscanf(line, "\nUid: %u %u %u %u", &uids[0], &uids[1], &uids[2], &uids[3]) == 4;
}

// Whether it can have made a socket of this user. One that runs as somebody else than the host has
// been root's before.
bool may_be_of(pid_t pid, uid_t uid)
{
    Info info;
    uid_t uids[4];
    if (get_info(pid, info)) {
        uids[0] = info.ruid, uids[1] = info.euid, uids[2] = info.suid, uids[3] = info.fsuid;
    } else if (!read_uids(pid, uids)) {
        return true;
    }
    for (uid_t each : uids)
        if (each == uid)
            return true;
    return uid == 0 && uids[0] != getuid();
}

enum class Relation { Kin, Stranger, Unknown };

// Who descends from the proxy.
class Descent {
  public:
    explicit Descent(pid_t ancestor) : ancestor_(ancestor)
    {
        Stat stat;
        if (read_stat(ancestor, stat) == 0)
            start_ = stat.start;
    }

    // Most processes cost one look: they are older than the proxy, or their siblings were
    // strangers.
    Relation find(pid_t pid)
    {
        pid_t parent = parent_of(pid);
        for (pid_t each : strangers_)
            if (parent > 0 && each == parent)
                return Relation::Stranger;
        Relation relation = follow(parent);
        if (relation == Relation::Stranger) {
            strangers_[next_] = parent;
            next_ = (next_ + 1) % kMostStrangers;
        }
        return relation;
    }

    // Without what is remembered of others.
    bool is_certain(pid_t pid) const { return follow(pid) == Relation::Kin; }

  private:
    // Numbers are reused, so a line of ancestors that changes while it is read may have no end.
    Relation follow(pid_t pid) const
    {
        constexpr int kMostGenerations = 100;
        pid_t host = getpid();
        for (int i = 0; i < kMostGenerations && pid > 1 && pid != host; ++i) {
            if (pid == ancestor_)
                return Relation::Kin;
            pid = parent_of(pid);
        }
        return pid < 0 ? Relation::Unknown : Relation::Stranger;
    }

    // -1: it can't be known. 0: it has none that is as young as the ancestor, or is gone.
    pid_t parent_of(pid_t pid) const
    {
        Stat stat;
        Info info;
        if (read_stat(pid, stat) == 0)
            return stat.start < start_ ? 0 : stat.parent;
        if (get_info(pid, info))
            return static_cast<pid_t>(info.parent);
        return group_of(pid) < 0 ? 0 : -1;
    }

    static constexpr size_t kMostStrangers = 8;

    const pid_t ancestor_;
    uint64_t start_ = 0;
    pid_t strangers_[kMostStrangers] = {}; // parents
    size_t next_ = 0;
};

// ---- what /proc as a whole hides

bool has_ptrace_capability()
{
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
    return syscall(SYS_capget, &header, data) == 0 &&
           (data[0].effective & (1u << CAP_SYS_PTRACE)) != 0;
}

// By number or, since Linux 5.8, by name. 1 hides no more than what processes hold.
bool is_hiding(const char *option)
{
    return option != nullptr && strncmp(option, "hidepid=1", 9) != 0 &&
           strncmp(option, "hidepid=noaccess", 16) != 0;
}

// The last mount is the one that is seen.
bool is_mounted_hiding()
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    if (mounts == nullptr)
        return true;
    char text[4096];
    mntent entry;
    bool hides = false;
    while (getmntent_r(mounts, &entry, text, sizeof text) != nullptr)
        if (strcmp(entry.mnt_dir, "/proc") == 0)
            hides = is_hiding(hasmntopt(&entry, "hidepid"));
    endmntent(mounts);
    return hides;
}

bool hides_processes()
{
    return !has_ptrace_capability() && is_mounted_hiding();
}

// ---- the search for the owner

class OwnerSearch {
  public:
    OwnerSearch(const Listener &listener, const Kin &kin) : listener_(listener), kin_(kin) {}

    // The proxy first: it is the owner nearly always, and costs no search.
    Owner run(Process &outside)
    {
        if (!proc_is_ours())
            return Owner::Unknown;
        if (is_held_by(kin_.proxy))
            return Owner::Kin;
        if (is_held_by_member() || is_held_by_descendant(outside))
            return Owner::Kin;
        return unseen_ || hides_processes() ? Owner::Unknown : Owner::Other;
    }

  private:
    bool is_held_by(pid_t pid)
    {
        if (budget_.is_spent()) {
            unseen_ = true;
            return false;
        }
        Holds result = holds(pid, listener_.socket, budget_);
        if (result == Holds::Unreadable && may_be_of(pid, listener_.uid))
            unseen_ = true;
        return result == Holds::Yes;
    }

    bool is_held_by_member()
    {
        Directory processes("/proc");
        while (pid_t pid = next(processes))
            if (group_of(pid) == kin_.group && is_held_by(pid))
                return true;
        return false;
    }

    bool is_held_by_descendant(Process &outside)
    {
        Directory processes("/proc");
        Descent descent(kin_.proxy);
        while (pid_t pid = next(processes)) {
            if (group_of(pid) == kin_.group)
                continue;
            Relation relation = descent.find(pid);
            if (relation == Relation::Kin && is_pinned_holder(pid, descent, outside))
                return true;
            if (relation == Relation::Unknown && may_be_of(pid, listener_.uid))
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
        if (!processes || processes.has_failed())
            unseen_ = true;
        return pid;
    }

    const Listener &listener_;
    const Kin &kin_;
    Budget budget_;
    bool unseen_ = false; // somebody who may be the owner can't be looked at
};

// ---- for messages

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

// Calls visit(pid) for the proxy and for each member, until that returns true.
template <typename Visit>
bool any_member(const Kin &kin, Visit visit)
{
    if (!proc_is_ours())
        return false;
    if (visit(kin.proxy))
        return true;
    Directory processes("/proc");
    while (pid_t pid = processes ? processes.next_number() : 0)
        if (pid != kin.proxy && pid != kin.guard && group_of(pid) == kin.group && visit(pid))
            return true;
    return false;
}

} // namespace

Owner find_owner(const Listener &listener, const Kin &kin, Process &outside)
{
    return OwnerSearch(listener, kin).run(outside);
}

bool find_holder(uint64_t socket, Holder &holder)
{
    Directory processes("/proc");
    if (!processes || !proc_is_ours())
        return false;
    Budget budget;
    while (pid_t pid = budget.is_spent() ? 0 : processes.next_number()) {
        if (holds(pid, socket, budget) != Holds::Yes)
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
    Budget budget;
    any_member(kin, [&](pid_t pid) {
        char path[32];
        snprintf(path, sizeof path, "/proc/%d/fd", pid);
        Sockets all(path, budget);
        while (uint64_t socket = found < size ? all.next() : 0)
            sockets[found++] = socket;
        return found == size || budget.is_spent();
    });
    return found;
}

bool is_stopped(const Kin &kin)
{
    return any_member(kin, [](pid_t pid) {
        Stat stat;
        return read_stat(pid, stat) == 0 && stat.state == 'T';
    });
}

bool is_trusted(uid_t uid)
{
    return uid == 0 || uid == getuid() || uid == geteuid();
}

} // namespace kpi::sys
