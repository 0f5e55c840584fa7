// SPDX-License-Identifier: Apache-2.0
// The library's units and watches as poll() and timers want them.
#pragma once

#include "platform/wait.h"
#include <poll.h>
#include <time.h>

namespace kpi {

// More than a handle ever waits for.
constexpr size_t kMostWatches = 32;

timespec timespec_of(int64_t ns);
pollfd poll_entry(const sys::Watch &watch);

} // namespace kpi
