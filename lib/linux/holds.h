// SPDX-License-Identifier: Apache-2.0
// The sockets that a process holds, by the folders of its descriptors in /proc.
#pragma once

#include "proc.h"

namespace kpi {

// How many descriptors one search looks at, of the 1.5 microseconds each: a step does not block.
class Budget {
  public:
    bool spend() { return --left_ >= 0; }
    bool is_spent() const { return left_ <= 0; }

  private:
    int left_ = 100000;
};

// Those in one folder.
class Sockets {
  public:
    Sockets(const char *path, Budget &budget);

    // 0: that was all, or the rest can't be read.
    uint64_t next();
    bool is_readable() const { return readable_; }

  private:
    uint64_t look(const char *name);

    Directory folder_;
    Budget &budget_;
    bool readable_;
};

// Unreadable whatever the reason is: a process that lives may be hidden as if it were not there.
enum class Holds { No, Yes, Unreadable };
Holds holds(pid_t pid, uint64_t socket, Budget &budget);

} // namespace kpi
