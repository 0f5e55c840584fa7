// SPDX-License-Identifier: Apache-2.0
#include "handle.h"
#include "environment.h"
#include "error.h"
#include "listener.h"
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

// How long a listener may be nobody's that can be seen. On a busy machine a process that ends may
// take milliseconds from letting go of its descriptors to closing them.
constexpr int64_t kDoubtTime = 200 * kMillisecond;

// How long the address may be out of reach: an errno that no proxy can cure, but a host that is
// about to bring the loopback interface of its namespace up.
constexpr int64_t kReachTime = 200 * kMillisecond;

// Each look at it is a search of all processes.
constexpr int64_t kDoubtPause = 20 * kMillisecond;

// A host that was stopped may find only after the time-out that the proxy listens, and ask it then:
// it has not been late with its answer.
constexpr int64_t kAnswerTime = 200 * kMillisecond;

const char *describe(Probe::Heard heard)
{
    switch (heard) {
    case Probe::Heard::Other:
        return "answered";
    case Probe::Heard::Endless:
        return "answered with a line that does not end";
    case Probe::Heard::Closed:
        return "closed the connection";
    default:
        return "did not answer in time";
    }
}

} // namespace

kp_handle::kp_handle(kp_spec *spec) : generation_(sys::generation()), spec_(spec) {}

kp_handle::~kp_handle()
{
    free(spec_);
}

bool kp_handle::is_attached() const
{
    return has(*spec_, KP_SPEC_ATTACH);
}

Place kp_handle::place() const
{
    return {port_.number(), is_attached()};
}

bool kp_handle::is_foreign() const
{
    return generation_ != sys::generation();
}

// ---- start

kp_result kp_handle::start(kp_error *error)
{
    if (!is_attached() && !sys::spawns_among_its_own())
        return fail_state(error, "this thread's next child will be in another pid namespace (it "
                                 "called unshare or setns): a proxy can't be started before that");
    kp_result result = port_.open(*spec_, error);
    if (result != KP_OK)
        return result;
    if (url_[0] == '\0') // once: other threads may read it at any time
        snprintf(url_, sizeof url_, "http://127.0.0.1:%u", port_.number());
    started_ = sys::now();
    if (!is_attached())
        result = launch(error);
    if (result != KP_OK) {
        port_.shut();
        return result;
    }
    probe_.begin(port_.number(), !port_.is_reserved(), !port_.is_reserved() && !is_attached());
    doubted_ = 0;
    reach_ = Deadline::never();
    looked_ahead_ = false;
    looked_at_ = 0;
    accepted_ = false;
    asked_ = false;
    state_ = KP_STATE_STARTING;
    reached_ready_ = false;
    limit_ = Deadline::after(started_, spec_->startup_timeout_ms * kMillisecond);
    set_due(Deadline::at_once());
    return KP_OK;
}

kp_result kp_handle::launch(kp_error *error)
{
    char **env = proxy_environment(*spec_, port_.number(), sys::environment());
    if (env == nullptr)
        return fail_no_memory(error);
    log_.mark();
    Fd output;
    kp_result result = group_.start(*spec_, env, log_.target(output), error);
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
    int64_t now = sys::now();
    kp_result result = probe(error);
    if (result != KP_AGAIN)
        return result;
    if (stays_out_of_reach(now))
        return fail(fail_out_of_reach(error, place(), probe_.last_errno()), error);
    if (limit_.passed(now))
        return fail_timed_out(now, error);
    look_at_time_used(now);
    Deadline last = probe_.is_answered() ? earlier(limit_, probe_.ends_by()) : limit_;
    bool wait_by_clock = probe_.by_clock() || group_.by_clock();
    Deadline next = doubted_ != 0 ? Deadline::after(now, kDoubtPause) : by_clock(now);
    set_due(wait_by_clock ? earlier(last, next) : last);
    return KP_AGAIN;
}

kp_result kp_handle::probe(kp_error *error)
{
    if (doubted_ != 0) // more connections that nobody accepts would fill the backlog
        return become_connected(error);
    if (probe_.is_answered() && limit_.passed(sys::now())) // no more time for the rest of it
        return become_ready(error);
    switch (probe_.attempt()) {
    case Probe::Answer::Connected:
        return become_connected(error);
    case Probe::Answer::Http:
        return become_ready(error);
    case Probe::Answer::NotHttp:
        return fail_not_http(error);
    case Probe::Answer::Impossible:
        return fail(fail_system(error, probe_.last_errno(), "make a probe's socket"), error);
    default:
        look_ahead();
        return KP_AGAIN;
    }
}

