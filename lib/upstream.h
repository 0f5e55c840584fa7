// SPDX-License-Identifier: Apache-2.0
// Where the environment sends the proxy on to.
#pragma once

#include <stdint.h>

namespace kpi {

// Whether a variable, "NAME=value", is one by which clients find their proxy, and leads to this
// port of this machine: a proxy that obeyed it would connect to itself.
bool leads_to_itself(const char *variable, uint16_t port);

} // namespace kpi
