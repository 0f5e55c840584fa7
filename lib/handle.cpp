// SPDX-License-Identifier: Apache-2.0
#include "handle.h"
#include "environment.h"
#include "error.h"
#include "platform/clock.h"
#include "platform/host.h"
#include "schedule.h"
#include "spec.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

using namespace kpi;

namespace {

// How often an exit is looked for in READY where no descriptor tells it.
constexpr int64_t kExitPause = 50 * kMillisecond;

// Below a millisecond a loop that only looks by the clock would burn the processor.
constexpr int64_t kStopPause = kMillisecond;

} // namespace

kp_handle::kp_handle(kp_spec *spec) : generation_(sys::generation()), spec_(spec) {}

kp_handle::~kp_handle()
{
    free(spec_);
}

bool kp_handle::is_foreign() const
{
    return generation_ != sys::generation();
}

// ---- start

kp_result kp_handle::start(kp_error *error)
{
    kp_result result = port_.open(*spec_, error);
    if (result != KP_OK)
        return result;
    if (url_[0] == '\0') // once: other threads may read it at any time
        snprintf(url_, sizeof url_, "http://127.0.0.1:%u", port_.number());
    result = launch(error);
    if (result != KP_OK) {
        port_.shut();
        return result;
    }
    state_ = KP_STATE_STARTING;
    reached_ready_ = false;
    limit_ = Deadline::after(started_, spec_->startup_timeout_ms * kMillisecond);
    set_due(Deadline{0});
    return KP_OK;
}

kp_result kp_handle::launch(kp_error *error)
{
    char **env = proxy_environment(*spec_, port_.number(), sys::environment());
    if (env == nullptr)
        return fail_no_memory(error);
    log_.mark();
    started_ = sys::now();
    kp_result result = group_.start(*spec_, env, log_.target(), error);
    free(env);
    return result;
}

// ---- step

kp_result kp_handle::step(kp_error *error)
{
    switch (state_) {
    case KP_STATE_STARTING:
        return step_starting(error);
    case KP_STATE_READY:
        return step_ready(error);
    case KP_STATE_STOPPING:
        return step_stopping(error);
    default:
        return KP_OK;
    }
}

kp_result kp_handle::step_starting(kp_error *error)
{
    if (group_.proxy_ended())
        return fail_exited(error);
    if (group_.guard_ended())
        return fail(fail_guard_ended(error), error);
    return probe(error);
}

kp_result kp_handle::probe(kp_error *error)
{
    int64_t now = sys::now();
    bool was_pending = probe_.is_pending();
    switch (probe_.attempt(port_.number(), has(*spec_, KP_SPEC_NO_RESERVE))) {
    case Probe::Answer::Accepted:
        return become_ready(error);
    case Probe::Answer::Impossible:
        return fail(fail_system(error, probe_.last_errno(), "make a probe's socket"), error);
    case Probe::Answer::Pending:
        if (!was_pending)
            watch_probe();
        break;
    case Probe::Answer::Refused:
        if (was_pending)
            close_probe();
        break;
    }
    if (limit_.passed(now))
        return fail(fail_timed_out(error, port_.number(), now - started_, probe_.last_errno()),
                    error);
    bool wait_by_clock = !probe_watched_ || group_.by_clock();
    set_due(wait_by_clock ? earlier(limit_, by_clock(now)) : limit_);
    return KP_AGAIN;
}

// The place of the verification that the listener is the proxy's own: between the accepted probe
// and the last look at whether the proxy lives.
kp_result kp_handle::become_ready(kp_error *error)
{
    close_probe();
    if (group_.proxy_ended())
        return fail_exited(error);
    if (group_.guard_ended())
        return fail(fail_guard_ended(error), error);
    group_.started();
    state_ = KP_STATE_READY;
    reached_ready_ = true;
    return step_ready(error);
}

kp_result kp_handle::step_ready(kp_error *error)
{
    if (group_.proxy_ended())
        return fail_exited(error);
    set_due(group_.by_clock() ? by_clock(sys::now()) : Deadline::never());
    return KP_OK;
}

kp_result kp_handle::fail_exited(kp_error *error)
{
    Ended ended = {port_.number(), group_.proxy().exit(), sys::now() - started_, reached_ready_,
                   !has(*spec_, KP_SPEC_NO_RESERVE)};
    return fail(kpi::fail_exited(error, ended), error);
}

// What a failed proxy has left is stopped like any other.
kp_result kp_handle::fail(kp_result result, kp_error *error)
{
    if (error != nullptr)
        log_.quote(error->output, sizeof error->output);
    begin_stop(spec_->stop_grace_ms * kMillisecond);
    return result;
}

