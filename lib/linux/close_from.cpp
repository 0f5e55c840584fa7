// SPDX-License-Identifier: Apache-2.0
#include "posix/system.h"

namespace kpi {

int close_others(posix_spawn_file_actions_t &actions)
{
    return posix_spawn_file_actions_addclosefrom_np(&actions, 3);
}

} // namespace kpi
