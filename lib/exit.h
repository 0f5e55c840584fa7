// SPDX-License-Identifier: Apache-2.0
// How a process ended, in the terms of kp_error.
#pragma once

namespace kpi {

struct Exit {
    int code = -1;  // exit status; -1: killed, or nobody can know any more
    int signal = 0; // that killed it; 0: none
};

} // namespace kpi
