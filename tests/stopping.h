/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the proxy's end share. */
#ifndef KP_TESTS_STOPPING_H
#define KP_TESTS_STOPPING_H

#include "process.h"
#include "support.h"

/* Far beyond what a test may take: when it counts, PATIENCE_MS is over before. */
enum { LONG_GRACE = 5 * PATIENCE_MS };

kp_spec with_grace(char *const *argv, uint32_t grace_ms);

/* The one that the proxy is in. */
pid_t group_of(const struct scene *scene);

/* Stops and reaches EXITED, after which nothing is left; the milliseconds that it took. */
int64_t stop(struct scene *scene, int grace_ms);

/* The same with kp_handle_free alone. */
int64_t free_now(struct scene *scene);

/* For what only a descriptor for a process makes possible: valgrind has none, nor lib/posix. */
bool left_out_without_pidfds(const char *test);

void assert_exit(const struct scene *scene, int exit_code, int signal_number);

#endif
