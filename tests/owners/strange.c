/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A proxy whose listener has a strange owner: a row of steps, each of which does something
 * and goes on with the next. The port is in $KODA_PROXY_PORT. Whatever happens, it ends
 * itself after a minute.
 *
 *     strange STEP...
 *
 * Steps that go on:
 *
 *   become UID           become this user altogether (installed as a setuid root program)
 *   undumpable           have /proc belong to root
 *   deaf                 ignore SIGTERM
 *   userns               enter a user namespace of one's own
 *   no-main              end the main thread; another one goes on
 *   worker               a child goes on; its parent stays
 *   daemon               a grandchild in a session of its own goes on, its parent gone; this stays
 *   zombie               a child that has ended
 *   session              leave session and group for new ones
 *   crowd N              N children that do nothing
 *   descriptors N        N open descriptors more
 *   sockets N            the same, of sockets
 *   mptcp                sockets made later are of MPTCP
 *   reuseport            sockets made later have SO_REUSEPORT
 *   v6only               sockets made later have IPV6_V6ONLY
 *   bind ADDRESS         bind there, for `serve`
 *
 * and those at the end of a row:
 *
 *   listen ADDRESS       bind and serve there
 *   serve                serve where it was bound
 *   workers N            serve in N children, each with a socket of its own (after `reuseport`)
 *   relay                a child that leads a session listens, and ends when asked; then serve
 *   reexec N             listen, then execute oneself N times, and serve
 *   exec PROGRAM...      become this program
 *   never                never bind
 *   ask SOCKET           have the opener at this socket listen on the port; then do nothing
 *   open SOCKET ADDRESS  no proxy but an opener: listen on ADDRESS at each port that is asked for
 */
#include "../fixtures/tunnel.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIFETIME_S = 60, EXIT_USAGE = 2, EXIT_CANNOT = 4 };

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static int protocol;
static bool reuseport, v6only;
static char *program; /* what this was started as */
static char **rest;   /* the steps that follow */

static void run(void);

/* ---- Small helpers ------------------------------------------------------ */

static _Noreturn void cannot(const char *what)
{
    perror(what);
    exit(EXIT_CANNOT);
}

static long number(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < 0)
        cannot(text);
    return value;
}

static _Noreturn void do_nothing(void)
{
    for (;;)
        pause();
}

/* Whether this is the child. A fork does not inherit an alarm. */
static bool fork_child(void)
{
    pid_t pid = fork();
    if (pid < 0)
        cannot("fork");
    if (pid == 0)
        alarm(LIFETIME_S);
    return pid == 0;
}

/* ---- Sockets ------------------------------------------------------------ */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

static socklen_t make_address(const char *text, uint16_t port, union address *out)
{
    memset(out, 0, sizeof *out);
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons(port);
    if (inet_pton(AF_INET, text, &out->v4.sin_addr) == 1)
        return sizeof out->v4;
    memset(out, 0, sizeof *out);
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(port);
    if (inet_pton(AF_INET6, text, &out->v6.sin6_addr) != 1)
        cannot(text);
    return sizeof out->v6;
}

static int bind_to(const char *text, uint16_t port)
{
    union address address;
    socklen_t size = make_address(text, port, &address);
    int on = 1, fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, protocol);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
        cannot("socket");
    if (reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        cannot("SO_REUSEPORT");
    if (v6only && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0)
        cannot("IPV6_V6ONLY");
    if (bind(fd, &address.any, size) != 0)
        cannot("bind");
    return fd;
}

static int listening(int fd)
{
    if (listen(fd, SOMAXCONN) != 0)
        cannot("listen");
    return fd;
}

static int listen_at(const char *address, uint16_t port)
{
    return listening(bind_to(address, port));
}

static uint16_t own_port(void)
{
    const char *port = getenv("KODA_PROXY_PORT");
    if (port == NULL)
        cannot("KODA_PROXY_PORT");
    return (uint16_t)number(port);
}

