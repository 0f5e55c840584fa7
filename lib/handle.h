// SPDX-License-Identifier: Apache-2.0
// The state machine: one proxy from start to end. It is passive: it is told when to look, does what
// is due, and says when it wants to look again.
#pragma once

#include "deadline.h"
#include "error.h"
#include "group.h"
#include "kp/kp.h"
#include "log.h"
#include "platform/wait.h"
#include "port.h"
#include "probe.h"

struct kp_handle {
  public:
    // Takes over the copy of the spec.
    explicit kp_handle(kp_spec *spec);
    kp_handle(const kp_handle &) = delete;
    kp_handle &operator=(const kp_handle &) = delete;
    ~kp_handle();

    // Whether another process made it, of which this one is a fork.
    bool is_foreign() const;

    kp_result start(kp_error *error); // the first time, and each restart
    kp_result step(kp_error *error);
    kp_result wait(kp_state until, kpi::Deadline limit, bool interruptible,
                   kpi::sys::Waiter &waiter, kp_error *error);
    void stop(int64_t grace);
    void reap() { group_.reap(); }

    // In a forked child: closes its copies of all that it shares with the parent, and does nothing
    // else, so also where a fork of a host with threads leaves nothing else. What is known stays.
    void let_go();

    int fd();
    int64_t timeout() const;

    kp_state state() const { return state_; }
    const kp_spec &spec() const { return *spec_; }
    uint16_t port() const { return port_.number(); }
    const char *url() const { return url_; }
    const kpi::Child &proxy() const { return group_.proxy(); }

    kp_result open_log(kp_error *error) { return log_.open(spec_->log_fd, error); }

  private:
    kp_result launch(kp_error *error);
    kp_result step_starting(kp_error *error);
    kp_result step_ready(kp_error *error);
    kp_result step_stopping(kp_error *error);
    kp_result probe(kp_error *error);
    void look_ahead();
    bool stays_out_of_reach(int64_t now);
    void look_at_time_used(int64_t now);
    bool is_busy(int64_t now) const;
    kp_result verify(kp_error *error);
    void find_outsider();
    bool may_doubt();
    kp_result become_connected(kp_error *error);
    kp_result become_ready(kp_error *error);
    kp_result await_exit();
    kp_result fail(kp_result result, kp_error *error);
    kp_result fail_exited(kp_error *error);
    kp_result fail_timed_out(int64_t now, kp_error *error);
    kp_result fail_not_http(kp_error *error);
    void begin_stop(int64_t grace);
    void kill();
    void become_exited();
    bool is_attached() const;
    kpi::Place place() const;

    void set_due(kpi::Deadline due);
    kpi::Deadline by_clock(int64_t now) const;
    static constexpr size_t kMaxWatches = kpi::Group::kMaxWatches + 1;
    size_t watches(kpi::sys::Watch *list) const;
    kpi::sys::Woke sleep_until(kpi::Deadline limit, kpi::sys::Waiter &waiter);

    const uint64_t generation_;
    kp_spec *const spec_;
    kp_state state_ = KP_STATE_EXITED;
    bool reached_ready_ = false;
    bool killed_ = false;
    int64_t started_ = 0; // when this life, or its stop, began
    kpi::Deadline limit_{
        INT64_MAX}; // STARTING: the time-out; STOPPING: the SIGKILL, then giving up
    kpi::Deadline due_without_fd_{INT64_MAX};
    kpi::Deadline due_{INT64_MAX}; // when the next step is due by time
    bool looked_ahead_ = false;
    bool accepted_ = false; // a connection was, in this life
    bool asked_ = false;    // for HTTP, in this life
    int64_t looked_at_ = 0; // when time_used_ was read; 0: not yet
    int64_t time_used_ = -1;
    int64_t doubted_ = 0; // since when the listener is; 0: it is not
    kpi::Deadline reach_{
        INT64_MAX}; // how long the address may stay out of reach; never(): it is not
    kpi::Log log_;
    kpi::Port port_;
    kpi::sys::Poller poller_;
    kpi::Probe probe_{poller_};
    kpi::Group group_{poller_};
    char url_[32] = "";
};
