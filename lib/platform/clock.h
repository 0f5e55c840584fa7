// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

namespace kpi::sys {

// Nanoseconds on a clock that never goes back.
int64_t now();

} // namespace kpi::sys
