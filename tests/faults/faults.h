/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults: the functions by which the library asks something of the system, each of which can be
 * told to fail at its n-th call.
 *
 * The linker sends the library's calls of them to those of wrap.c (--wrap), which count and fail
 * only while a call of the interface runs: what the test itself does is never touched.
 */
#ifndef KP_TESTS_FAULTS_H
#define KP_TESTS_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- The functions -------------------------------------------------------- */

/* Those that do several things by an argument count as several. */
enum function_id {
    F_MALLOC,
    F_MMAP,
    F_MADVISE,
    F_SOCKET,
    F_BIND,
    F_SETSOCKOPT,
    F_GETSOCKNAME,
    F_GETPEERNAME,
    F_CONNECT,
    F_SEND,
    F_RECV,
    F_SHUTDOWN,
    F_PIPE,
    F_OPEN,
    F_READ,
    F_PREAD,
    F_READLINK,
    F_READLINKAT,
    F_GETDENTS,
    F_STAT,
    F_FSTAT,
    F_ACCESS,
    F_ISATTY,
    F_CLOSE,
    F_DUPLICATE,
    F_FCNTL_GET,
    F_STATUS_FLAGS,
    F_PIPE_SIZE,
    F_SETMNTENT,
    F_GETMNTENT,
    F_POLL,
    F_PPOLL,
    F_EPOLL_CREATE,
    F_EPOLL_ADD,
    F_TIMER_CREATE,
    F_SPAWN,
    F_ACTIONS_INIT,
    F_ACTIONS_OPEN,
    F_ACTIONS_DUP2,
    F_ACTIONS_CLOSE,
    F_ACTIONS_CHDIR,
    F_SPAWNATTR_INIT,
    F_WAIT_PIDFD,
    F_WAIT_PID,
    F_PIDFD_OPEN,
    F_PIDFD_SIGNAL,
    F_PIDFD_INFO,
    F_IOPRIO_SET,
    F_IOPRIO_GET,
    F_CAPGET,
    F_KILL,
    F_GETPGID,
    F_GETPRIORITY,
    F_SETPRIORITY,
    FUNCTIONS
};

enum { MOST_ERRORS = 16 };

struct function {
    const char *name;
    int errors[MOST_ERRORS]; /* that the call may fail with; the first stands for all in pairs */
    unsigned codes;          /* what it may come to, as CODE()s, beside having been survived */
    unsigned traits;
};

enum {
    PERSISTS = 1, /* the library can be expected to end though it fails from now on */
    FATAL = 2     /* no start succeeds in which it has failed */
};

extern const struct function functions[FUNCTIONS];

/* Of a KP_ERR_*, for sets. */
#define CODE(result) (1u << -(result))

/* Whether an error number tells of a want of something, which may pass. */
bool is_want(int error);

/* What a fault may come to: for a want of something always KP_ERR_SYSTEM or KP_ERR_NO_MEMORY. */
unsigned codes_of(enum function_id function, int error);

/* ---- The plan for one life ------------------------------------------------ */

struct fault {
    enum function_id function;
    unsigned call; /* the first is 1; of the second of two faults: after the first one; OUTSIDE */
    int error;
    bool lasts; /* from that call on */
};

/* OUTSIDE: no call of this program's, but what it comes to is what is expected: see spawn.py. */
enum { OUTSIDE = 0 };

enum { MOST_FAULTS = 2, MOST_SPAWNED = 64 };

struct plan {
    struct fault faults[MOST_FAULTS];
    size_t count;
};

/* What a life comes to: shared with the process that started it. */
struct outcome {
    size_t hit;                /* how many of the faults */
    unsigned calls[FUNCTIONS]; /* after the last fault that was hit */
    bool done;                 /* the life came to its end */
    char complaint[512];       /* what is wrong; "": nothing */
};

/* ---- What wrap.c offers --------------------------------------------------- */

/* Where the proxy of a life is before the library goes on after its start, so that the number of
 * probes does not depend on who is quicker. */
enum arrival { LISTENS, LISTENS_BESIDE, ENDS, NEVER, LISTENED_FOR };

void wrap_begin(const struct plan *plan, struct outcome *outcome, enum arrival arrival,
                int startup_ms, bool old /* a system without pidfds */);
void wrap_enter(void); /* a call of the interface */
void wrap_leave(void);
void wrap_disarm(void); /* no faults any more */
void wrap_close(void);  /* the test's own listener, if one was opened */

long wrap_live(void); /* allocations, mappings and objects of the C library's that are left */
bool wrap_spawned(pid_t pid);
bool port_is_open(uint16_t port);
uint16_t port_beside(uint16_t port);
void sleep_us(long us);

#endif
