/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random lives: a host, its proxy and everybody around them, on the world of sim.h, who do
 * at each moment what the next choice says. After every step the promises of the library
 * are checked; one that is broken aborts with a message.
 *
 * The same seed gives the same life. With KP_SIM_HISTORY=1 in the environment each life
 * prints its history to standard error: when, who did what, each call of the platform and
 * its answer.
 */
#ifndef KP_TESTS_SIM_LIFE_H
#define KP_TESTS_SIM_LIFE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void sim_live(uint64_t seed);

void sim_tell_history(void);

/* A library with a fault: the platform that it runs on does not do what it is called for, or
 * tells what a library would believe that does not look. */
enum sim_fault {
    SIM_SOUND,
    SIM_TRUSTS_LISTENERS,  /* whosever they are */
    SIM_ASKS_LISTENERS,    /* of anybody */
    SIM_TRUSTS_THE_UNSEEN, /* whosever their listeners are */
    SIM_GUARD_COMES_LATE,  /* after the proxy */
    SIM_TRUSTS_NUMBERS,    /* also of children that somebody else has reaped */
    SIM_KEEPS_DESCRIPTOR,  /* does not close one in a hundred */
    SIM_KEEPS_MEMORY,
    SIM_SETS_NO_ALARM,  /* for the host's event loop */
    SIM_WATCHES_NO_END, /* of processes */
    SIM_GIVES_NO_GRACE, /* kills instead of asking */
    SIM_ASKS_NOBODY,    /* but waits for the grace, and kills */
    SIM_NEVER_KILLS,
    SIM_REAPS_NOBODY,
    SIM_LEAVES_GUARD,     /* alive */
    SIM_LEAVES_PORT_OPEN, /* to others, once the proxy has exited */
    SIM_MISSES_FORKS,     /* and does in the child what it does in the parent */
    SIM_FAULTS
};
extern const struct sim_fault_words {
    const char *name, *complaint; /* which is expected */
} sim_faults[SIM_FAULTS];
void sim_plant(enum sim_fault fault);

/* Complaints are also written there, up to 200 bytes. */
void sim_complain_to(char *text);

/* What happened, over all lives. */
enum sim_event {
    SIM_READY,
    SIM_RESTARTED,
    SIM_EXITED,
    SIM_GIVEN_UP,
    SIM_ATTACHED,
    SIM_SPAWNED,
    SIM_DRIVEN_BY_DESCRIPTOR,
    SIM_DRIVEN_BY_TIME,
    SIM_BLOCKED,
    SIM_INTERRUPTED,
    SIM_FORKED,
    SIM_WORKER,
    SIM_HOST_KILLED,
    SIM_HOST_KILLED_IN_CALL,
    SIM_HOST_STALLED,
    SIM_NUMBER_REUSED,
    SIM_STRANGER_BORN,
    SIM_STRANGER_TOOK_OURS,
    SIM_STRANGER_LISTENED,
    SIM_OUTSIDER_KILLED,
    SIM_GUARD_KILLED,
    SIM_GUARD_SAVED,
    SIM_SHORTAGE,
    SIM_LOST_AT_SPAWN,
    SIM_TRACED,
    SIM_LEFT_GROUP,
    SIM_OUTSIDE_OWNER,
    SIM_FOLLOWED,
    SIM_MET_ITSELF,
    SIM_ERR_INVALID,
    SIM_ERR_NO_MEMORY,
    SIM_ERR_SYSTEM,
    SIM_ERR_PORT_IN_USE,
    SIM_ERR_SPAWN,
    SIM_ERR_GUARD,
    SIM_ERR_EXITED,
    SIM_ERR_TIMED_OUT,
    SIM_ERR_FOREIGN_LISTENER,
    SIM_ERR_NOT_HTTP,
    SIM_ERR_STATE,
    SIM_ERR_FORKED,
    SIM_EVENTS
};
extern const char *const sim_event_names[SIM_EVENTS];
extern uint64_t *sim_events; /* so often; it may be pointed at other memory */

#ifdef __cplusplus
}
#endif
#endif
