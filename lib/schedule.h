// SPDX-License-Identifier: Apache-2.0
// The schedule of all waiting by the clock: of the probes, and of what no descriptor tells.
#pragma once

#include "deadline.h"

namespace kpi {

// The pause after `waited`: a fixed fraction of it, so that what polling adds stays a small share
// of the proxy's own start-up time while the number of probes grows only as its logarithm. The
// numbers were tuned by tests/bench to the budget: late by 150 microseconds and 1 % of the
// start-up, at no more CPU than that many probes cost.
constexpr int64_t pause_after(int64_t waited)
{
    constexpr int64_t kFraction = 64;
    constexpr int64_t kShortest = 20 * kMicrosecond;
    constexpr int64_t kLongest = 10 * kMillisecond;
    int64_t pause = waited / kFraction;
    if (pause < kShortest)
        return kShortest;
    return pause > kLongest ? kLongest : pause;
}

} // namespace kpi
