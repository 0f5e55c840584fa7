/* SPDX-License-Identifier: Apache-2.0 */
/* Many starts, by the library and by the loop that everybody writes, and what became of them. */
#ifndef KP_TESTS_HOSTILE_TALLY_H
#define KP_TESTS_HOSTILE_TALLY_H

#include <kp/kp.h>
#include <stdbool.h>
#include <stdint.h>

struct tally {
    unsigned tried;
    unsigned right;     /* called ready, and the proxy alone listens */
    unsigned on_other;  /* called ready, and another process listens */
    unsigned on_nobody; /* called ready, and nobody listens */
    unsigned robbed;    /* failed, and an impostor had been on the port */
    unsigned lost;      /* failed without an impostor */
};

void tally_print(const char *crowd, const char *who, const struct tally *tally);

/* Looks who listens where a proxy was called ready. */
void tally_ready(struct tally *tally, uint16_t port, pid_t proxy);

/* Starts this many of the fixture, some at a time. `robbed_since` tells whether an impostor was on
 * the port at that time (of now_ns) or later; NULL: there are none. */
void tally_library(struct tally *tally, unsigned count, const kp_spec *spec,
                   bool (*robbed_since)(uint16_t port, int64_t since));

/* Picks a free port by bind(0) and close, spawns, and connects every 10 ms until it works. */
void tally_naive(struct tally *tally, unsigned count);

int64_t now_ns(void);

/* The spec of a proxy whose complaints nobody wants to read. */
kp_spec quiet_spec(char *const *argv);

#endif
