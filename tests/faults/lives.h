/* SPDX-License-Identifier: Apache-2.0 */
/* The lives in which the faults happen. */
#ifndef KP_TESTS_FAULTS_LIVES_H
#define KP_TESTS_FAULTS_LIVES_H

#include "faults.h"
#include <kp/kp.h>

struct life {
    const char *name;
    const char *mode; /* the proxy's; NULL: there is no such program */
    enum arrival arrival;
    uint32_t flags;
    kp_result expected;  /* of the start, where no fault is */
    bool rich;           /* with a log, a directory, a CA file, an environment */
    bool bare;           /* the host has neither standard input nor output */
    bool terminal;       /* the log is one */
    bool old;            /* the system has no pidfds (Linux < 5.3) */
    bool taken;          /* the port is */
    bool unprivileged;   /* without the capability to look into any process */
    bool pairs;          /* of faults, too; else of one alone */
    bool wants;          /* of descriptors or memory alone: what is refused puts an owner that has
                            left the group out of sight, and out of reach */
    uint32_t startup_ms; /* 0: enough */
};

extern const struct life lives[];
extern const size_t life_count;

/* Through kp_handle_step() or through the calls that block. */
enum drive { STEPPING, BLOCKING, DRIVES };

/* Runs one in this process, which does nothing else, and ends it. */
_Noreturn void live(const struct life *life, enum drive drive, const struct plan *plan,
                    struct outcome *outcome);

#endif
