// SPDX-License-Identifier: Apache-2.0
// What can be known of a process that can't be looked into: whose it is, and from whom it descends.
#pragma once

#include "holds.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

namespace kpi {

// Whether it is known that it can have made a socket of this user: it runs as that by any of its
// ids, or has been root's before. And whether it may have, as far as can be known.
bool is_of(pid_t pid, uid_t uid, Means &means);
bool may_be_of(pid_t pid, uid_t uid, Means &means);

enum class Relation { Kin, Stranger, Unknown };

// Who descends from one process.
class Descent {
  public:
    Descent(pid_t ancestor, Means &means);

    // Most processes cost a look or two: they are older than the ancestor, or their siblings or
    // forebears were strangers.
    Relation find(pid_t pid);

    // Without what is remembered of others.
    bool is_certain(pid_t pid) const;

  private:
    Relation follow(pid_t pid, size_t remembered) const;
    bool is_among_strangers(pid_t pid, size_t remembered) const;
    pid_t parent_of(pid_t pid) const;

    static constexpr size_t kMostStrangers = 16;

    const pid_t ancestor_;
    Means &means_;
    uint64_t start_ = 0;
    pid_t strangers_[kMostStrangers] = {}; // parents
    size_t next_ = 0;
};

} // namespace kpi
