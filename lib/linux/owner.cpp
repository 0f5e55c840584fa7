// SPDX-License-Identifier: Apache-2.0
// The search in /proc for the processes that hold a socket.
#include "deadline.h"
#include "descriptors.h"
#include "pidfd.h"
#include "platform/clock.h"
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
    explicit Sockets(const char *path) : folder_(path), error_(folder_ ? 0 : errno) {}

    // 0: that was all, or the rest can't be read.
    uint64_t next()
    {
        const dirent *entry;
        while (error_ == 0 && (entry = folder_.next()) != nullptr)
            if (uint64_t socket = look(entry->d_name))
                return socket;
        if (error_ == 0 && folder_.has_failed())
            error_ = EIO;
        return 0;
    }
    int error() const { return error_; }
    bool is_empty() const { return empty_; }

  private:
    // A descriptor that was closed meanwhile is none any more.
    uint64_t look(const char *name)
    {
        if (name[0] == '.')
            return 0;
        empty_ = false;
        char target[64];
        ssize_t length = readlinkat(folder_.fd(), name, target, sizeof target - 1);
        if (length < 0) {
            if (errno != ENOENT)
                error_ = errno;
            return 0;
        }
        target[length] = '\0';
        return socket_of(target);
    }

    Directory folder_;
    int error_;
    bool empty_ = true;
};

enum class Holds { No, Yes, Unreadable };

struct Content {
    Holds holds;
    bool empty;
};

Content look_into(const char *path, uint64_t socket)
{
    Sockets sockets(path);
    while (uint64_t each = sockets.next())
        if (each == socket)
            return {Holds::Yes, false};
    return {sockets.error() == 0 ? Holds::No : Holds::Unreadable, sockets.is_empty()};
}

// Where the main thread has ended, its folder opens with nothing in it.
Holds look_into_threads(pid_t pid, uint64_t socket)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    Directory threads(path);
    Holds result = Holds::No;
    while (pid_t thread = threads ? threads.next_number() : 0) {
        snprintf(path, sizeof path, "/proc/%d/task/%d/fd", pid, thread);
        Content content = look_into(path, socket);
        if (content.holds == Holds::Yes)
            return Holds::Yes;
        if (content.holds == Holds::Unreadable)
            result = Holds::Unreadable;
    }
    return result;
}

// Unreadable whatever the reason is: a process that lives may be hidden as if it were not there.
Holds holds(pid_t pid, uint64_t socket)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    Content content = look_into(path, socket);
    if (content.holds == Holds::No && content.empty)
        return look_into_threads(pid, socket);
    if (content.holds == Holds::Unreadable && group_of(pid) < 0)
        return Holds::No;
    return content.holds;
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

// Whether it can have made a socket of this user.
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
    return false;
}

enum class Relation { Kin, Stranger, Unknown };

// -1: it can't be known. 0: it has none, or is gone.
pid_t parent_of(pid_t pid)
{
    Stat stat;
    Info info;
    if (read_stat(pid, stat) == 0)
        return stat.parent;
    if (get_info(pid, info))
        return static_cast<pid_t>(info.parent);
    return group_of(pid) < 0 ? 0 : -1;
}

// Numbers are reused, so a line of ancestors that changes while it is read may have no end.
Relation relation_to(pid_t ancestor, pid_t pid)
{
    constexpr int kMostGenerations = 100;
    pid_t host = getpid();
    for (int i = 0; i < kMostGenerations && pid > 1 && pid != host; ++i) {
        if (pid == ancestor)
            return Relation::Kin;
        pid = parent_of(pid);
        if (pid < 0)
            return Relation::Unknown;
    }
    return Relation::Stranger;
}

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
        Holds result = holds(pid, listener_.socket);
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
        while (pid_t pid = next(processes)) {
            Relation relation = relation_to(kin_.proxy, pid);
            if (relation == Relation::Kin && is_pinned_holder(pid, outside))
                return true;
            if (relation == Relation::Unknown && may_be_of(pid, listener_.uid))
                unseen_ = true;
        }
        return false;
    }

    // It is what was looked at if it is still the proxy's descendant once its descriptor is open,
    // and has not ended when its own descriptors were read.
    bool is_pinned_holder(pid_t pid, Process &outside)
    {
        Process found;
        found.pid = pid;
        found.end = open_pidfd(pid);
        if (relation_to(kin_.proxy, pid) != Relation::Kin || !is_held_by(pid))
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
    bool unseen_ = false; // somebody who may be the owner can't be looked at
};

// ---- for messages

// They are made while the host waits for a step that does not block.
constexpr int64_t kMessageTime = 50 * kMillisecond;

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
    Deadline limit = Deadline::after(now(), kMessageTime);
    Directory processes("/proc");
    if (!processes || !proc_is_ours())
        return false;
    while (pid_t pid = processes.next_number()) {
        if (limit.passed(now()))
            break;
        if (holds(pid, socket) != Holds::Yes)
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
    any_member(kin, [&](pid_t pid) {
        char path[32];
        snprintf(path, sizeof path, "/proc/%d/fd", pid);
        Sockets all(path);
        while (uint64_t socket = found < size ? all.next() : 0)
            sockets[found++] = socket;
        return found == size;
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
