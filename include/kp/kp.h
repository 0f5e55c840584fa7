/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkp: start a user-provided egress proxy, know that it is ready, tell
 * children how to reach it, and be sure that it is gone afterwards.
 *
 *     char *argv[] = {"mitmdump", "--listen-host", "127.0.0.1", "-q", NULL};
 *     kp_spec spec = {.size = sizeof spec, .argv = argv, .port = 8080};
 *     kp_handle *proxy;
 *     kp_error error;
 *     if (kp_spawn(&spec, &proxy, &error) != KP_OK)
 *         fprintf(stderr, "going on without a proxy: %s\n", error.message);
 *     char **env = kp_env_new(proxy, NULL);     // proxy may be NULL here
 *     ... posix_spawn(&pid, "/usr/bin/curl", NULL, NULL, args, env) ...
 *     kp_env_free(env);
 *     kp_handle_free(proxy);                    // the proxy is gone now
 *
 * The proxy's side of the contract: it binds 127.0.0.1 at the port that it
 * finds in the variable KODA_PROXY_PORT (mitmdump has to be told by its
 * command line: spec.port fixes the port for such a program), speaks HTTP
 * CONNECT there, and stays in the foreground until it is killed.
 *
 * Contents
 *
 *   1. Results, states, flags        4. Drive it from an event loop, or block
 *   2. The spec and the error        5. Look
 *   3. Start                         6. End
 *                                    7. Tell the children
 *
 * Rules that hold for every function
 *
 * Results. A function that can fail returns a kp_result: KP_OK, KP_AGAIN or a
 *   negative KP_ERR_*. Where it takes a kp_error, that is written whole on
 *   failure and left alone otherwise; NULL is fine. An output for success is
 *   set to NULL on failure, and then there is nothing to free.
 *
 * Ownership. A handle owns everything that belongs to one proxy: its processes,
 *   port, descriptors and memory; kp_handle_free() releases all of it. What the
 *   library is given it copies: a spec and everything in it may be freed as soon
 *   as the call has returned.
 *
 * Threads. One handle belongs to one thread at a time; different handles can be
 *   used from different threads at the same time. kp_handle_port(),
 *   kp_handle_url() and kp_env_new() may be called from any thread while nobody
 *   frees the handle. What reads the host's environment (starting, restarting,
 *   kp_env_new with a NULL base) must not run beside a setenv() of the host's,
 *   like getenv(). The library starts no thread and installs no signal handler.
 *   None is async-signal-safe but kp_handle_detach(). A thread can be cancelled
 *   (pthread_cancel) where kp_spawn() and kp_handle_wait() sleep, and nowhere else:
 *   what kp_spawn() has started is ended first, a handle that was waited for stays
 *   as it is.
 *
 * Fork. After fork() the child has a copy of each handle. It may free that (which
 *   closes and releases, and leaves the proxy alone), detach it, look at it, and call
 *   kp_env_new(); everything else returns KP_ERR_FORKED. A worker that never
 *   calls exec should do one of the first two: it holds the guard's pipe too, and the
 *   guard acts only when the last holder is gone; the log and the port, too. Forking
 *   while another thread is inside the library is as safe as forking inside malloc().
 *
 * The host's other children. The proxy and its guard are children of the host. A
 *   host that waits for any child sees them turn up there and ignores pids that
 *   it does not know; the library still learns of the exit, though perhaps not
 *   its status. It never waits for a child that is not its own.
 *
 * Descriptors. All of the library's are close-on-exec and above 2. A host that
 *   calls exec itself, or closes all of its descriptors, ends a proxy with a guard.
 *
 * Ready. When a connection to the port is accepted, each listener that could have got
 *   it is looked up, and its socket is searched for in the proxy's process, in the
 *   others of its process group, and in its other descendants. One that is another's
 *   is KP_ERR_FOREIGN_LISTENER. Where the system does not show what a process of the
 *   proxy's holds (it is not dumpable, /proc is hidden or not there, ...), the listener
 *   has to be of the host's own user or of one that the proxy runs as; a host that is
 *   told nothing of listeners (netlink and /proc are both closed to it) gets that error,
 *   too. Where the system never tells (-Dplatform=posix), the reservation and the
 *   proxy's being alive decide. It is checked once: a process of the proxy's own user
 *   that joins by SO_REUSEPORT later is not noticed.
 *
 * Attaching. With KP_SPEC_ATTACH argv is NULL or empty, port is set, and env, cwd,
 *   log_fd and all flags but PROBE_HTTP and ANY_LISTENER are not. Nothing is started,
 *   reserved or ever signalled. The port is probed until it answers or the start-up
 *   time is over; a listener of a user who is neither root nor the host's own is
 *   KP_ERR_FOREIGN_LISTENER, unless KP_SPEC_ANY_LISTENER accepts it. READY lasts
 *   until kp_handle_stop(), which ends in EXITED at once, as a failed start does; a
 *   restart probes again. The pid is 0, and there is no exit status. The children's
 *   environment is as for a proxy that was started.
 *
 * Bad arguments. A NULL handle is fine for kp_handle_free() and kp_env_new();
 *   elsewhere it is KP_ERR_INVALID, or 0, -1 or "" from the functions that look.
 */
