// SPDX-License-Identifier: Apache-2.0
// One attempt after another to connect to the proxy's port, and the schedule of all waiting by the
// clock.
#pragma once

#include "deadline.h"
#include "platform/fd.h"

namespace kpi {

// The pause after `waited`: a fixed fraction of it, so that what polling adds stays a small share
// of the proxy's own start-up time while the number of probes grows only as its logarithm.
int64_t pause_after(int64_t waited);

class Probe {
  public:
    enum class Answer { Accepted, Refused, Pending, Impossible };

    // Starts an attempt, or looks at the one that is pending.
    Answer attempt(uint16_t port, bool from_other);

    bool is_pending() const { return pending_; }
    int fd() const { return socket_.get(); }

    // Of the last attempt; 0: it is pending.
    int last_errno() const { return errno_; }

    void close();

  private:
    Answer judge(int result);

    Fd socket_;
    int errno_ = 0;
    bool pending_ = false;
};

} // namespace kpi