static int local_socket(const char *path, union address *address)
{
    *address = (union address){.local = {.sun_family = AF_UNIX}};
    snprintf(address->local.sun_path, sizeof address->local.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        cannot("socket");
    return fd;
}

/* ---- Steps that go on --------------------------------------------------- */

static void become(char **arguments)
{
    uid_t uid = (uid_t)number(arguments[0]);
    if (setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
        cannot("setresuid");
}

static void undumpable(char **arguments)
{
    (void)arguments;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        cannot("PR_SET_DUMPABLE");
}

static void deaf(char **arguments)
{
    (void)arguments;
    signal(SIGTERM, SIG_IGN);
}

static void userns(char **arguments)
{
    (void)arguments;
    if (unshare(CLONE_NEWUSER) != 0)
        cannot("CLONE_NEWUSER");
}

/* The main thread has ended when the rest begins, and the kernel has cleared up after it. */
static void *run_in_thread(void *main_thread)
{
    if (pthread_join(*(pthread_t *)main_thread, NULL) != 0)
        cannot("pthread_join");
    usleep(10000);
    run();
    return NULL;
}

static void no_main(char **arguments)
{
    (void)arguments;
    static pthread_t main_thread;
    pthread_t thread;
    main_thread = pthread_self();
    if (pthread_create(&thread, NULL, run_in_thread, &main_thread) != 0)
        cannot("pthread_create");
    pthread_exit(NULL);
}

static void worker(char **arguments)
{
    (void)arguments;
    if (!fork_child())
        do_nothing();
}

static void daemon_step(char **arguments)
{
    (void)arguments;
    if (!fork_child())
        do_nothing();
    if (setsid() < 0)
        cannot("setsid");
    pid_t parent = getpid();
    if (!fork_child())
        _exit(0);
    while (getppid() == parent)
        usleep(1000);
}

static void zombie(char **arguments)
{
    (void)arguments;
    siginfo_t info;
    if (fork_child())
        _exit(0);
    if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) != 0)
        cannot("waitid");
}

static void session(char **arguments)
{
    (void)arguments;
    if (setsid() < 0)
        cannot("setsid");
}

static void crowd(char **arguments)
{
    for (long i = number(arguments[0]); i > 0; i--)
        if (fork_child())
            do_nothing();
}

static void lift_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        cannot("RLIMIT_NOFILE");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        cannot("RLIMIT_NOFILE");
}

static void descriptors(char **arguments)
{
    lift_limit();
    for (long i = number(arguments[0]); i > 0; i--)
        if (open("/dev/null", O_RDONLY | O_CLOEXEC) < 0)
            cannot("/dev/null");
}

static void sockets(char **arguments)
{
    lift_limit();
    for (long i = number(arguments[0]); i > 0; i--)
        if (socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0)
            cannot("socket");
}

static void mptcp(char **arguments)
{
    (void)arguments;
    protocol = IPPROTO_MPTCP;
}

static void set_reuseport(char **arguments)
{
    (void)arguments;
    reuseport = true;
}

static void set_v6only(char **arguments)
{
    (void)arguments;
    v6only = true;
}

static int bound = -1;

static void bind_early(char **arguments)
{
    bound = bind_to(arguments[0], own_port());
}

/* ---- Steps at the end --------------------------------------------------- */

static void serve_at(char **arguments)
{
    tunnel_serve(listen_at(arguments[0], own_port()));
}

static void serve_bound(char **arguments)
{
    (void)arguments;
    tunnel_serve(listening(bound));
}

static void workers(char **arguments)
{
    for (long i = number(arguments[0]); i > 0; i--)
        if (fork_child())
            tunnel_serve(listen_at("127.0.0.1", own_port()));
    do_nothing();
}

static _Noreturn void end_when_asked(void)
{
    if (setsid() < 0)
        cannot("setsid");
    int client, listener = listen_at("127.0.0.1", own_port());
    char byte;
    while ((client = accept(listener, NULL, NULL)) >= 0 && read(client, &byte, 1) <= 0)
        close(client);
    _exit(0);
}

static void relay(char **arguments)
{
    (void)arguments;
    if (fork_child())
        end_when_asked();
    if (wait(NULL) < 0)
        cannot("wait");
    tunnel_serve(listen_at("127.0.0.1", own_port()));
}

