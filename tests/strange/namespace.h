/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts in a pid namespace of their own, with a /proc of its own. Where the test is not root, a
 * user namespace comes with them. Whatever is left there dies with the namespace's init, and that
 * with the test.
 */
#ifndef KP_TESTS_STRANGE_NAMESPACE_H
#define KP_TESTS_STRANGE_NAMESPACE_H

#include "../support.h"
#include <sys/types.h>

/* What the namespace sees at /proc. */
enum proc { PROC_FRESH, PROC_HIDING /* hidepid=2 */, PROC_OF_PARENT, PROC_ABSENT };

typedef void host_body(struct scene *scene);

/* Run `host` as in_child() does: as the init of the namespace, or as the child of one that reaps
 * whom it inherits. */
int as_init(enum proc proc, host_body *host, struct scene *scene);
int below_init(enum proc proc, host_body *host, struct scene *scene);

/* The exit status for a program whose tests need what is not there, told in TAP; -1: it is. */
int leave_out_without_namespaces(void);
int leave_out_without_root(void);
int leave_out(const char *reason);

/* For a part of a test; with KP_TEST_REQUIRE=1 the test fails. Always true. */
bool left_out_part(const char *part, const char *reason);

/* In a namespace: waits until there is nobody but this process and init, not even a zombie. */
bool alone_in_namespace(void);

/* Reaps the children that have ended; how many. */
size_t reap_all(void);

bool write_to(const char *path, const char *text);

#endif