// For a moment it may be, while a namespace is made.
bool kp_handle::stays_out_of_reach(int64_t now)
{
    if (!is_out_of_reach(probe_.last_errno()))
        reach_ = Deadline::never();
    else if (reach_.is_never())
        reach_ = Deadline::after(now, kReachTime);
    return reach_.passed(now);
}

// Once, when half of the start-up time is over: who is ready sooner pays nothing for it.
void kp_handle::look_at_time_used(int64_t now)
{
    bool is_early = now - started_ < limit_.remaining(now);
    if (is_early || looked_at_ != 0 || is_attached())
        return;
    looked_at_ = now;
    time_used_ = sys::time_used(group_.kin());
}

// A twentieth of one processor, since then: one that waits for the network uses about as much.
bool kp_handle::is_busy(int64_t now) const
{
    if (looked_at_ == 0 || time_used_ < 0)
        return false;
    return sys::time_used(group_.kin()) - time_used_ > (now - looked_at_) / 20;
}

void kp_handle::look_ahead()
{
    if (!looked_ahead_ && !is_attached())
        sys::look_ahead(group_.proxy().pid());
    looked_ahead_ = true;
}

// Nothing is sent to a listener before it was verified.
kp_result kp_handle::become_connected(kp_error *error)
{
    accepted_ = true;
    if (!has(*spec_, KP_SPEC_PROBE_HTTP))
        return become_ready(error);
    kp_result result = verify(error);
    if (result != KP_OK)
        return result;
    probe_.ask();
    int64_t now = sys::now();
    if (!asked_ && limit_.passed(now))
        limit_ = Deadline::after(now, kAnswerTime);
    asked_ = true;
    return KP_AGAIN;
}

// KP_AGAIN: nobody listens any more, or it can't be said yet.
kp_result kp_handle::verify(kp_error *error)
{
    Verdict verdict =
        is_attached() ? verify_attached(port_.number()) : kpi::verify(port_.number(), group_.kin());
    group_.keep(static_cast<sys::Process &&>(verdict.outside));
    if (has(*spec_, KP_SPEC_ANY_LISTENER)) // also where connections are sent on, and nobody listens
        return KP_OK;
    bool failed = verdict.whose == Verdict::Failed; // a shortage, which may pass
    bool doubtful = failed || verdict.whose == Verdict::Doubtful;
    bool gives_up = doubtful && !may_doubt();
    if (failed && gives_up)
        return fail(fail_system(error, verdict.sys_errno, "look for the listener's owner"), error);
    if (verdict.whose == Verdict::Untold)
        return fail(fail_untold(error, place()), error);
    if (verdict.whose == Verdict::Other || gives_up)
        return fail(fail_foreign(error, place(), verdict.stranger), error);
    if (!doubtful)
        doubted_ = 0;
    return doubtful || verdict.whose == Verdict::Nobody ? KP_AGAIN : KP_OK;
}

// Before READY the listener's owner may not have been looked for, or not found. Later it can't be:
// those who lead to it are gone first.
void kp_handle::find_outsider()
{
    if (state_ == KP_STATE_STARTING && !group_.proxy().was_ended())
        group_.keep(kpi::verify(port_.number(), group_.kin()).outside);
}

bool kp_handle::may_doubt()
{
    int64_t now = sys::now();
    if (doubted_ == 0)
        doubted_ = now;
    return now - doubted_ < kDoubtTime && !limit_.passed(now);
}

// The proxy is looked at once more after its listener was.
kp_result kp_handle::become_ready(kp_error *error)
{
    probe_.close();
    kp_result result = verify(error);
    if (result != KP_OK)
        return result;
    if (group_.proxy_ended())
        return fail_exited(error);
    if (group_.guard_ended())
        return fail(fail_guard_ended(error), error);
    group_.started();
    state_ = KP_STATE_READY;
    reached_ready_ = true;
    return await_exit();
}

kp_result kp_handle::step_ready(kp_error *error)
{
    if (group_.proxy_ended())
        return fail_exited(error);
    return await_exit();
}

kp_result kp_handle::await_exit()
{
    set_due(group_.by_clock() ? by_clock(sys::now()) : Deadline::never());
    return KP_OK;
}

