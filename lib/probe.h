// SPDX-License-Identifier: Apache-2.0
// One attempt after another to connect to the proxy's port and, if need be, to have an HTTP answer.
#pragma once

#include "deadline.h"
#include "http.h"
#include "platform/fd.h"
#include "platform/wait.h"
#include <stdint.h>

namespace kpi {

class Probe {
  public:
    explicit Probe(sys::Poller &poller) : poller_(poller) {}
    Probe(const Probe &) = delete;
    Probe &operator=(const Probe &) = delete;

    // The first two: try again later. Connected is told once; then the host closes it, or asks.
    // Http is told when the proxy has ended the connection too, or was given the time for it.
    enum class Answer { Refused, Pending, Connected, Http, NotHttp, Impossible };

    // A new life of the proxy. from_other: from 127.0.0.2, where a probe could meet itself.
    // no_trace: no connection may keep the port afterwards.
    void begin(uint16_t port, bool from_other, bool no_trace);

    // Starts an attempt, or looks at the one that is under way.
    Answer attempt();

    // For an HTTP answer, once a connection was made and whose the listener is is known.
    void ask();

    // What tells that the attempt goes on.
    bool is_waiting() const { return phase_ != Phase::Idle; }
    sys::Watch watch() const { return {socket_.get(), phase_ == Phase::Connecting}; }
    bool by_clock() const { return phase_ <= Phase::Connecting || !watched_; }

    // The answer is there, and not yet told: it is no time-out any more.
    bool is_answered() const { return phase_ == Phase::Ending; }
    Deadline ends_by() const { return ends_by_; }

    // Of the last connect(); 0: it is pending, or was accepted.
    int last_errno() const { return errno_; }

    // What is known of an HTTP answer.
    enum class Heard { Nothing, Silence, Closed, Other, Endless };
    Heard heard() const { return heard_; }
    const char *text() const { return status_line_.text(); }

    void close();
    void let_go() { socket_.reset(); }

  private:
    enum class Phase { Idle, Connecting, Asking, Ending };

    Answer judge(int result);
    int make_socket(bool from_other);
    bool connect_as_clients_do();
    Answer listen();
    Answer await_end();
    Answer drain();
    Answer give_up(Heard heard, Answer answer);
    void enter(Phase phase);

    sys::Poller &poller_;
    uint16_t port_ = 0;
    bool from_other_ = false;
    bool no_trace_ = false;
    Fd socket_;
    int errno_ = 0;
    Phase phase_ = Phase::Idle;
    bool watched_ = false;
    Heard heard_ = Heard::Nothing;
    StatusLine status_line_;
    Deadline ends_by_ = Deadline::never();
    int64_t unread_ = 0; // what may still come
};

} // namespace kpi
