// SPDX-License-Identifier: Apache-2.0
#include "kinship.h"
#include "pidfd.h"
#include "posix/descriptors.h"
#include "proc.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace kpi {

namespace {

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

bool get_info(pid_t pid, Info &info, Means &means)
{
    info = {};
    info.mask = kInfoPid | kInfoCredentials;
    Fd pidfd = open_pidfd(pid);
    means.note(pidfd ? 0 : errno);
    return pidfd && ioctl(pidfd.get(), kGetInfo, &info) == 0 && (info.mask & kInfoCredentials) != 0;
}

bool read_uids(pid_t pid, uid_t uids[4], Means &means)
{
    char path[32], text[2048];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    Fd file = lifted(open(path, O_RDONLY | O_CLOEXEC));
    means.note(file ? 0 : errno);
    ssize_t length = file ? read(file.get(), text, sizeof text - 1) : -1;
    if (length < 0)
        return false;
    text[length] = '\0';
    const char *line = strstr(text, "\nUid:");
    return line != nullptr &&
           sscanf(line, "\nUid: %u %u %u %u", &uids[0], &uids[1], &uids[2], &uids[3]) == 4;
}

} // namespace

namespace {

bool find_uids(pid_t pid, uid_t uids[4], Means &means)
{
    Info info;
    if (!get_info(pid, info, means))
        return read_uids(pid, uids, means);
    uids[0] = info.ruid, uids[1] = info.euid, uids[2] = info.suid, uids[3] = info.fsuid;
    return true;
}

// One that runs as somebody else than the host has been root's before.
bool can_be_made_by(const uid_t uids[4], uid_t uid)
{
    for (int i = 0; i < 4; ++i)
        if (uids[i] == uid)
            return true;
    return uid == 0 && uids[0] != getuid();
}

} // namespace

bool is_of(pid_t pid, uid_t uid, Means &means)
{
    uid_t uids[4];
    return find_uids(pid, uids, means) && can_be_made_by(uids, uid);
}

bool may_be_of(pid_t pid, uid_t uid, Means &means)
{
    uid_t uids[4];
    return !find_uids(pid, uids, means) || can_be_made_by(uids, uid);
}

Descent::Descent(pid_t ancestor, Means &means) : ancestor_(ancestor), means_(means)
{
    Stat stat;
    int error = read_stat(ancestor, stat);
    means.note(error);
    if (error == 0)
        start_ = stat.start;
}

Relation Descent::find(pid_t pid)
{
    pid_t parent = parent_of(pid);
    if (is_among_strangers(parent, kMostStrangers))
        return Relation::Stranger;
    Relation relation = follow(parent, kMostStrangers);
    if (relation == Relation::Stranger && parent > 0) {
        strangers_[next_] = parent;
        next_ = (next_ + 1) % kMostStrangers;
    }
    return relation;
}

bool Descent::is_certain(pid_t pid) const
{
    return follow(pid, 0) == Relation::Kin;
}

// Numbers are reused, so a line of ancestors that changes while it is read may have no end.
Relation Descent::follow(pid_t pid, size_t remembered) const
{
    constexpr int kMostGenerations = 100;
    pid_t host = getpid();
    for (int i = 0; i < kMostGenerations && pid > 1 && pid != host; ++i) {
        if (pid == ancestor_)
            return Relation::Kin;
        if (is_among_strangers(pid, remembered))
            return Relation::Stranger;
        pid = parent_of(pid);
    }
    return pid < 0 ? Relation::Unknown : Relation::Stranger;
}

bool Descent::is_among_strangers(pid_t pid, size_t remembered) const
{
    for (size_t i = 0; i < remembered; ++i)
        if (pid > 0 && strangers_[i] == pid)
            return true;
    return false;
}

// -1: it can't be known. 0: it has none that is as young as the ancestor, or is gone.
pid_t Descent::parent_of(pid_t pid) const
{
    Stat stat;
    Info info;
    int error = read_stat(pid, stat);
    means_.note(error);
    if (error == 0)
        return stat.start < start_ ? 0 : stat.parent;
    if (get_info(pid, info, means_))
        return static_cast<pid_t>(info.parent);
    return getpgid(pid) < 0 ? 0 : -1;
}

} // namespace kpi
