/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world in memory: the third implementation of lib/platform, on which the real state
 * machine runs unchanged. Its clock moves only when the library blocks or the test moves
 * it, so a life of hours takes microseconds and comes out the same each time.
 *
 * A test teaches the world some programs, drives the library, and looks at what became of
 * processes, signals and descriptors. The world watches the library meanwhile, and aborts
 * with a message when it
 *
 *   - signals by a number that is not its own any more (a stranger's),
 *   - uses or closes a descriptor that is closed, closes one that is still watched,
 *   - reaps what lives or was reaped,
 *   - blocks for ever with nothing due, or spins without the clock moving,
 *   - probes a port that is not reserved from the address that it could meet itself on,
 *   - would leave a process in a guard's group, were the host killed now (on demand).
 *
 * Numbers of descriptors are never given out twice, those of processes only on demand, so
 * nothing of this is hidden by a number that happens to be somebody's again.
 */
#ifndef KP_TESTS_SIM_H
#define KP_TESTS_SIM_H

#include <kp/kp.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Times are nanoseconds: from the program's start where nothing else is said. 0: never. */
enum { SIM_AT_ONCE = 1 };
#define SIM_US ((int64_t)1000)
#define SIM_MS (1000 * SIM_US)
#define SIM_S (1000 * SIM_MS)

/* What a program does, by the name that the spec calls it. */
struct sim_program {
    const char *name;
    int spawn_errno;       /* why it can't be executed; 0: it can */
    int64_t executable_at; /* on the clock: spawn_errno until then; 0: for ever */
    int64_t listens_after; /* on the port that its environment names */
    int plain;             /* it binds without SO_REUSEADDR */
    int64_t answers_after; /* from its listen() on; until then connections are pending */
    int64_t blinks_for;    /* its listener is closed so long once it was connected to */
    int dies_when_probed, loses_guard_when_probed;
    const char *says;    /* when it was asked for HTTP; NULL: nothing */
    int keeps_open;      /* then, though nothing more can be asked */
    int hangs_up;        /* instead */
    int hidden;          /* what it holds can't be seen */
    int unlisted;        /* nor its listener: connections are sent on to it */
    int64_t exits_after; /* with exit_code, or by exit_signal */
    int exit_code, exit_signal;
    int64_t leaves_after;            /* its group, for one of its own */
    int busy;                        /* it always computes */
    int64_t stops_after;             /* as one that reads from the terminal */
    int deaf;                        /* it ignores SIGTERM ... */
    int64_t obeys_after;             /* ... or takes so long to end */
    int stuck;                       /* not even SIGKILL ends it */
    const struct sim_program *child; /* what it starts at once in its group, */
    int children;                    /* and how many of them */
    int64_t dies_after;              /* SIGKILL */
    int64_t traced_for;              /* its tracer keeps its parent from it so long after its end */
    int64_t acts_each;               /* about so often it does something by chance */
    unsigned uid;                    /* 0: the host's */
};

/* What the system or the host has of its own. */
enum {
    SIM_NO_PIDFD = 1 << 0,        /* no descriptor for a process */
    SIM_NO_GROUP_SIGNAL = 1 << 1, /* none that signals a group */
    SIM_NO_PROC = 1 << 2,         /* its processes can't be listed */
    SIM_HOST_REAPS = 1 << 3,      /* the host ignores SIGCHLD */
    SIM_SLOW_INIT = 1 << 4,       /* orphans stay zombies for 10 ms */
    SIM_LOW_HOST = 1 << 5,        /* the host runs at nice 19 */
    SIM_NO_DIAG = 1 << 6,         /* its listeners can't be listed, as on any POSIX system */
    SIM_SHORT = 1 << 7,           /* the host is short of descriptors to look into processes */
    SIM_HOST_WAITS = 1 << 8,      /* another thread of the host's waits for all of its children */
    SIM_REUSE = 1 << 9,           /* numbers of processes are given out again at once */
    SIM_NO_SHARE = 1 << 10,       /* nobody can bind beside a reservation */
    SIM_MEETS_ITSELF = 1 << 11,   /* each third probe that nobody listens to, where it can */
    SIM_DIAG_REFUSED = 1 << 12    /* no listeners can be listed, though the system tells others */
};

/* What systems and hosts have together, for tests on each of them. */
#define SIM_SYSTEMS                                                                                \
    0, SIM_SLOW_INIT, SIM_LOW_HOST, SIM_NO_GROUP_SIGNAL, SIM_NO_PIDFD, SIM_HOST_REAPS,             \
        SIM_NO_PIDFD | SIM_SLOW_INIT, SIM_NO_GROUP_SIGNAL | SIM_HOST_REAPS,                        \
        SIM_NO_PIDFD | SIM_HOST_REAPS, SIM_NO_PROC, SIM_NO_PROC | SIM_NO_GROUP_SIGNAL,             \
        SIM_NO_PROC | SIM_NO_PIDFD, SIM_NO_PROC | SIM_NO_PIDFD | SIM_HOST_REAPS

/* A new world. The seed decides how long it takes from a signal to a process's end (0:
 * always 20 microseconds). */
void sim_begin(uint64_t seed, unsigned quirks);
void sim_teach(const struct sim_program *program); /* not copied */

/* What the library has left in the world, in words; "": nothing. A stuck process, and one
 * that left the group of a proxy which is gone, are out of its reach. */
const char *sim_left(void);

/* The clock. */
int64_t sim_now(void);
void sim_run(int64_t ns);                   /* the host does something else for so long */
int sim_readable(int fd);                   /* the descriptor of kp_handle_fd() */
int sim_run_until_readable(int fd);         /* 0: nothing due will ever make it so */
void sim_interrupt_after(int64_t ns);       /* a signal handler of the host's runs */
void sim_lack_watches(void);                /* the host's descriptor can watch nothing more */
void sim_stop_host(long calls, int64_t ns); /* after so many of the platform it does not run */

/* Processes, in the order of their start from 0 on. */
pid_t sim_pid(size_t nth); /* 0: there were not so many */
pid_t sim_group(pid_t pid);
int sim_nice(pid_t pid);
int sim_lives(pid_t pid);
int64_t sim_told(pid_t pid, int signo); /* when it got its first such signal; -1: never */
int64_t sim_grace(pid_t guard);         /* that its script gives the group */
void sim_kill(pid_t pid, int signo);    /* somebody else does */
void sim_join(pid_t pid, pid_t group);  /* its own number: it leaves the one it is in */
size_t sim_living(void);

/* The port. */
void sim_occupy(uint16_t port, unsigned uid); /* somebody else listens; uid 0 is the host's, too */
void sim_cut_off(int error, int64_t until);   /* each connect() fails so */
int sim_can_bind(uint16_t port);              /* whether somebody else could now */

/* Counts since sim_begin(). */
struct sim_counts {
    long points; /* at which the host may be killed */
    long calls;  /* of the platform */
    long probes; /* connects */
    long signals;
    long spawns;
    long searches;    /* for the members of a group */
    long descriptors; /* open now */
    long reused;      /* numbers of processes that were somebody's before */
    long lost;        /* children that were gone before they could be held on to */
    long traced;      /* ends that a tracer has kept from the parent */
    long saved;       /* processes that a guard has ended */
    long met_itself;  /* probes that were both ends of their connection */
};
struct sim_counts sim_counted(void);

/* From now on the host is killed at each point, which is before each call of the platform
 * and after each event that a call waited for: in a copy of the world, which runs on until
 * every guard has had its grace. The world complains when then a process in the group of a
 * guard lives. */
void sim_kill_host_everywhere(void);

/* Whether the world aborts in it. What it does is undone. */
int sim_complains(void (*deed)(void));

#ifdef __cplusplus
}
#endif
#endif
