// SPDX-License-Identifier: Apache-2.0
// The host's spec: checked whole before anything is started, and the handle's own copy of it.
#pragma once

#include "kp/kp.h"

namespace kpi {

// Reads `spec` at the size that its caller was compiled with, fills in the defaults and checks all
// that can be checked without starting anything. `checked` points into the caller's memory.
kp_result check_spec(const kp_spec *spec, kp_spec &checked, kp_error *error);

// Copies a checked spec with all that it points to into one allocation: free() it. NULL: no memory.
kp_spec *copy_spec(const kp_spec &checked);

inline bool has(const kp_spec &spec, uint32_t flag)
{
    return (spec.flags & flag) != 0;
}

} // namespace kpi
