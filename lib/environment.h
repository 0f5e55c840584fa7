// SPDX-License-Identifier: Apache-2.0
// Environments: the proxy's own, and the bouquet that sends a child through the proxy, each name
// once and sorted. Each is one allocation; NULL: no memory.
#pragma once

#include "kp/kp.h"

namespace kpi {

char **proxy_environment(const kp_spec &spec, uint16_t port, char *const *host);

char **bouquet(const kp_spec &spec, const char *url, char *const *base);

// The base as it is.
char **plain_environment(char *const *base);

} // namespace kpi
