// SPDX-License-Identifier: Apache-2.0
// The guard: a shell that leads the proxy's process group and ends it when the host is gone.
#pragma once

#include "child.h"
#include "kp/kp.h"

namespace kpi {

// It waits until `pipe`, its only tie to the host, is closed.
kp_result start_guard(uint32_t grace_ms, Child &guard, Fd &pipe, kp_error *error);

} // namespace kpi
