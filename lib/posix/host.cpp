// SPDX-License-Identifier: Apache-2.0
#include "platform/host.h"
#include <unistd.h>

namespace kpi::sys {

uint64_t generation()
{
    return static_cast<uint64_t>(getpid());
}

bool spawns_among_its_own()
{
    return true;
}

} // namespace kpi::sys