#ifndef KP_KP_H
#define KP_KP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h> /* pid_t */

#ifndef KP_API /* the library's own build says what is exported */
#define KP_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- 1. Results, states, flags ------------------------------------------ */

/* One proxy, from start to end. Opaque. */
typedef struct kp_handle kp_handle;

/* What a call came to. Negative: a failure. The numbers never change their
 * meaning, and new ones may be added. */
typedef int32_t kp_result;
enum {
    KP_OK = 0,
    KP_AGAIN = 1,                 /* not finished yet: step or wait again */
    KP_ERR_INVALID = -1,          /* the spec or an argument is wrong; nothing was started */
    KP_ERR_NO_MEMORY = -2,        /* no memory for the library's own data */
    KP_ERR_SYSTEM = -3,           /* a system call failed: kp_error.sys_errno says how */
    KP_ERR_PORT_IN_USE = -4,      /* the fixed port is taken; nothing was started */
    KP_ERR_SPAWN = -5,            /* the program could not be executed */
    KP_ERR_GUARD = -6,            /* the guard (/bin/sh) could not be started or has ended;
                                     KP_SPEC_NO_GUARD does without */
    KP_ERR_EXITED = -7,           /* the proxy exited before it was ready, or has exited since */
    KP_ERR_TIMED_OUT = -8,        /* the proxy did not bind in time */
    KP_ERR_FOREIGN_LISTENER = -9, /* something else listens on the port */
    KP_ERR_NOT_HTTP = -10,        /* KP_SPEC_PROBE_HTTP: what answered is not an HTTP proxy */
    KP_ERR_STATE = -11,           /* not possible in the handle's, or the thread's, present state */
    KP_ERR_FORKED = -12           /* the handle was made by another process (see Fork, above) */
};

/* Where a proxy is in its life:
 *
 *     start -> STARTING -> READY
 *                  |         |       a failure, an exit or kp_handle_stop()
 *                  +----+----+
 *                       v
 *                   STOPPING -> EXITED -> (kp_handle_restart) STARTING
 */
typedef int32_t kp_state;
enum {
    KP_STATE_STARTING = 1, /* started, and probed until it listens */
    KP_STATE_READY = 2,    /* it listens, and nobody else does where a connection to 127.0.0.1
                              goes; nothing is due until it exits */
    KP_STATE_STOPPING = 3, /* asked to end; what is left after the grace period is killed */
    KP_STATE_EXITED = 4    /* no process of it is left, but for one that had to be given up; the
                              port is still reserved, unless by KP_SPEC_NO_RESERVE */
};

