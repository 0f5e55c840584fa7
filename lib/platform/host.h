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

// Whether this thread's children get numbers that mean something here; not so between
// unshare(CLONE_NEWPID) and fork().
bool spawns_among_its_own();

} // namespace kpi::sys
