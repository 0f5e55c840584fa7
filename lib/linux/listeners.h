// SPDX-License-Identifier: Apache-2.0
// What the two ways to list the listeners share.
#pragma once

#include <stdint.h>

namespace kpi {

constexpr uint32_t kListenState = 10; // TCP_LISTEN, which two headers define, each its own way

// Whether a connection to 127.0.0.1 may come to a listener that is bound to this address.
bool is_reached(const uint8_t *address, bool v6_only);

} // namespace kpi