/* kp_spec.flags. An unknown one is KP_ERR_INVALID. */
enum {
    KP_SPEC_CLEAR_ENV = 1 << 0,    /* the proxy gets only spec.env and the port variable, not the
                                      host's environment */
    KP_SPEC_PROBE_HTTP = 1 << 1,   /* ready only when a CONNECT gets an HTTP status line back, of
                                      whatever status. It asks for 255.255.255.255:443, which the
                                      proxy has to resolve nothing for and can't reach. The
                                      answer is read to its end, for at most 100 ms */
    KP_SPEC_NO_GUARD = 1 << 2,     /* let the proxy outlive a killed host */
    KP_SPEC_NO_RESERVE = 1 << 3,   /* for a proxy that binds without SO_REUSEADDR: do not keep the
                                      port reserved. Python's socketserver.TCPServer and socat
                                      without `reuseaddr` are such programs */
    KP_SPEC_ANY_LISTENER = 1 << 4, /* accept a listener that is not the proxy's own, as with
                                      `docker run -p` and systemd-run, where another process opens
                                      the port: use it with KP_SPEC_PROBE_HTTP. A port that is taken
                                      before the start is KP_ERR_PORT_IN_USE all the same */
    KP_SPEC_ATTACH = 1 << 5        /* the proxy runs already, on `port`: see Attaching, above */
};

/* ---- 2. The spec and the error ------------------------------------------ */

/* The variable that tells the proxy its port, unless spec.port_env names another. */
#define KP_PORT_ENV "KODA_PROXY_PORT"

/* What children reach without the proxy, unless spec.no_proxy says otherwise. Note
 * that 169.254.0.0/16 holds the metadata service of cloud machines; "" closes it. */
#define KP_DEFAULT_NO_PROXY                                                                        \
    "localhost,127.0.0.1,::1,[::1],169.254.0.0/16,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"

/* What to run and how. Zero in any field means its default, so start from
 * `kp_spec spec = {.size = sizeof spec}`. The struct has no padding on any ABI and
 * grows at its end only: the library reads `size` bytes, takes what is missing for
 * zero, and refuses a longer spec whose unknown tail is not zero. Strings are
 * bytes that end with NUL, in no particular encoding. */
typedef struct kp_spec {
    size_t size;       /* sizeof(kp_spec) as the caller was compiled */
    char *const *argv; /* program, arguments, NULL; not empty (with KP_SPEC_ATTACH: NULL or empty).
                          A program without a slash is looked up in the host's PATH; one with a
                          slash counts from cwd */
    char *const *env;  /* "NAME=value" for the proxy alone, over the host's environment (without
                          what concerns the host alone: kp(7) has the list); NULL-terminated;
                          NULL: none. The last of two with one name counts. Setting the port
                          variable is KP_ERR_INVALID */
    const char *cwd;   /* directory that the proxy starts in; NULL: the host's */
    const char *ca_bundle;       /* PEM file that the children are to trust: the system's roots and
                                    the proxy's own (many clients replace theirs by it). Not opened
                                    by the library; NULL: none; "" is KP_ERR_INVALID */
    const char *no_proxy;        /* NULL: KP_DEFAULT_NO_PROXY; "": nothing goes around the proxy */
    const char *port_env;        /* variable that tells the proxy its port; NULL: KP_PORT_ENV */
    uint32_t flags;              /* KP_SPEC_* */
    uint32_t startup_timeout_ms; /* from the start to READY; default 5000 */
    uint32_t stop_grace_ms;      /* from SIGTERM to SIGKILL; default 2000 */
    int32_t log_fd;              /* the proxy's standard output and error. 0: the host's standard
                                    error, or /dev/null where that is closed or close-on-exec.
                                    Linux opens a pipe or terminal anew for the proxy, which may
                                    then make its own output non-blocking.
                                    Descriptor 0 itself can't be named; one that is not open, or not
                                    for writing, is KP_ERR_INVALID. The handle keeps a duplicate
                                    until it is freed: the reader of a pipe sees no end before that,
                                    and must read during kp_spawn() */
    uint32_t port;               /* 1 to 65535; 0: an ephemeral port of the kernel's choice */
    uint32_t reserved;           /* 0 */
} kp_spec;

