/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strange hosts and the lives that they lead with a proxy.
 *
 * A circumstance is what is strange about a host. It is set up in a forked process, the host, in
 * which only CHECK may assert, and then each of the lives is led there, in each of the ways: so
 * every circumstance sees a start, an exit, failed starts, a restart, stops, and a free. After a
 * life nothing of the proxy is left, and what is the host's own is as it was: its descriptors, the
 * dispositions and the mask of its signals, its other children, one of whom has ended and waits to
 * be reaped by the host alone, and of whom none was sent a signal.
 */
#ifndef KP_TESTS_STRANGE_LIFE_H
#define KP_TESTS_STRANGE_LIFE_H

#include "../process.h"
#include "../support.h"

struct circumstance {
    const char *name;
    bool (*set_up)(struct scene *scene, int number); /* false: it can't be had here */
    int number;                                      /* for set_up */
    void (*after)(struct scene *scene);              /* more to check; may be NULL */
    bool reaps; /* its children's statuses may be lost before the library sees them */
};

/* What a test of its own may leave when it fails, to be ended before the census; may be NULL. */
extern void (*end_leftovers)(void);

/* Runs the tests of its own, then each circumstance with each life and way; main's result. */
int run_strange(const struct circumstance *list, size_t count, const struct CMUnitTest *own,
                size_t own_count);

/* ---- In the host ---------------------------------------------------------------- */

/* A spec whose proxy bears the scene's mark also where the host's environment is gone. */
kp_spec marked(const struct scene *scene, char *const *argv);

/* start() and reach(), but signal handlers that run meanwhile do not end the wait. */
kp_result begin(struct scene *scene, kp_spec spec);
kp_result go_on(struct scene *scene, kp_state until);

/* The same, checked, up to READY; and to EXITED, after which the group is empty. */
void be_ready(struct scene *scene, kp_spec spec);
void be_exited(struct scene *scene);

/* Stops it with this grace, up to EXITED; the milliseconds that it took. */
int64_t end_it(struct scene *scene, int grace_ms);
void free_proxy(struct scene *scene);
bool answers(uint16_t port);

/* Its exit is known to be this; or unknown, where the host may have reaped it. */
extern bool statuses_may_be_lost;
void check_exit(const struct scene *scene, int exit_code, int signal_number);

#define CHECK_RESULT(expected, result) check_result_at(scene, expected, result, __FILE__, __LINE__)
void check_result_at(const struct scene *scene, kp_result expected, kp_result result,
                     const char *file, int line);

/* What is the host's own, to be compared with later. */
void witness(struct scene *scene);
void check_witness(struct scene *scene);

/* One of the host's other children. */
bool is_bystander(pid_t pid);

/* What kp_start takes, the least of several: what else the machine does only adds to it. And that
 * it takes no more than some times that. */
int64_t least_start_ns(struct scene *scene);
void check_no_slower(int64_t usual_ns, int64_t strange_ns);

/* One of the lives, from start to free, for hosts of a test's own. */
void lead_a_whole_life(struct scene *scene);
void lead_every_life(struct scene *scene);

/* ---- In the test ---------------------------------------------------------------- */

/* Runs a host as in_child() does; false: it said by cannot() that it can't be had, which has been
 * told. Else it has to end with 0. */
bool run_host(void (*body)(struct scene *), struct scene *scene, const char *test);

/* Ends a host that can't be what it should. */
_Noreturn void cannot(const char *why);

#endif
