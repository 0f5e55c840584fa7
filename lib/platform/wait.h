// SPDX-License-Identifier: Apache-2.0
// Waiting, for a host's event loop or in the library's own.
#pragma once

#include "deadline.h"
#include "platform/cancel.h"
#include "platform/fd.h"
#include <signal.h>
#include <stddef.h>

struct pollfd;
struct timespec;

namespace kpi::sys {

struct Watch {
    int fd;
    bool writable; // wait until it can be written; else until it can be read
};

enum class Woke { Ready, Time, Interrupted };

// For a call that blocks, again and again. The thread can be cancelled while it sleeps, and not at
// another time.
class Waiter {
  public:
    // Whether to keep signal handlers from running in this thread, but while block() blocks: so
    // none runs unseen between a look and the wait. Signals of the program's own faults are not
    // held.
    explicit Waiter(bool holds_signals);
    Waiter(const Waiter &) = delete;
    Waiter &operator=(const Waiter &) = delete;
    ~Waiter();

    // Blocks until one is ready, the deadline has passed, or a signal handler ran.
    Woke block(const Watch *watches, size_t count, Deadline until);

  private:
    int sleep(pollfd *wanted, size_t count, const timespec *limit);
    // In place of a sleep that the system refuses, as that of more than RLIMIT_NOFILE, which may
    // have been lowered: to look again at once would burn the processor.
    Woke nap(int64_t rest);

    Uncancelled uncancelled_;
    bool held_;
    sigset_t host_mask_;
    Fd timer_;
};

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
