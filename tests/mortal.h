/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mortal hosts: forked processes that start a proxy and die.
 *
 * The test is the subreaper of all that descends from it: whoever loses its parent becomes the
 * test's child, also one that has left group and session. When the test has no child left, nobody
 * is left at all. What a failed test leaves is ended after it, by id.
 */
#ifndef KP_TESTS_MORTAL_H
#define KP_TESTS_MORTAL_H

#include "support.h"
#include <sys/types.h>

/* The guard leads the group: its pid is the group's id. */
struct host {
    pid_t pid, proxy, group, worker;
};

struct plan {
    kp_spec spec;
    void (*first)(void);          /* what the host does before it starts the proxy; NULL: nothing */
    void (*at_once)(kp_handle *); /* and right after kp_start */
    bool ready;                   /* it waits until the proxy is ready */
    void (*later)(kp_handle *);   /* and then does this, before it tells of the proxy */
    bool forks;                   /* and starts a worker that does not exec */
    void (*then)(kp_handle *);    /* what it does after that; NULL: it waits for its death */
};

/* Forks a host; it has done all but `then`. */
struct host host_start(const struct plan *plan);
void host_kill(const struct host *host);

/* Waits for the host's end; its exit status, or 128 and its signal. */
int host_status(const struct host *host);

kp_spec guarded(char *const *argv, uint32_t grace_ms);

void assert_nobody_is_left(void);

/* Reaps those that have ended; false: somebody is left. */
bool nobody_is_left(void);

/* Kills the children and whom they leave behind, by their ids; how many there were. */
size_t end_everybody(void);

int mortal_open(void **state);
int mortal_close(void **state);

#define MORTAL(name) cmocka_unit_test_setup_teardown(name, mortal_open, mortal_close)

#endif
