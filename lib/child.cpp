// SPDX-License-Identifier: Apache-2.0
#include "child.h"
#include "platform/clock.h"
#include "platform/wait.h"
#include <errno.h>

namespace kpi {

namespace {

// EPERM may be a seccomp filter's answer; where it is the kernel's, the number gets the same.
bool needs_number(int result)
{
    return result == ENOSYS || result == EPERM;
}

// A host that has just written the program may have forked a child meanwhile, in another thread: it
// has the file open for writing until it executes something else.
int spawn_once_closed(const sys::Launch &launch, sys::Process &child, bool &lost)
{
    int result = sys::spawn(launch, child, lost);
    if (result != ETXTBSY)
        return result;
    Deadline limit = Deadline::after(sys::now(), 20 * kMillisecond);
    sys::Waiter waiter(false);
    for (int64_t pause = kMillisecond; result == ETXTBSY && !limit.passed(sys::now()); pause *= 2) {
        waiter.block(nullptr, 0, earlier(limit, Deadline::after(sys::now(), pause)));
        result = sys::spawn(launch, child, lost);
    }
    return result;
}

} // namespace

int Child::spawn(const sys::Launch &launch)
{
    Child fresh;
    bool lost = false;
    int result = spawn_once_closed(launch, fresh.process_, lost);
    fresh.ended_ = fresh.reaped_ = lost;
    if (result == 0)
        *this = static_cast<Child &&>(fresh);
    return result;
}

bool Child::ended()
{
    if (ended_ || process_.pid == 0)
        return true;
    sys::Life life = sys::look(process_, exit_);
    ended_ = life != sys::Life::Alive;
    reaped_ = life == sys::Life::Gone;
    return ended_;
}

void Child::reap()
{
    if (process_.pid == 0 || reaped_ || !ended())
        return;
    if (!reaped_)
        reaped_ = sys::reap(process_);
}

// Also a zombie may be reaped by somebody else, at any time.
bool Child::is_pinned()
{
    Exit unused;
    if (ended() && !reaped_)
        reaped_ = process_.pid == 0 || sys::look(process_, unused) == sys::Life::Gone;
    return !reaped_;
}

int Child::signal(int signo)
{
    if (ended())
        return ESRCH;
    int result = sys::signal(process_, signo);
    return needs_number(result) ? sys::signal_number(process_.pid, signo) : result;
}

bool Child::outlives_reaping()
{
    signals_groups_ = signals_groups_ || sys::signals_groups(process_);
    return signals_groups_;
}

int Child::signal_group(int signo)
{
    if (process_.pid == 0)
        return ESRCH;
    int result = sys::signal_group(process_, signo);
    if (needs_number(result) && is_pinned())
        return sys::signal_group_number(process_.pid, signo);
    return result == ENOSYS ? ESRCH : result; // EPERM: others are there
}

} // namespace kpi
