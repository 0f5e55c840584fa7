// SPDX-License-Identifier: Apache-2.0
// The sockets that a process holds, by the folders of its descriptors in /proc.
#pragma once

#include "proc.h"

namespace kpi {

// What one search has: so many descriptors to look at, of the 1.5 microseconds each, since a step
// does not block; and what the host was short of. What was not seen for that reason is not unknown.
class Means {
  public:
    bool spend() { return --left_ >= 0; }
    bool is_spent() const { return left_ <= 0; }

    // Of any call that opens something.
    void note(int error);
    int shortage() const { return shortage_; } // an error number; 0: none

  private:
    int left_ = 100000;
    int shortage_ = 0;
};

// Those in one folder.
class Sockets {
  public:
    Sockets(const char *path, Means &means);

    // 0: that was all, or the rest can't be read.
    uint64_t next();
    bool is_readable() const { return readable_; }

  private:
    uint64_t look(const char *name);

    Directory folder_;
    Means &means_;
    bool readable_;
};

// Unreadable whatever the reason is: a process that lives may be hidden as if it were not there.
enum class Holds { No, Yes, Unreadable };
Holds holds(pid_t pid, uint64_t socket, Means &means);

} // namespace kpi