/* What went wrong. 1536 bytes for ever; new facts go into `reserved`. */
typedef struct kp_error {
    kp_result code;       /* what the call returned */
    int32_t sys_errno;    /* errno of the system call that failed; 0: none did */
    int32_t exit_code;    /* the proxy's exit status; -1: not exited, killed, or unknown */
    int32_t term_signal;  /* the signal that killed the proxy; 0: none */
    char message[480];    /* one line for a person; terminated, never empty */
    char output[1024];    /* the last lines that the proxy printed since this start, where log_fd
                             is a regular file; else "". The proxy's bytes, without the last
                             newline */
    uint32_t reserved[4]; /* 0 */
} kp_error;

/* ---- 3. Start ----------------------------------------------------------- */

/* Starts a proxy and waits until it is ready. It returns at the latest after
 * startup_timeout_ms + stop_grace_ms + 1 s: a proxy that failed is stopped like any
 * other, so that its wrapper can clean up, and nothing of it is left.
 *
 * KP_OK               *handle is READY; kp_handle_free() it
 * KP_ERR_INVALID      spec or handle is wrong; error->message names the field
 * KP_ERR_NO_MEMORY
 * KP_ERR_SYSTEM       a system call failed: out of descriptors, processes, ...; or 127.0.0.1
 *                     can't be reached, for 200 ms: its interface is down, a sandbox forbids it
 * KP_ERR_PORT_IN_USE  spec->port is in use; choose another
 * KP_ERR_SPAWN        no such program, not executable, no such cwd, ...
 * KP_ERR_GUARD        /bin/sh can't be started: KP_SPEC_NO_GUARD does without
 * KP_ERR_EXITED       it exited at once: error->output may say why
 * KP_ERR_TIMED_OUT    it runs but does not listen on the port; the message says where it
 *                     does instead, or that it is stopped
 * KP_ERR_FOREIGN_LISTENER  another process listens on the port, beside the proxy or instead
 *                     of it; the message names it. Or the host is not told who does
 * KP_ERR_NOT_HTTP     KP_SPEC_PROBE_HTTP: it answered something else, or not in time
 * KP_ERR_STATE        Linux: the calling thread is between unshare(CLONE_NEWPID), or a setns()
 *                     like it, and fork(): its next child would be init of another namespace
 *
 * On a system whose posix_spawn() can't report a failed exec, KP_ERR_SPAWN comes as
 * KP_ERR_EXITED with exit_code 127. Signal handlers of the host's run and do not end
 * the wait: a host that wants that uses kp_start() and kp_handle_wait(). */
KP_API kp_result kp_spawn(const kp_spec *spec, kp_handle **handle, kp_error *error);

/* Starts a proxy and returns at once; *handle is STARTING, and a step is due. Never
 * KP_AGAIN. A program that somebody has open for writing (ETXTBSY), as a child of another
 * thread may that was just forked, is tried again for 20 ms. Fails like kp_spawn(), but for
 * what is found out later, by a step or a wait: KP_ERR_EXITED, KP_ERR_TIMED_OUT,
 * KP_ERR_FOREIGN_LISTENER, KP_ERR_NOT_HTTP, and that 127.0.0.1 can't be reached. */
KP_API kp_result kp_start(const kp_spec *spec, kp_handle **handle, kp_error *error);

/* ---- 4. Drive it from an event loop, or block --------------------------- */

