// SPDX-License-Identifier: Apache-2.0
#include "platform/wait.h"
#include "wait.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>

namespace kpi {

timespec timespec_of(int64_t ns)
{
    timespec time = {};
    time.tv_sec = static_cast<time_t>(ns / kSecond);
    time.tv_nsec = static_cast<long>(ns % kSecond);
    return time;
}

pollfd poll_entry(const sys::Watch &watch)
{
    return {watch.fd, static_cast<short>(watch.writable ? POLLOUT : POLLIN), 0};
}

namespace sys {

namespace {

constexpr int kFaults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

} // namespace

Waiter::Waiter(bool holds_signals) : held_(holds_signals)
{
    if (!holds_signals)
        return;
    sigset_t all;
    sigfillset(&all);
    for (int fault : kFaults)
        sigdelset(&all, fault);
    held_ = pthread_sigmask(SIG_BLOCK, &all, &host_mask_) == 0;
}

Waiter::~Waiter()
{
    if (held_)
        pthread_sigmask(SIG_SETMASK, &host_mask_, nullptr);
}

int Waiter::sleep(pollfd *wanted, size_t count, const timespec *limit)
{
    int state;
    pthread_setcancelstate(uncancelled_.host_state_, &state);
    int ready = ppoll(wanted, static_cast<nfds_t>(count), limit, held_ ? &host_mask_ : nullptr);
    pthread_setcancelstate(state, nullptr);
    return ready;
}

Woke Waiter::nap(int64_t rest)
{
    constexpr int64_t kLongest = 10 * kMillisecond;
    timespec limit = timespec_of(rest < kLongest ? rest : kLongest);
    bool interrupted = sleep(nullptr, 0, &limit) < 0 && errno == EINTR;
    return interrupted ? Woke::Interrupted : Woke::Time;
}

} // namespace sys

} // namespace kpi