static _Noreturn void execute_self(long times, int listener)
{
    char count[32], descriptor[32], step[] = "reexecuted";
    snprintf(count, sizeof count, "%ld", times);
    snprintf(descriptor, sizeof descriptor, "%d", listener);
    char *arguments[] = {program, step, count, descriptor, NULL};
    execv(program, arguments);
    cannot(program);
}

static void reexec(char **arguments)
{
    int listener = listen_at("127.0.0.1", own_port());
    if (fcntl(listener, F_SETFD, 0) != 0)
        cannot("F_SETFD");
    execute_self(number(arguments[0]), listener);
}

static void reexecuted(char **arguments)
{
    long times = number(arguments[0]);
    int listener = (int)number(arguments[1]);
    if (times == 0)
        tunnel_serve(listener);
    execute_self(times - 1, listener);
}

static void execute(char **arguments)
{
    execv(arguments[0], arguments);
    cannot(arguments[0]);
}

static void never(char **arguments)
{
    (void)arguments;
    do_nothing();
}

static void ask(char **arguments)
{
    union address address;
    uint16_t port = own_port();
    char answer;
    int fd = local_socket(arguments[0], &address);
    if (connect(fd, &address.any, sizeof address.local) != 0)
        cannot(arguments[0]);
    if (write(fd, &port, sizeof port) != sizeof port || read(fd, &answer, 1) != 1)
        cannot("the opener does not answer");
    do_nothing();
}

/* ---- The opener --------------------------------------------------------- */

static int listen_locally(const char *path)
{
    union address address;
    int fd = local_socket(path, &address);
    if (bind(fd, &address.any, sizeof address.local) != 0 || listen(fd, 16) != 0)
        cannot(path);
    if (chmod(path, 0777) != 0)
        cannot(path);
    return fd;
}

/* The listener stays open until the opener ends. */
static void answer(int client, const char *address)
{
    uint16_t port;
    if (read(client, &port, sizeof port) != sizeof port)
        return; /* somebody only looked whether there is an opener */
    listen_at(address, port);
    if (write(client, "", 1) != 1 && errno != EPIPE) /* a host that is READY may have ended it */
        cannot("answer");
}

static void open_when_asked(char **arguments)
{
    int client, door = listen_locally(arguments[0]);
    signal(SIGPIPE, SIG_IGN);
    while ((client = accept4(door, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        answer(client, arguments[1]);
        close(client);
    }
    cannot("accept");
}

/* ---- The row ------------------------------------------------------------ */

static const struct step {
    const char *name;
    int arguments;
    void (*act)(char **arguments);
} steps[] = {
    {"become", 1, become},
    {"undumpable", 0, undumpable},
    {"deaf", 0, deaf},
    {"userns", 0, userns},
    {"no-main", 0, no_main},
    {"worker", 0, worker},
    {"daemon", 0, daemon_step},
    {"zombie", 0, zombie},
    {"session", 0, session},
    {"crowd", 1, crowd},
    {"descriptors", 1, descriptors},
    {"sockets", 1, sockets},
    {"mptcp", 0, mptcp},
    {"reuseport", 0, set_reuseport},
    {"v6only", 0, set_v6only},
    {"bind", 1, bind_early},
    {"listen", 1, serve_at},
    {"serve", 0, serve_bound},
    {"workers", 1, workers},
    {"relay", 0, relay},
    {"reexec", 1, reexec},
    {"reexecuted", 2, reexecuted},
    {"exec", 1, execute},
    {"never", 0, never},
    {"ask", 1, ask},
    {"open", 2, open_when_asked},
};

static const struct step *find_step(const char *name)
{
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        if (name != NULL && strcmp(name, steps[i].name) == 0)
            return &steps[i];
    fprintf(stderr, "strange: no such step, or none at the end: see the top of strange.c\n");
    exit(EXIT_USAGE);
}

static void run(void)
{
    for (;;) {
        const struct step *step = find_step(*rest);
        char **arguments = rest + 1;
        for (int i = 0; i < step->arguments; i++)
            if (arguments[i] == NULL)
                cannot(step->name);
        rest = arguments + step->arguments;
        step->act(arguments);
    }
}

int main(int argc, char **argv)
{
    (void)argc;
    alarm(LIFETIME_S);
    program = argv[0];
    rest = argv + 1;
    run();
}
