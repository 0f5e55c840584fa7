// SPDX-License-Identifier: Apache-2.0
// A moment on the platform's monotonic clock, computed once instead of a time-out recomputed.
#pragma once

#include <stdint.h>

namespace kpi {

constexpr int64_t kMicrosecond = 1000;
constexpr int64_t kMillisecond = 1000 * kMicrosecond;
constexpr int64_t kSecond = 1000 * kMillisecond;

struct Deadline {
    int64_t at; // nanoseconds

    static constexpr Deadline at_once() { return {INT64_MIN}; }
    static constexpr Deadline never() { return {INT64_MAX}; }
    static constexpr Deadline after(int64_t now, int64_t wait) { return {now + wait}; }

    constexpr bool is_never() const { return at == INT64_MAX; }
    constexpr bool passed(int64_t now) const { return now >= at; }
    constexpr int64_t remaining(int64_t now) const { return passed(now) ? 0 : at - now; }
};

constexpr Deadline earlier(Deadline a, Deadline b)
{
    return a.at < b.at ? a : b;
}

} // namespace kpi
