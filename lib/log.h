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

    // What the proxy's descriptors 1 and 2 become; -1: the null device. Each life of the proxy gets
    // an open file description of its own where there is one to be had (`own`): a proxy that makes
    // its output non-blocking would do that to the host's, too.
    int target(Fd &own) const;

    void let_go() { copy_.reset(); }

    // What was printed before is not the coming proxy's.
    void mark();

    // The last lines since the mark, as many as fit.
    void quote(char *text, size_t size) const;

  private:
    int shared() const;

    Fd copy_;
    int64_t start_ = -1;
};

} // namespace kpi
