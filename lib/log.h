// SPDX-License-Identifier: Apache-2.0
// Where the proxy's output goes, and the end of it for an error.
#pragma once

#include "kp/kp.h"
#include "platform/fd.h"

namespace kpi {

class Log {
  public:
    // Keeps a duplicate of the host's descriptor; 0: the host's standard error.
    kp_result open(int log_fd, kp_error *error);

    // What the proxy's descriptors 1 and 2 become; -1: the null device.
    int target() const;

    // What was printed before is not the coming proxy's.
    void mark();

    // The last lines since the mark, as many as fit.
    void quote(char *text, size_t size) const;

  private:
    Fd copy_;
    int64_t start_ = -1;
};

} // namespace kpi
