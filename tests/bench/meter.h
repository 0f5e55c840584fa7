/* SPDX-License-Identifier: Apache-2.0 */
/* What a host does while it waits, seen from outside of the library: linked into the hosts in C and
 * preloaded into the one in Python, it stands before libc's functions. */
#ifndef KP_BENCH_METER_H
#define KP_BENCH_METER_H

#include <stdint.h>

struct meter {
    int64_t spawn_begun; /* the last posix_spawnp(), which is the proxy's; nanoseconds */
    int64_t spawn_ended;
    int64_t spawn_ended_cpu; /* the process's own time then */
    int64_t refused;         /* connects that were, since the host last set it to 0 */
    int64_t asked_cpu;       /* the process's own time before its last connect */
};

extern struct meter bench_meter;

int64_t meter_now(void); /* CLOCK_MONOTONIC */
int64_t meter_cpu(void); /* CLOCK_PROCESS_CPUTIME_ID */

#endif
