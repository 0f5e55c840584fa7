// SPDX-License-Identifier: Apache-2.0
// The process group of guard and proxy: who is in it, how it is signalled, and when it is empty.
#pragma once

#include "child.h"
#include "kp/kp.h"
#include "platform/listener.h"
#include "platform/wait.h"

namespace kpi {

// How long those that were sent SIGKILL are waited for: later they can only be stuck in the kernel,
// or out of the host's reach.
constexpr int64_t kKillTime = kSecond;

class Group {
  public:
    explicit Group(sys::Poller &poller) : poller_(poller) {}
    Group(const Group &) = delete;
    Group &operator=(const Group &) = delete;

    // Guard first, as the group's leader, then the proxy: there is no moment at which a killed host
    // leaves a proxy without a guard. On failure nothing is left.
    kp_result start(const kp_spec &spec, char *const *env, int log, kp_error *error);

    const Child &proxy() const { return proxy_; }

    // Whose the proxy's listener may be.
    sys::Kin kin() const { return {proxy_.pid(), id_, guard_.pid()}; }

    // A process that has left the group and is to be stopped with it, with the whole group that it
    // may lead: the listener's owner, or nobody.
    void keep(sys::Process &&outsider);
    // Whether the proxy leads a group of its own, which then ends after it in the same way.
    void look_at_proxys_group();

    // Look. What was not started has not ended.
    bool proxy_ended();
    bool guard_ended() { return guard_ && has_ended(guard_, guard_watched_); }

    // To everybody in the group, and to the proxy where it has left that; SIGKILL also to the
    // outsider.
    void signal(int signo);

    // Who is left. The guard is ended by this once nobody else is. Unknown: somebody, or zombies
    // that their parent has not reaped yet.
    enum class Rest { Nobody, Somebody, Unknown };
    Rest rest();

    // One of those who are left, for a message.
    pid_t somebody() const;

    // While the proxy starts, the guard's end is watched too; later it harms nothing, and its
    // descriptor would stay ready for ever.
    void started() { unwatch(guard_, guard_watched_); }

    // Nobody is left, or they were given up: only the proxy's pid and exit stay, and who is not
    // reaped yet.
    void close();
    void reap();

    // In a forked child: only closes.
    void let_go();

    // What to wait for; by_clock: and what no descriptor tells.
    static constexpr size_t kMaxWatches = 19;
    size_t watches(sys::Watch *list) const;
    bool by_clock() const { return by_clock_; }

  private:
    // The others of them are found when these have ended.
    static constexpr size_t kMaxMembers = kMaxWatches - 3;

    kp_result spawn_proxy(const kp_spec &spec, char *const *env, int log, kp_error *error);
    void mark(const Child &leader);
    bool is_nicest() const;
    bool is_alone() const;
    void end_guard();
    void watch(Child &child, bool &watched);
    void unwatch(Child &child, bool &watched);
    bool has_ended(Child &child, bool &watched);
    bool members_left();
    void forget(sys::Process &member);
    void forget_members();
    Child &leader() { return guard_ ? guard_ : proxy_; }
    Rest search();
    Rest search_once();
    void keep_leader(pid_t group);
    void keep_proxy();
    Rest rest_of_outsider();
    void signal_outsider(int signo);
    bool find_follower();
    void watch_one(const sys::Process *process);
    void forget_outsider();
    Rest rest_of_group();
    Rest rest_beside_guard();
    Rest rest_after_leader(Child &leader);
    Rest rest_by_number(Child &pin);
    bool is_pinned_by_proxy();

    sys::Poller &poller_;
    Child guard_;
    Child proxy_;
    Fd pipe_; // the guard's: closed when the host is gone
    pid_t id_ = 0;
    bool over_ = false;   // a search has found nobody, and the number is not its own any more
    bool marked_ = false; // the group's leader, by a nice value that
    int mark_ = 0;        // nobody else in the group has
    bool guard_watched_ = false;
    bool proxy_watched_ = false;
    bool proxy_leads_ = false; // a group of its own
    bool by_clock_ = false;    // somebody is left whose end no descriptor tells
    pid_t seen_ = 0;           // one of the members last found
    sys::Process outsider_;
    sys::Process follower_;       // a member of the group that the outsider led
    bool outsider_leads_ = false; // a group
    bool outsider_told_ = false;  // to end
    int awaited_ = -1;            // the end of one of the two
    size_t member_count_ = 0;
    sys::Process members_[kMaxMembers];
};

} // namespace kpi
