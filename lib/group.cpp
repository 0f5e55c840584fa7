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
    reap();
    guard_ = Child();
    id_ = 0;
    seen_ = 0;
    by_clock_ = false;
    marked_ = false;
    over_ = false;
    if (!has(spec, KP_SPEC_NO_GUARD)) {
        kp_result result = start_guard(spec.stop_grace_ms, guard_, pipe_, error);
        if (result == KP_OK && (guard_.is_reaped() || sys::is_broken(pipe_))) {
            result = fail_guard_ended(error);
            await_end(guard_); // never signalled: its number may be another's
            guard_.reap();
        }
        if (result != KP_OK) {
            guard_ = Child();
            pipe_.reset();
            return result;
        }
        id_ = guard_.pid();
        mark(guard_);
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
void Group::mark(const Child &leader)
{
    int host_nice = sys::own_nice();
    mark_ = host_nice + 1;
    marked_ = host_nice < sys::kLowestPriority;
    if (marked_)
        sys::set_nice(leader.pid(), mark_);
    sys::set_idle(leader.pid()); // for members that are nicer than that
}

// But for members that are as nice.
bool Group::is_nicest() const
{
    return marked_ && sys::group_nice(id_) >= mark_;
}

// But for members with the same marks.
bool Group::is_alone() const
{
    return is_nicest() && sys::group_is_idle(id_);
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
    watched = child.end_fd() >= 0 && poller_.watch({child.end_fd(), false});
    by_clock_ = by_clock_ || !watched;
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
    int result = leader().signal_group(signo);
    if (result == ESRCH && is_pinned_by_proxy())
        sys::signal_group_number(id_, signo);
    if (!proxy_.ended() && sys::group_of(proxy_.pid()) != id_)
        proxy_.signal(signo);
    if (signo == SIGKILL && outsider_.end)
        signal_outsider(signo);
}

// Also once its leader is gone, such as a guard that somebody killed and the host reaped.
bool Group::is_pinned_by_proxy()
{
    return proxy_.is_pinned() && sys::group_of(proxy_.pid()) == id_;
}

void Group::keep(sys::Process &&outsider)
{
    if (!outsider.end || (outsider_.end && !sys::is_over(outsider_)))
        return;
    pid_t group = sys::group_of(outsider.pid);
    outsider_ = static_cast<sys::Process &&>(outsider);
    outsider_leads_ = group == outsider_.pid && sys::signals_groups(outsider_);
    if (!outsider_leads_)
        keep_leader(group);
}

// Instead of a member of its group: that is then one of those who follow it. Only where it is of
// the proxy's, too: the group may be anybody's.
void Group::keep_leader(pid_t group)
{
    sys::Process members[kMaxMembers];
    size_t found = 0;
    sys::find_members(group, 0, members, kMaxMembers, found);
    for (size_t i = 0; i < found; ++i) {
        bool leads = members[i].pid == group && sys::signals_groups(members[i]);
        if (!leads || group == id_ || sys::group_of(outsider_.pid) != group ||
            !sys::may_be_kin(group, kin()) || sys::is_over(members[i]))
            continue;
        outsider_ = static_cast<sys::Process &&>(members[i]);
        outsider_leads_ = true;
    }
}

// Not where it was reaped: the number may be another's.
void Group::look_at_proxys_group()
{
    pid_t pid = proxy_.pid();
    proxy_.ended();
    proxy_leads_ =
        pid != id_ && !proxy_.is_reaped() && sys::group_of(pid) == pid && proxy_.outlives_reaping();
}

// With its own descriptor: at the limit there is no other to be had.
void Group::keep_proxy()
{
    if (!proxy_leads_ || !proxy_.is_reaped())
        return;
    outsider_ = proxy_.take();
    outsider_leads_ = true;
    proxy_leads_ = false;
}

bool Group::proxy_ended()
{
    return proxy_ && has_ended(proxy_, proxy_watched_);
}

// The outsider comes after the group: who is to hand the signal on has done so by then.
Group::Rest Group::rest()
{
    Rest rest = rest_of_group();
    if (rest == Rest::Nobody)
        rest = rest_of_outsider();
    if (rest != Rest::Nobody)
        return rest;
    keep_proxy();
    return rest_of_outsider();
}

// Watched from here on only: before, its end is the proxy's own affair.
Group::Rest Group::rest_of_outsider()
{
    if (!outsider_.end)
        return Rest::Nobody;
    bool follows = follower_.end && sys::group_of(follower_.pid) == outsider_.pid;
    if (follows && !sys::is_over(follower_))
        return Rest::Somebody;
    bool is_over = sys::is_over(outsider_);
    watch_one(nullptr);
    if (is_over && !find_follower()) {
        forget_outsider();
        return Rest::Nobody;
    }
    if (!outsider_told_) {
        outsider_told_ = true;
        signal_outsider(SIGTERM);
        signal_outsider(SIGCONT);
    }
    watch_one(is_over ? &follower_ : &outsider_);
    return is_over && !follower_.end ? Rest::Unknown : Rest::Somebody;
}

// One of those that are left of the group that the outsider led, as search() finds its own. The
// number is good for that only if the group is still there afterwards.
bool Group::find_follower()
{
    constexpr int kSignals[] = {0, 0, SIGKILL};
    follower_ = sys::Process();
    for (int signo : kSignals) {
        size_t found = 0;
        if (!outsider_leads_ || sys::signal_group(outsider_, signo) == ESRCH)
            return false;
        sys::Search result = sys::find_members(outsider_.pid, 0, &follower_, 1, found);
        if (result != sys::Search::Nobody)
            return sys::signal_group(outsider_, 0) != ESRCH; // EPERM: others' are there
    }
    return false;
}

// It may have left the group that it led.
void Group::signal_outsider(int signo)
{
    int result = outsider_leads_ ? sys::signal_group(outsider_, signo) : ESRCH;
    if (result != 0 || sys::group_of(outsider_.pid) != outsider_.pid)
        sys::signal(outsider_, signo);
}

// Outsider, follower, or neither.
void Group::watch_one(const sys::Process *process)
{
    if (awaited_ >= 0)
        poller_.forget(awaited_);
    awaited_ = process != nullptr ? process->end.get() : -1;
    if (awaited_ >= 0 && !poller_.watch({awaited_, false}))
        awaited_ = -1;
    by_clock_ = by_clock_ || (process != nullptr && awaited_ < 0);
}

void Group::forget_outsider()
{
    watch_one(nullptr);
    outsider_told_ = outsider_leads_ = false;
    outsider_ = sys::Process();
    follower_ = sys::Process();
}

Group::Rest Group::rest_of_group()
{
    if (!proxy_ended() || members_left())
        return Rest::Somebody;
    if (!guard_)
        return rest_after_leader(proxy_);
    bool lost_guard = has_ended(guard_, guard_watched_) && !guard_.outlives_reaping();
    if (lost_guard && !guard_.is_pinned() && is_pinned_by_proxy())
        return rest_by_number(proxy_);
    proxy_.reap();
    return has_ended(guard_, guard_watched_) ? rest_after_leader(guard_) : rest_beside_guard();
}

Group::Rest Group::rest_beside_guard()
{
    bool alone = is_alone();
    Rest rest = !alone ? search() : guard_.outlives_reaping() ? Rest::Nobody : Rest::Unknown;
    if (rest == Rest::Somebody || (rest == Rest::Unknown && !alone))
        return rest;
    // Nobody can be looked for later: who has the guard's marks ends with it.
    if (rest == Rest::Unknown)
        guard_.signal_group(SIGKILL);
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
    if (!leader.outlives_reaping())
        return rest_by_number(leader);
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

// `pin` is the leader, or a member where that is gone. Once it is reaped the number may be a
// stranger's group: it is asked for, never signalled.
Group::Rest Group::rest_by_number(Child &pin)
{
    if (over_)
        return Rest::Nobody;
    if (pin.is_pinned()) {
        // Who was as humble as the guard was ended with it.
        bool swept = &pin == &guard_ && !pipe_ && is_nicest();
        Rest rest = swept ? Rest::Unknown : search();
        if (rest == Rest::Unknown && &pin != &guard_)
            mark(pin);
        // By the one mark that a zombie keeps.
        if (rest == Rest::Somebody || (rest == Rest::Unknown && !is_nicest()))
            return rest;
        if (rest == Rest::Unknown && pin.is_pinned())
            sys::signal_group_number(id_, SIGKILL);
        pin.reap();
        over_ = rest == Rest::Nobody;
        if (over_) // but for zombies, which the number would count
            return rest;
    }
    // No process gets the number of a group that is left: one that has it came after that.
    if (sys::signal_group_number(id_, 0) == ESRCH || sys::group_of(id_) >= 0)
        return Rest::Nobody;
    by_clock_ = true;
    return Rest::Unknown;
}

// Those that have ended are let go at once: their descriptors stay ready, and a loop would spin.
// Those that have left the group are out of reach.
bool Group::members_left()
{
    size_t left = 0;
    for (size_t i = 0; i < member_count_; ++i) {
        if (sys::is_over(members_[i]) || sys::group_of(members_[i].pid) != id_)
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

// Whoever was born while /proc was read, of one that ended before it was looked at, is not seen:
// one that is there for longer than that is seen by the second search. Others, such as a row of
// processes that fork and end without a pause, have no more of the grace: once they were sent
// SIGKILL nobody is born, and all are seen.
Group::Rest Group::search()
{
    Rest rest = search_once();
    if (rest == Rest::Nobody)
        rest = search_once();
    if (rest != Rest::Nobody)
        return rest;
    leader().signal_group(SIGKILL);
    return search_once();
}

Group::Rest Group::search_once()
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
    if (outsider_.end)
        return follower_.pid != 0 ? follower_.pid : outsider_.pid; // that has ended
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
    if (awaited_ >= 0)
        list[count++] = {awaited_, false};
    return count;
}

void Group::reap()
{
    proxy_.reap();
    guard_.reap();
}

void Group::let_go()
{
    pipe_.reset();
    guard_.close();
    proxy_.close();
    outsider_.end.reset();
    follower_.end.reset();
    for (sys::Process &member : members_)
        member.end.reset();
}

void Group::close()
{
    unwatch(proxy_, proxy_watched_);
    unwatch(guard_, guard_watched_);
    forget_members();
    forget_outsider();
    reap();
    if (proxy_.is_reaped()) // else it was given up or is traced, and is looked at again later
        proxy_.close();
    if (guard_.is_reaped())
        guard_ = Child();
    pipe_.reset();
    by_clock_ = false;
}

} // namespace kpi
