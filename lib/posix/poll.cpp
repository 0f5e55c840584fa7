// SPDX-License-Identifier: Apache-2.0
// Waiting where no descriptor tells the time or holds others.
#include "platform/clock.h"
#include "platform/wait.h"
#include "wait.h"
#include <errno.h>

namespace kpi::sys {

Woke Waiter::block(const Watch *watches, size_t count, Deadline until)
{
    pollfd wanted[kMostWatches];
    for (size_t i = 0; i < count; ++i)
        wanted[i] = poll_entry(watches[i]);
    int64_t rest = until.remaining(now());
    timespec limit = timespec_of(rest);
    int ready = sleep(wanted, count, until.is_never() ? nullptr : &limit);
    if (ready < 0)
        return errno == EINTR ? Woke::Interrupted : nap(rest);
    return ready > 0 ? Woke::Ready : Woke::Time;
}

bool Poller::open()
{
    return false;
}

bool Poller::watch(const Watch &)
{
    return true;
}

void Poller::forget(int) {}

void Poller::alarm(Deadline) {}

} // namespace kpi::sys
