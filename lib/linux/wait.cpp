// SPDX-License-Identifier: Apache-2.0
#include "platform/wait.h"
#include "platform/clock.h"
#include "posix/descriptors.h"
#include "posix/wait.h"
#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

namespace kpi::sys {

namespace {

Fd make_timer()
{
    return lifted(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

// Setting the timer also makes it unreadable. A time of zero would turn it off instead of letting
// it go off at once. By the time that is left: a host may run with a clock of its own
// (faketime(1)), by which the kernel does not go.
bool set_timer(const Fd &timer, Deadline due)
{
    itimerspec when = {};
    int64_t rest = due.is_never() ? 0 : due.remaining(now());
    if (!due.is_never())
        when.it_value = timespec_of(rest > 0 ? rest : 1);
    return timerfd_settime(timer.get(), 0, &when, nullptr) == 0;
}

} // namespace

// The kernel lets poll() sleep 50 microseconds longer than asked for (PR_SET_TIMERSLACK, which is
// the host's), but not a timer: that ends a pause of 20 after 45 of them, poll() after 95. And
// after a stop of the whole host (a debugger's, a terminal's) poll() sleeps for what had been left
// of its time, as if none had passed. Where there is no timer to be had poll() has to do.
Woke Waiter::block(const Watch *watches, size_t count, Deadline until)
{
    pollfd wanted[kMostWatches + 1];
    for (size_t i = 0; i < count; ++i)
        wanted[i] = poll_entry(watches[i]);
    int64_t rest = until.remaining(now());
    bool pauses = rest > 0 && !until.is_never();
    if (pauses && !timer_)
        timer_ = make_timer();
    bool timed = pauses && timer_ && set_timer(timer_, until);
    if (timed)
        wanted[count] = {timer_.get(), POLLIN, 0};
    timespec limit = timespec_of(rest);
    int ready = sleep(wanted, count + timed, timed || until.is_never() ? nullptr : &limit);
    if (ready < 0)
        return errno == EINTR ? Woke::Interrupted : nap(rest);
    bool only_timer = timed && ready == 1 && wanted[count].revents != 0;
    return ready > 0 && !only_timer ? Woke::Ready : Woke::Time;
}

bool Poller::open()
{
    Fd events = lifted(epoll_create1(EPOLL_CLOEXEC));
    Fd timer = make_timer();
    if (!events || !timer)
        return false;
    epoll_event readable = {};
    readable.events = EPOLLIN;
    if (epoll_ctl(events.get(), EPOLL_CTL_ADD, timer.get(), &readable) != 0)
        return false;
    events_ = static_cast<Fd &&>(events);
    timer_ = static_cast<Fd &&>(timer);
    return true;
}

bool Poller::watch(const Watch &what)
{
    if (!events_)
        return true;
    epoll_event event = {};
    event.events = what.writable ? EPOLLOUT : EPOLLIN;
    return epoll_ctl(events_.get(), EPOLL_CTL_ADD, what.fd, &event) == 0;
}

void Poller::forget(int fd)
{
    epoll_event unused = {};
    if (events_)
        epoll_ctl(events_.get(), EPOLL_CTL_DEL, fd, &unused);
}

void Poller::alarm(Deadline due)
{
    if (timer_)
        set_timer(timer_, due);
}

} // namespace kpi::sys
