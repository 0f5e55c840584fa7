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

sys::Woke nap(int64_t rest, const sigset_t *mask)
{
    constexpr int64_t kLongest = 10 * kMillisecond;
    timespec limit = timespec_of(rest < kLongest ? rest : kLongest);
    bool interrupted = ppoll(nullptr, 0, &limit, mask) < 0 && errno == EINTR;
    return interrupted ? sys::Woke::Interrupted : sys::Woke::Time;
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

} // namespace sys

} // namespace kpi
