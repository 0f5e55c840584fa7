/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strangers that have a number which was the library's child's: in a pid namespace of the test's
 * own, whose ns_last_pid says which number comes next. They count the signals that they get.
 */
#ifndef KP_TESTS_STRANGE_STRANGER_H
#define KP_TESTS_STRANGE_STRANGER_H

#include "../support.h"
#include "namespace.h"
#include <sys/types.h>

enum whose { THE_HOSTS, ANOTHERS };

/* Runs `host` as the child of the namespace's init, which makes the strangers that are not the
 * host's own children. As in_child(). */
int beside_strangers(host_body *host, struct scene *scene);

/* In the host: a stranger gets this number, which must be free; it may lead a group. */
void take_number(pid_t number, enum whose whose, bool leads);

/* Waits until nobody has the number, not even a zombie, and no group. */
void await_free(pid_t number);

/* The stranger was sent nothing, is as nice as it was, and would have noticed. */
void check_unharmed(void);

/* It ends, with the exit status 9; then the host may start another one. */
void end_stranger(void);

/* The living members of a group; how many. */
size_t list_group(pid_t group, pid_t *pids, size_t size);

/* Whether no process is left in the namespace but init, the host and the stranger. */
bool nothing_left_but_stranger(void);

#endif
