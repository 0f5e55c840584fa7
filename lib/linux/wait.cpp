// SPDX-License-Identifier: Apache-2.0
#include "platform/wait.h"
#include "descriptors.h"
#include "platform/clock.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

namespace kpi::sys {

namespace {

constexpr size_t kMostWatches = 32;

constexpr int kFaults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

timespec timespec_of(int64_t ns)
{
    timespec time = {};
    time.tv_sec = static_cast<time_t>(ns / kSecond);
    time.tv_nsec = static_cast<long>(ns % kSecond);
    return time;
}

} // namespace

HeldSignals::HeldSignals(bool hold) : held_(hold)
{
    if (!hold)
        return;
    sigset_t all;
    sigfillset(&all);
    for (int fault : kFaults)
        sigdelset(&all, fault);
    held_ = pthread_sigmask(SIG_BLOCK, &all, &host_mask_) == 0;
}

HeldSignals::~HeldSignals()
{
    if (held_)
        pthread_sigmask(SIG_SETMASK, &host_mask_, nullptr);
}

Woke block(const Watch *watches, size_t count, Deadline until, const HeldSignals &signals)
{
    pollfd wanted[kMostWatches];
    for (size_t i = 0; i < count; ++i)
        wanted[i] = {watches[i].fd, static_cast<short>(watches[i].writable ? POLLOUT : POLLIN), 0};
    timespec rest = timespec_of(until.remaining(now()));
    int ready = ppoll(wanted, count, until.is_never() ? nullptr : &rest, signals.host_mask());
    if (ready < 0 && errno == EINTR)
        return Woke::Interrupted;
    return ready > 0 ? Woke::Ready : Woke::Time;
}

bool Poller::open()
{
    Fd events = lifted(epoll_create1(EPOLL_CLOEXEC));
    Fd timer = lifted(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
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

// Setting the timer also makes it unreadable. A time of zero would turn it off instead of letting
// it go off at once.
void Poller::alarm(Deadline due)
{
    if (!timer_)
        return;
    itimerspec when = {};
    if (!due.is_never())
        when.it_value = timespec_of(due.at > 0 ? due.at : 1);
    timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

} // namespace kpi::sys
