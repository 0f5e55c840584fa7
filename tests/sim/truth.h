// SPDX-License-Identifier: Apache-2.0
// What the library says, against what the world knows. Each of these complains.
#pragma once

#include "error.h"
#include "kp/kp.h"
#include "world.h"

namespace sim {

// A handle's life so far, as its host knows it.
struct Told {
    kp_handle *handle = nullptr;
    kp_spec spec = {}; // with its defaults filled in
    int fd = -1;       // that the host watches
    int64_t started = 0;
    kp_state seen = 0; // last

    bool has(unsigned flag) const { return (spec.flags & flag) != 0; }
    bool is_attached() const { return has(KP_SPEC_ATTACH); }
    int64_t grace() const { return spec.stop_grace_ms * kpi::kMillisecond; }
    int64_t patience() const { return spec.startup_timeout_ms * kpi::kMillisecond; }
};

// What a call returned, and the state before and after it.
struct Answer {
    kpi::Call call;
    kp_result result;
    kp_state before, after;
    const kp_error *error;
    kp_state until = 0; // of a wait
};

void check_error(const Answer &answer);
void check_answer(const Told &told, const Answer &answer);

// At the end of each turn of the library's.
void check_state_now(Told &told);

// Something will go on: a step is due, or an event will tell.
void check_awake(const Told &told);

// Nothing is left once a handle was freed.
void check_nothing_is_left();

// That the host was not blocked for longer than this since `begun`, but for when it did not run.
void check_time(const char *what, int64_t begun, int64_t stalled, int64_t most);

} // namespace sim
