// SPDX-License-Identifier: Apache-2.0
#include "platform/clock.h"
#include "deadline.h"
#include <time.h>

namespace kpi::sys {

int64_t now()
{
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * kSecond + time.tv_nsec;
}

} // namespace kpi::sys