void kp_handle::watch_probe()
{
    probe_watched_ = poller_.watch({probe_.fd(), true});
}

void kp_handle::close_probe()
{
    if (probe_watched_)
        poller_.forget(probe_.fd());
    probe_watched_ = false;
    probe_.close();
}

// ---- stop

void kp_handle::stop(int64_t grace)
{
    if (state_ == KP_STATE_EXITED)
        return;
    if (state_ != KP_STATE_STOPPING)
        return begin_stop(grace);
    if (!killed_)
        limit_ = earlier(limit_, Deadline::after(sys::now(), grace));
    if (!killed_ && grace == 0)
        kill();
    set_due(Deadline{0});
}

void kp_handle::begin_stop(int64_t grace)
{
    close_probe();
    group_.started();
    started_ = sys::now();
    killed_ = false;
    limit_ = Deadline::after(started_, grace);
    state_ = KP_STATE_STOPPING;
    if (grace == 0) {
        kill();
    } else {
        group_.signal(SIGTERM);
        group_.signal(SIGCONT); // a stopped process does not see the other
    }
    set_due(Deadline{0});
}

void kp_handle::kill()
{
    killed_ = true;
    limit_ = Deadline::after(sys::now(), kKillTime);
    group_.signal(SIGKILL);
}

kp_result kp_handle::step_stopping(kp_error *error)
{
    int64_t now = sys::now();
    if (!killed_ && limit_.passed(now))
        kill();
    Group::Rest rest = group_.rest();
    if (rest == Group::Rest::Nobody) {
        become_exited();
        return KP_OK;
    }
    if (killed_ && limit_.passed(now)) {
        pid_t pid = group_.somebody();
        become_exited();
        // Unknown: zombies, as far as anybody can tell.
        return rest == Group::Rest::Unknown ? KP_OK : fail_given_up(error, pid);
    }
    if (killed_)
        group_.signal(SIGKILL); // to who joined since
    set_due(group_.by_clock() ? earlier(limit_, by_clock(now)) : limit_);
    return KP_AGAIN;
}

void kp_handle::become_exited()
{
    group_.close();
    port_.shut();
    state_ = KP_STATE_EXITED;
    set_due(Deadline::never());
}

// ---- wait

// When to look at what no descriptor tells.
Deadline kp_handle::by_clock(int64_t now) const
{
    int64_t pause = pause_after(now - started_);
    if (state_ == KP_STATE_STOPPING && pause < kStopPause)
        pause = kStopPause;
    return Deadline::after(now, state_ == KP_STATE_READY ? kExitPause : pause);
}

// Fixed now, so that a host that asks for the time that is left sees it pass.
void kp_handle::set_due(Deadline due)
{
    due_ = due;
    due_without_fd_ = due;
    if (state_ != KP_STATE_EXITED)
        due_without_fd_ = earlier(due, by_clock(sys::now()));
    poller_.alarm(due);
}

int kp_handle::fd()
{
    if (poller_.fd() >= 0)
        return poller_.fd();
    if (!poller_.open())
        return -1;
    sys::Watch list[Group::kMaxWatches];
    size_t count = group_.watches(list);
    bool complete = true;
    for (size_t i = 0; i < count; ++i)
        complete = poller_.watch(list[i]) && complete;
    if (probe_.is_pending())
        complete = poller_.watch({probe_.fd(), true}) && complete;
    if (!complete) {
        poller_ = sys::Poller();
        return -1;
    }
    poller_.alarm(due_);
    return poller_.fd();
}

int64_t kp_handle::timeout() const
{
    Deadline due = poller_.fd() >= 0 ? due_ : due_without_fd_;
    return due.is_never() ? -1 : due.remaining(sys::now());
}

sys::Woke kp_handle::sleep_until(Deadline limit, const sys::HeldSignals &signals)
{
    sys::Watch list[Group::kMaxWatches + 1];
    size_t count = group_.watches(list);
    if (probe_.is_pending())
        list[count++] = {probe_.fd(), true};
    return sys::block(list, count, earlier(due_, limit), signals);
}

kp_result kp_handle::wait(kp_state until, Deadline limit, bool interruptible, kp_error *error)
{
    sys::HeldSignals signals(interruptible);
    for (;;) {
        kp_error told;
        kp_result result = step(&told);
        // Who waits for the end is told only what is still wrong then.
        if (result < 0 && (until == KP_STATE_READY || state_ == KP_STATE_EXITED)) {
            if (error != nullptr)
                *error = told;
            return result;
        }
        if (state_ == until)
            return KP_OK;
        if (limit.passed(sys::now()))
            return KP_AGAIN;
        if (sleep_until(limit, signals) == sys::Woke::Interrupted && interruptible)
            return KP_AGAIN;
    }
}