/* One descriptor for any event loop, owned by the handle and the same for its life,
 * restarts included. It is readable whenever a step is due, also by time, and a step
 * leaves it unreadable unless another is due. So it is all that a loop needs, level-
 * or edge-triggered: watch it for reading, and step when it is. Never read from it.
 * Made at the first call. -1: it could not be made (out of descriptors; not on this
 * platform; called after fork), and the call may be repeated. On Linux it is an epoll
 * descriptor (epoll(7): nested descriptors work in select, poll, epoll, io_uring). */
KP_API int kp_handle_fd(kp_handle *handle);

/* For hosts that can't watch the descriptor: nanoseconds until the next step is due;
 * 0: now; -1: only the descriptor can tell, or nothing is due any more. Finite in
 * every state but EXITED until kp_handle_fd() was called. */
KP_API int64_t kp_handle_timeout_ns(const kp_handle *handle);

/* Does what is due and returns at once. Too early, too late or for no reason is
 * harmless. A failure is told once; the handle is then STOPPING and goes on to EXITED.
 * To see a change, compare kp_handle_state() before and after.
 *
 * KP_AGAIN           STARTING or STOPPING
 * KP_OK              READY or EXITED
 * KP_ERR_EXITED      the proxy exited, in STARTING or READY
 * KP_ERR_TIMED_OUT   it did not bind in time
 * KP_ERR_FOREIGN_LISTENER, KP_ERR_NOT_HTTP   as from kp_spawn()
 * KP_ERR_GUARD       its guard ended before it was ready
 * KP_ERR_SYSTEM      the host is short of descriptors, say, for a probe or to see whose
 *                    the listener is, or can't reach 127.0.0.1 (STOPPING follows); or a
 *                    process of the
 *                    proxy's can't be killed and was given up, its pid in the message
 *                    (EXITED has been reached)
 * KP_ERR_INVALID, KP_ERR_FORKED */
KP_API kp_result kp_handle_step(kp_handle *handle, kp_error *error);

/* Steps and blocks until the state `until` (READY or EXITED) is reached, at least one
 * step; timeout_ms -1: for ever, 0: just looks afresh. A signal handler of the host's
 * that runs meanwhile ends the wait, so that Ctrl-C is seen at once: handlers run in
 * this thread only while it blocks.
 *
 * KP_OK              reached
 * KP_AGAIN           out of time, or a signal handler ran; *error is untouched
 * KP_ERR_STATE       READY: it is STOPPING or EXITED already
 * KP_ERR_EXITED, KP_ERR_TIMED_OUT, KP_ERR_GUARD, KP_ERR_FOREIGN_LISTENER,
 * KP_ERR_NOT_HTTP    READY: the start has failed. EXITED: never, it waits for the end
 * KP_ERR_SYSTEM      as from kp_handle_step()
 * KP_ERR_INVALID, KP_ERR_FORKED */
KP_API kp_result kp_handle_wait(kp_handle *handle, kp_state until, int timeout_ms, kp_error *error);

/* ---- 5. Look ------------------------------------------------------------ */

/* These tell what the last step found; kp_handle_wait(h, KP_STATE_EXITED, 0, NULL)
 * looks afresh. */

KP_API kp_state kp_handle_state(const kp_handle *handle);

/* The port on 127.0.0.1, in host byte order; the same for the handle's life. */
KP_API uint16_t kp_handle_port(const kp_handle *handle);

/* The proxy's pid, for logs. It keeps its value after the exit, so do not signal it.
 * 0: attached. */
KP_API pid_t kp_handle_pid(const kp_handle *handle);

/* "http://127.0.0.1:PORT"; the handle's, until it is freed. */
KP_API const char *kp_handle_url(const kp_handle *handle);

/* 1: the proxy's process has exited; 0: not yet. exit_code and term_signal (either may
 * be NULL) are set with 1: as in kp_error, both "unknown" (-1 and 0) in a host that
 * lets the kernel or another thread reap its children. 0 in EXITED only where the
 * process itself was given up (KP_ERR_SYSTEM, see kp_handle_step). */
