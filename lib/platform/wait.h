// SPDX-License-Identifier: Apache-2.0
// Waiting, for a host's event loop or in the library's own.
#pragma once

#include "deadline.h"
#include "platform/fd.h"
#include <stddef.h>

namespace kpi::sys {

struct Watch {
    int fd;
    bool writable; // wait until it can be written; else until it can be read
};

enum class Woke { Ready, Time, Interrupted };

// Blocks until one is ready, the deadline has passed, or a signal handler ran.
Woke block(const Watch *watches, size_t count, Deadline until);

// One descriptor that is readable while a watched one is ready or the alarm has gone off. Until it
// is opened, all calls but that are no-ops.
class Poller {
  public:
    bool open();
    int fd() const { return events_.get(); }

    // False: it could not be added; the caller looks by the clock.
    bool watch(const Watch &what);
    // Before the descriptor is closed: a fork()ed worker of the host may hold a copy, and then
    // closing alone does not end the watching.
    void forget(int fd);

    // Goes off at `due`, also when that has passed; never() turns it off.
    void alarm(Deadline due);

  private:
    Fd events_;
    Fd timer_;
};

} // namespace kpi::sys
