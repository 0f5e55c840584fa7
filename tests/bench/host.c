/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts that wait for a proxy to listen, each in its own way. readiness.py runs them.
 *
 *     host WAY LISTENER STAMP
 *
 * spawn     kp_spawn()
 * epoll     kp_start(), and an edge-triggered loop on kp_handle_fd()
 * usual     without the library: connects, with pauses that double from 20 to 200 ms
 * oracle    without the library: connects without a pause
 *
 * For each line "DELAY_US" on standard input the proxy is started, awaited and stopped, and a line
 * "LATE STARTUP WAIT CPU REFUSED" answers: nanoseconds from its listen() to the host's knowing of
 * it, from its spawn to its listen(), and of the wait; the host's own time up to its last connect;
 * and the number of refused connects.
 *
 *     host price
 *
 * For each line "COUNT PAUSE_NS" a line "CPU": the time that so many pauses and refused connects
 * cost a plain program.
 */
#include "meter.h"
#include <errno.h>
#include <fcntl.h>
#include <kp/kp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 10, MS = 1000000 };

extern char **environ;

struct bench {
    char *argv[4];           /* the proxy's */
    volatile int64_t *stamp; /* when it began to listen; 0: not yet */
    int64_t ready;           /* when the host knew */
    int64_t listened;        /* the stamp of this time */
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "host: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void sleep_ns(int64_t ns)
{
    struct timespec rest = {.tv_sec = ns / (1000 * MS), .tv_nsec = ns % (1000 * MS)};
    while (nanosleep(&rest, &rest) != 0)
        ;
}

/* Before the proxy is stopped: the host may know before the proxy has got around to writing it. */
static int64_t read_stamp(const struct bench *bench)
{
    int64_t limit = bench->ready + (int64_t)PATIENCE_S * 1000 * MS;
    while (*bench->stamp == 0 && meter_now() < limit)
        sched_yield();
    if (*bench->stamp == 0)
        fail("no stamp");
    return *bench->stamp;
}

static void note_ready(struct bench *bench)
{
    bench->ready = meter_now();
    bench->listened = read_stamp(bench);
}

/* ---- With the library ------------------------------------------------------------ */

static void check(kp_result result, const kp_error *error)
{
    if (result >= 0)
        return;
    fprintf(stderr, "host: %s\n", error->message);
    exit(1);
}

static void run_spawn(struct bench *bench)
{
    kp_spec spec = {.size = sizeof spec, .argv = bench->argv};
    kp_handle *proxy;
    kp_error error;
    check(kp_spawn(&spec, &proxy, &error), &error);
    note_ready(bench);
    kp_handle_free(proxy);
}

static void run_epoll(struct bench *bench)
{
    kp_spec spec = {.size = sizeof spec, .argv = bench->argv};
    kp_handle *proxy;
    kp_error error;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int loop = epoll_create1(EPOLL_CLOEXEC);
    check(kp_start(&spec, &proxy, &error), &error);
    if (epoll_ctl(loop, EPOLL_CTL_ADD, kp_handle_fd(proxy), &event) != 0)
        fail("epoll_ctl");
    while (kp_handle_state(proxy) == KP_STATE_STARTING)
        if (epoll_wait(loop, &event, 1, PATIENCE_S * 1000) == 1)
            check(kp_handle_step(proxy, &error), &error);
        else
            fail("epoll_wait");
    note_ready(bench);
    kp_handle_free(proxy);
    close(loop);
}

/* ---- Without --------------------------------------------------------------------- */

static const struct sockaddr *generic(const struct sockaddr_in *address)
{
    return (const struct sockaddr *)address;
}

/* Kept from others as the library keeps it, or a loop of connects would meet itself. */
static int reserve(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, generic(address), size) != 0 ||
        getsockname(fd, (struct sockaddr *)address, &size) != 0)
        fail("reserve");
    return fd;
}

static bool connects(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = fd >= 0 && connect(fd, generic(address), sizeof *address) == 0;
    close(fd);
    return connected;
}

static pid_t spawn(struct bench *bench, const struct sockaddr_in *address)
{
    char port[8];
    pid_t pid;
    snprintf(port, sizeof port, "%u", ntohs(address->sin_port));
    setenv(KP_PORT_ENV, port, 1);
    errno = posix_spawnp(&pid, bench->argv[0], NULL, NULL, bench->argv, environ);
    if (errno != 0)
        fail("posix_spawnp");
    return pid;
}

static void run_loop(struct bench *bench, int64_t pause, int64_t longest)
{
    struct sockaddr_in address;
    int reservation = reserve(&address);
    pid_t pid = spawn(bench, &address);
    while (!connects(&address)) {
        if (pause != 0)
            sleep_ns(pause);
        pause = 2 * pause < longest ? 2 * pause : longest;
    }
    note_ready(bench);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(reservation);
}

static void run_usual(struct bench *bench)
{
    run_loop(bench, 20 * MS, 200 * MS);
}

static void run_oracle(struct bench *bench)
{
    run_loop(bench, 0, 0);
}

/* ---- The price of probes --------------------------------------------------------- */

static void price(long count, int64_t pause)
{
    struct sockaddr_in address;
    int reservation = reserve(&address);
    int64_t before = meter_cpu();
    for (long i = 0; i < count && !connects(&address); i++)
        sleep_ns(pause);
    printf("%lld\n", (long long)(meter_cpu() - before));
    close(reservation);
}

static int serve_prices(void)
{
    long count;
    long long pause;
    while (scanf("%ld %lld", &count, &pause) == 2) {
        price(count, pause);
        fflush(stdout);
    }
    return 0;
}

/* ---- The command line ------------------------------------------------------------ */

static void report(const struct bench *bench)
{
    printf("%lld %lld %lld %lld %lld\n", (long long)(bench->ready - bench->listened),
           (long long)(bench->listened - bench_meter.spawn_begun),
           (long long)(bench->ready - bench_meter.spawn_ended),
           (long long)(bench_meter.asked_cpu - bench_meter.spawn_ended_cpu),
           (long long)bench_meter.refused);
    fflush(stdout);
}

static void map_stamp(struct bench *bench, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(path);
    void *memory = mmap(NULL, sizeof *bench->stamp, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    close(fd);
    bench->stamp = memory;
}

static int serve(void (*run)(struct bench *), char *listener, char *stamp)
{
    char delay[32];
    struct bench bench = {.argv = {listener, delay, stamp, NULL}};
    map_stamp(&bench, stamp);
    while (scanf("%31s", delay) == 1) {
        bench_meter.refused = 0;
        run(&bench);
        report(&bench);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct bench *);
    } ways[] = {
        {"spawn", run_spawn}, {"epoll", run_epoll}, {"usual", run_usual}, {"oracle", run_oracle}};
    if (argc == 2 && strcmp(argv[1], "price") == 0)
        return serve_prices();
    for (size_t i = 0; argc == 4 && i < sizeof ways / sizeof *ways; i++)
        if (strcmp(argv[1], ways[i].name) == 0)
            return serve(ways[i].run, argv[2], argv[3]);
    fputs("usage: host spawn|epoll|usual|oracle LISTENER STAMP | host price\n", stderr);
    return 2;
}
