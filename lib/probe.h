// SPDX-License-Identifier: Apache-2.0
// One attempt after another to connect to the proxy's port.
#pragma once

#include "platform/fd.h"
#include <stdint.h>

namespace kpi {

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
