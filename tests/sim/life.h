/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random lives: a host, its proxy and everybody around them, on the world of sim.h, who do
 * at each moment what the next choice says. After every step the promises of the library
 * are checked; one that is broken aborts with a message.
 *
 * The same choices give the same life.
 */
#ifndef KP_TESTS_SIM_LIFE_H
#define KP_TESTS_SIM_LIFE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Each choice takes the next byte, a few take two. Behind the last byte nothing more goes
 * wrong, so a life of no bytes is a good one. */
void sim_live(const uint8_t *choices, size_t size);

/* Choices without end. */
void sim_live_seed(uint64_t seed);

/* From now on each life prints its history to standard error: when, who did what, each call
 * of the platform and its answer. (A fuzzer's finding is read by KP_SIM_HISTORY=1.) */
void sim_tell_history(void);

#ifdef __cplusplus
}
#endif
#endif