kp_result kp_handle::fail_exited(kp_error *error)
{
    char output[sizeof kp_error::output];
    log_.quote(output, sizeof output);
    Ended ended = {place(),
                   group_.proxy().exit(),
                   sys::now() - started_,
                   reached_ready_,
                   !accepted_ && port_.is_reserved(),
                   Stranger(),
                   output};
    if (!reached_ready_)
        ended.stranger = find_stranger(port_.number());
    return fail(kpi::fail_exited(error, ended), error);
}

kp_result kp_handle::fail_timed_out(int64_t now, kp_error *error)
{
    bool is_stopped = !is_attached() && sys::is_stopped(group_.kin());
    if (!is_stopped && probe_.heard() != Probe::Heard::Nothing && probe_.last_errno() == 0)
        return fail_not_http(error);
    TimedOut timed_out = {};
    timed_out.stopped = is_stopped;
    timed_out.busy = is_busy(now);
    timed_out.reserved = port_.is_reserved();
    timed_out.place = place();
    timed_out.after = now - started_;
    timed_out.connect_errno = probe_.last_errno();
    timed_out.unanswered = probe_.is_waiting();
    if (is_attached()) {
        find_elsewhere_attached(port_.number(), timed_out.elsewhere, sizeof timed_out.elsewhere);
    } else {
        find_elsewhere(port_.number(), group_.kin(), timed_out.elsewhere,
                       sizeof timed_out.elsewhere);
    }
    return fail(kpi::fail_timed_out(error, timed_out), error);
}

kp_result kp_handle::fail_not_http(kp_error *error)
{
    return fail(kpi::fail_not_http(error, port_.number(), describe(probe_.heard()), probe_.text()),
                error);
}

// What a failed proxy has left is stopped like any other.
kp_result kp_handle::fail(kp_result result, kp_error *error)
{
    if (error != nullptr)
        log_.quote(error->output, sizeof error->output);
    begin_stop(spec_->stop_grace_ms * kMillisecond);
    return result;
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
    set_due(Deadline::at_once());
}

void kp_handle::begin_stop(int64_t grace)
{
    probe_.close();
    if (is_attached())
        return become_exited();
    find_outsider();
    port_.shut();
    group_.started();
    group_.look_at_proxys_group();
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
    set_due(Deadline::at_once());
}

// The time counts from the signal on: a host that is stopped in between must not give up at once.
void kp_handle::kill()
{
    killed_ = true;
    group_.signal(SIGKILL);
    limit_ = Deadline::after(sys::now(), kKillTime);
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
    state_ = KP_STATE_EXITED;
    set_due(Deadline::never());
}

// The poller first: what is closed then takes nothing from what the parent's goes on watching.
void kp_handle::let_go()
{
    poller_ = sys::Poller();
    probe_.let_go();
    group_.let_go();
    port_.let_go();
    log_.let_go();
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

size_t kp_handle::watches(sys::Watch *list) const
{
    size_t count = group_.watches(list);
    if (probe_.is_waiting())
        list[count++] = probe_.watch();
    return count;
}

int kp_handle::fd()
{
    if (poller_.fd() >= 0)
        return poller_.fd();
    if (!poller_.open())
        return -1;
    sys::Watch list[kMaxWatches];
    size_t count = watches(list);
    bool complete = true;
    for (size_t i = 0; i < count; ++i)
        complete &= poller_.watch(list[i]);
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

sys::Woke kp_handle::sleep_until(Deadline limit, sys::Waiter &waiter)
{
    sys::Watch list[kMaxWatches];
    size_t count = watches(list);
    return waiter.block(list, count, earlier(due_, limit));
}

kp_result kp_handle::wait(kp_state until, Deadline limit, bool interruptible, sys::Waiter &waiter,
                          kp_error *error)
{
    for (;;) {
        kp_error told;
        kp_result result = step(&told);
        // Who waits for the end is told only of what could not be ended.
        bool given_up = state_ == KP_STATE_EXITED && !is_attached();
        if (result < 0 && (until == KP_STATE_READY || given_up)) {
            if (error != nullptr)
                *error = told;
            return result;
        }
        if (state_ == until)
            return KP_OK;
        if (limit.passed(sys::now()))
            return KP_AGAIN;
        if (sleep_until(limit, waiter) == sys::Woke::Interrupted && interruptible)
            return KP_AGAIN;
    }
}
