// SPDX-License-Identifier: Apache-2.0
#include "platform/host.h"
#include <unistd.h>

namespace kpi::sys {

char **environment()
{
    static char *none[] = {nullptr};
    return environ == nullptr ? none : environ;
}

} // namespace kpi::sys
