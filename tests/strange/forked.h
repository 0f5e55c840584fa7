/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of a life in a host that lacks what life.h counts on: /proc, or the descriptor. */
#ifndef KP_TESTS_STRANGE_FORKED_H
#define KP_TESTS_STRANGE_FORKED_H

#include "life.h"

/* In these hosts the grace is what nothing but a deaf proxy may take. */
enum { LONG_GRACE = 8000, PROMPT = LONG_GRACE / 2, KILL_TIME = 1000, SLACK = 2500 };

/* Starts a proxy, and waits until it is ready; a descriptor that can't be had is not waited on. */
void check_ready(struct scene *scene, kp_spec spec);

/* As reach() of a way whose descriptor is there, else on time. */
kp_result reach_somehow(struct scene *scene, kp_state until);
kp_result told_somehow(struct scene *scene);

/* Stops it, and waits for the end; the milliseconds that took. */
int64_t check_stop(struct scene *scene, int grace_ms);

kp_spec with_grace(char *const *argv, uint32_t grace_ms);

/* Frees it; the milliseconds that took. */
int64_t check_free(struct scene *scene);

/* A copy of a program in the scene's folder, with this mode, that other users can execute; its
 * path. */
const char *install_program(const struct scene *scene, const char *program, const char *name,
                            const char *mode);

/* A wrapper that leaves at once, and what has the grace. */
#define DEAF_SCRIPT "(trap '' TERM; exec \"$0\" workers 2) & wait"
#define DEAF_BEHIND_A_WRAPPER SHELL(DEAF_SCRIPT)

#endif
