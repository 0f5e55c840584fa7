// SPDX-License-Identifier: Apache-2.0
// The process that the library runs in.
#pragma once

#include <stdint.h>

namespace kpi::sys {

// The host's environment as it is now; never NULL.
char **environment();

// A number that is the same as long as this process lives and another one in each child that it
// forks; never 0.
uint64_t generation();

} // namespace kpi::sys
