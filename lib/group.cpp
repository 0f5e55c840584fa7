// SPDX-License-Identifier: Apache-2.0
#include "group.h"
#include "error.h"
#include "guard.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "schedule.h"
#include "spec.h"
#include <errno.h>
#include <signal.h>

namespace kpi {

namespace {

// For a child that was just killed, where there is nothing else to do meanwhile.
void await_end(Child &child)
{
    int64_t start = sys::now();
    sys::Waiter waiter(false);
    while (!child.ended() && sys::now() - start < kKillTime) {
        sys::Watch watch = {child.end_fd(), false};
        Deadline next = Deadline::after(sys::now(), pause_after(sys::now() - start));
        waiter.block(&watch, watch.fd >= 0,
                     watch.fd >= 0 ? Deadline::after(start, kKillTime) : next);
    }
}

} // namespace

kp_result Group::start(const kp_spec &spec, char *const *env, int log, kp_error *error)
{
    if (!proxy_.ended())
        return fail_given_up(error, proxy_.pid());
    proxy_.reap();
    id_ = 0;
    seen_ = 0;
    by_clock_ = false;
    if (!has(spec, KP_SPEC_NO_GUARD)) {
        kp_result result = start_guard(spec.stop_grace_ms, guard_, pipe_, error);
        if (result != KP_OK) {
            guard_ = Child();
            pipe_.reset();
            return result;
        }
        id_ = guard_.pid();
        mark_guard();
    }
    kp_result result = spawn_proxy(spec, env, log, error);
    if (result != KP_OK) {
        end_guard();
        return result;
    }
    if (id_ == 0)
        id_ = proxy_.pid();
    watch(proxy_, proxy_watched_);
    if (guard_)
        watch(guard_, guard_watched_);
    return KP_OK;
}

// By a nice value one above the host's and the proxy's: the lowest one in the group then tells
// whether anybody else is in it. Not by the lowest priority: on a busy machine a guard at nice 19
// took seconds to run even its own death (32 busy processes on 2 processors: 8 of 10 stops).
void Group::mark_guard()
{
    int host_nice = sys::own_nice();
    guard_nice_ = host_nice + 1;
    guard_tells_ = host_nice < sys::kLowestPriority;
    if (guard_tells_)
        sys::set_nice(guard_.pid(), guard_nice_);
    sys::set_idle(guard_.pid()); // for members that are nicer than that
}

kp_result Group::spawn_proxy(const kp_spec &spec, char *const *env, int log, kp_error *error)
{
    sys::Launch launch = {};
    launch.program = spec.argv[0];
    launch.argv = spec.argv;
    launch.env = env;
    launch.cwd = spec.cwd;
    launch.input = -1;
    launch.output = log;
    launch.group = id_;
    int result = proxy_.spawn(launch);
    if (result == 0)
        return KP_OK;
    // The group is there as long as its leader is.
    if (result == EPERM && guard_ended())
        return fail_guard_ended(error);
    bool cwd_is_wrong = spec.cwd != nullptr && sys::check_directory(spec.cwd) != 0;
    return fail_spawn(error, result, spec.argv[0], cwd_is_wrong ? spec.cwd : nullptr);
}

// In this order: a guard that sees its pipe close while it can still run ends the group.
void Group::end_guard()
{
    if (guard_) {
        guard_.signal(SIGKILL);
        await_end(guard_);
        guard_.reap();
        guard_ = Child();
    }
    pipe_.reset();
}

void Group::watch(Child &child, bool &watched)
{
    watched = child.end_fd() >= 0;
    if (!watched || !poller_.watch({child.end_fd(), false}))
        by_clock_ = true;
}

void Group::unwatch(Child &child, bool &watched)
{
    if (watched)
        poller_.forget(child.end_fd());
    watched = false;
}

bool Group::has_ended(Child &child, bool &watched)
{
    if (!child.ended())
        return false;
    unwatch(child, watched);
    return true;
}

void Group::signal(int signo)
{
    Child &leader = guard_ ? guard_ : proxy_;
    leader.signal_group(signo);
    pid_t group = proxy_.ended() ? id_ : sys::group_of(proxy_.pid());
    if (group == proxy_.pid() && group != id_ && signo == SIGKILL)
        proxy_.signal_group(signo); // it leads one of its own: its workers are there
    else if (group != id_)
        proxy_.signal(signo);
    if (signo == SIGKILL && owner_.end)
        sys::signal(owner_, signo);
}

void Group::keep(sys::Process &&owner)
{
    if (owner.end && !owner_.end)
        owner_ = static_cast<sys::Process &&>(owner);
}

bool Group::proxy_ended()
{
    return proxy_ && has_ended(proxy_, proxy_watched_);
}

// The owner of the listener comes after the group: who is to hand the signal on has done so by
// then.
Group::Rest Group::rest()
{
    Rest rest = rest_of_group();
    return rest == Rest::Nobody && owner_left() ? Rest::Somebody : rest;
}

// Its descriptor is watched from here on only: before, its end is the proxy's own affair.
bool Group::owner_left()
{
    if (!owner_.end)
        return false;
    if (sys::is_over(owner_)) {
        forget_owner();
        return false;
    }
    if (!owner_told_) {
        owner_told_ = true;
        sys::signal(owner_, SIGTERM);
        sys::signal(owner_, SIGCONT);
        if (!poller_.watch({owner_.end.get(), false}))
            by_clock_ = true;
    }
    return true;
}

void Group::forget_owner()
{
    if (owner_told_)
        poller_.forget(owner_.end.get());
    owner_told_ = false;
    owner_ = sys::Process();
}

Group::Rest Group::rest_of_group()
{
    if (!proxy_ended() || members_left())
        return Rest::Somebody;
    if (!guard_)
        return rest_after_leader(proxy_);
    proxy_.reap();
    return has_ended(guard_, guard_watched_) ? rest_after_leader(guard_) : rest_beside_guard();
}

Group::Rest Group::rest_beside_guard()
{
    bool alone = guard_tells_ && guard_.outlives_reaping() && sys::group_nice(id_) >= guard_nice_ &&
                 sys::group_is_idle(id_);
    if (!alone) {
        Rest rest = search();
        if (rest != Rest::Nobody)
            return rest;
    }
    guard_.signal(SIGKILL);
    pipe_.reset();
    if (!guard_watched_)
        watch(guard_, guard_watched_);
    return Rest::Somebody;
}

// The leader has ended. Its number is the group's: it must stay a zombie for as long as the group
// is looked for by number.
Group::Rest Group::rest_after_leader(Child &leader)
{
    if (!leader.is_reaped() && !leader.outlives_reaping()) {
        Rest rest = search();
        if (rest == Rest::Nobody)
            leader.reap();
        return rest;
    }
    leader.reap();
    if (leader.signal_group(0) == ESRCH)
        return Rest::Nobody;
    Rest rest = search();
    // What was found by number was the group only if that is still there.
    if (rest == Rest::Somebody && leader.signal_group(0) == ESRCH) {
        forget_members();
        return Rest::Nobody;
    }
    return rest;
}

// Those that have ended are let go at once: their descriptors stay ready, and a loop would spin.
bool Group::members_left()
{
    size_t left = 0;
    for (size_t i = 0; i < member_count_; ++i) {
        if (sys::is_over(members_[i]))
            forget(members_[i]);
        else if (left++ != i)
            members_[left - 1] = static_cast<sys::Process &&>(members_[i]);
    }
    member_count_ = left;
    return left != 0;
}

void Group::forget(sys::Process &member)
{
    poller_.forget(member.end.get());
    member.end.reset();
}

void Group::forget_members()
{
    for (size_t i = 0; i < member_count_; ++i)
        forget(members_[i]);
    member_count_ = 0;
}

Group::Rest Group::search()
{
    forget_members();
    by_clock_ = false;
    size_t found = 0;
    sys::Search result = sys::find_members(id_, guard_.pid(), members_, kMaxMembers, found);
    if (result == sys::Search::Nobody)
        return Rest::Nobody;
    if (result == sys::Search::Unknown) {
        by_clock_ = true;
        return Rest::Unknown;
    }
    seen_ = members_[0].pid;
    for (size_t i = 0; i < found; ++i) {
        if (!members_[i].end || !poller_.watch({members_[i].end.get(), false}))
            by_clock_ = true;
        if (members_[i].end)
            members_[member_count_++] = static_cast<sys::Process &&>(members_[i]);
    }
    return Rest::Somebody;
}

pid_t Group::somebody() const
{
    if (!proxy_.was_ended())
        return proxy_.pid();
    if (member_count_ != 0)
        return members_[0].pid;
    if (owner_.end)
        return owner_.pid;
    return seen_ != 0 ? seen_ : id_;
}

size_t Group::watches(sys::Watch *list) const
{
    size_t count = 0;
    if (proxy_watched_)
        list[count++] = {proxy_.end_fd(), false};
    if (guard_watched_)
        list[count++] = {guard_.end_fd(), false};
    for (size_t i = 0; i < member_count_; ++i)
        list[count++] = {members_[i].end.get(), false};
    if (owner_told_)
        list[count++] = {owner_.end.get(), false};
    return count;
}

void Group::close()
{
    unwatch(proxy_, proxy_watched_);
    unwatch(guard_, guard_watched_);
    forget_members();
    forget_owner();
    proxy_.reap();
    if (proxy_.was_ended()) // else it was given up, and is looked at again before a restart
        proxy_.close();
    guard_.reap();
    guard_ = Child();
    pipe_.reset();
    by_clock_ = false;
}

} // namespace kpi
