/* SPDX-License-Identifier: Apache-2.0 */
/* System calls that a seccomp filter refuses, as strict containers and old kernels do. */
#ifndef KP_TESTS_STRANGE_FILTER_H
#define KP_TESTS_STRANGE_FILTER_H

#include <stddef.h>
#include <stdint.h>

struct refusal {
    long call;
    int error;
    uint32_t mask; /* of the argument, and what it must be; 0: whatever it is */
    uint32_t value;
    unsigned argument;
};

/* For this process and those that it starts, for ever. Without privileges too. */
void refuse(const struct refusal *list, size_t count);

/* Whatever else this process calls kills it. */
void permit(const long *calls, size_t count);

/* As kernels before 6.9 answer. */
extern const struct refusal refuse_group_signals;

/* As kernels before 5.3, or valgrind. */
extern const struct refusal refuse_pidfds;

#endif