KP_API int kp_handle_exit_status(const kp_handle *handle, int *exit_code, int *term_signal);

/* ---- 6. End ------------------------------------------------------------- */

/* Begins to stop the proxy and returns at once: SIGTERM and SIGCONT go to its process
 * group now, SIGKILL follows after grace_ms (-1: the spec's; 0: now). A step is due (an
 * attached proxy is EXITED at once, and none is).
 * KP_OK also while it is stopping or has exited. A later call can only bring SIGKILL
 * nearer: kp_handle_stop(h, 0) is the second Ctrl-C, and after it kp_handle_free()
 * takes a second at most. KP_ERR_INVALID, KP_ERR_FORKED. */
KP_API kp_result kp_handle_stop(kp_handle *handle, int grace_ms);

/* Starts the same spec on the same port again; the handle must be EXITED. The host's
 * environment and PATH are read anew. Returns at once, as kp_start() does. On success
 * the exit status is "not yet" and the pid new; port, URL and descriptor stay, so
 * children that run already go on working. On failure the handle stays EXITED and may
 * be restarted again. Fails like kp_start(), with KP_ERR_STATE or KP_ERR_FORKED, and with
 * KP_ERR_SYSTEM while the proxy's own process, given up, still lives. */
KP_API kp_result kp_handle_restart(kp_handle *handle, kp_error *error);

/* Stops the proxy if need be (with the spec's grace), waits for its end, and releases
 * everything. NULL is fine. After fork(), in the child, it releases and leaves the
 * proxy alone. */
KP_API void kp_handle_free(kp_handle *handle);

/* In a forked child: closes its copies of the guard's pipe, the port's reservation, the
 * log and the loop's descriptor. So a worker that lives on without exec keeps neither the
 * proxy of a killed host alive, nor the port taken, nor the log's reader waiting, once the
 * parent is gone or has freed the handle. What can be looked at stays, kp_env_new() too,
 * and the copy may still be freed. It does nothing but close, so it can be called from
 * pthread_atfork()'s child handler and is async-signal-safe; a child that closes descriptors
 * by their numbers does so after it. In the process that made the handle, for NULL and a
 * second time it does nothing. A host that becomes a daemon by fork() after the start, and
 * is to keep its proxy, must not call it: the guard would take its parent's exit for its own. */
KP_API void kp_handle_detach(kp_handle *handle);

/* ---- 7. Tell the children ----------------------------------------------- */

/* A new environment for a child: `base` (NULL: the host's; empty: none) and over it
 * the variables that send the child through the proxy, each in upper and lower case
 * with the same value:
 *
 *   HTTP_PROXY, HTTPS_PROXY, ALL_PROXY   kp_handle_url()
 *   NO_PROXY                             spec.no_proxy
 *
 * and, with spec.ca_bundle, SSL_CERT_FILE, NODE_EXTRA_CA_CERTS, REQUESTS_CA_BUNDLE and
 * CURL_CA_BUNDLE. Variables of single clients that would lead them around the proxy,
 * or away from that bundle, are removed (kp(7) lists them). Each name comes once, in
 * the order of the names' bytes; text of the base that is not NAME=value is kept.
 *
 * A NULL handle gives the base as it is: a host that goes on without its proxy needs
 * no second path. The result does not depend on the handle's state, is one allocation,
 * ends with NULL and is the caller's: change nothing in it, and kp_env_free() it.
 * NULL: no memory. In a host with threads call it before fork(). */
KP_API char **kp_env_new(const kp_handle *handle, char *const base[]);
KP_API void kp_env_free(char **env); /* NULL is fine */

/* "KP_ERR_TIMED_OUT"; "unknown" for a number that this version does not know. */
KP_API const char *kp_result_name(kp_result result);

/* "MAJOR.MINOR.PATCH" of the library that runs. */
KP_API const char *kp_version(void);

#ifdef __cplusplus
}
#endif
#endif
