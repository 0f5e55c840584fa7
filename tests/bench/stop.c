/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that starts and stops proxies, with the library and without. stop.py runs it.
 *
 *     stop host BALLAST_MB LISTENER FOLDER
 *
 * keeps so much memory in use, and answers each line of standard input with one:
 *
 *     WAY COUNT    starts COUNT proxies one after the other, waits until all listen, and stops them
 *                  all: "START STOP", nanoseconds. WAY is bare (posix_spawn, kill, waitpid), kp
 *                  (KP_SPEC_NO_GUARD) or guard
 *     cost WAY COUNT
 *                  what COUNT handles cost, once ready: "BYTES FDS FDS", bytes of the heap,
 *                  descriptors, and descriptors once kp_handle_fd was called, of one of them, in
 *                  thousandths
 *
 *     stop crowd COUNT
 *
 * has so many children that do nothing, prints a line once they are there, and ends them at the end
 * of its standard input.
 */
#include "meter.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kp/kp.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 4096, PATIENCE_S = 60, SECOND_NS = 1000000000, MEGABYTE = 1 << 20 };

extern char **environ;

/* One proxy, in either way. */
struct proxy {
    char *argv[4];
    char path[128];
    volatile int64_t *stamp; /* when it began to listen; 0: not yet */
    kp_handle *handle;
    pid_t pid;
};

static struct proxy proxies[MOST];
static char *listener, *folder;
static uint32_t flags;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "stop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(kp_result result, const kp_error *error)
{
    if (result == KP_OK)
        return;
    fprintf(stderr, "stop: %s\n", error->message);
    exit(1);
}

/* ---- Proxies ---------------------------------------------------------------- */

/* All that is the benchmark's own is there before anything is measured. */
static void prepare(long count)
{
    static char delay[] = "0";
    for (long i = 0; i < count; i++) {
        struct proxy *proxy = &proxies[i];
        if (proxy->stamp == NULL) {
            snprintf(proxy->path, sizeof proxy->path, "%s/%ld", folder, i);
            int fd = open(proxy->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            if (fd < 0 || ftruncate(fd, sizeof *proxy->stamp) != 0)
                fail(proxy->path);
            void *memory =
                mmap(NULL, sizeof *proxy->stamp, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (memory == MAP_FAILED)
                fail("mmap");
            close(fd);
            proxy->stamp = memory;
            memcpy(proxy->argv, (char *[]){listener, delay, proxy->path, NULL}, sizeof proxy->argv);
        }
        *proxy->stamp = 0;
    }
}

/* Without the library nobody chooses a port: the proxies take any. */
static void start_bare(struct proxy *proxy)
{
    errno = posix_spawnp(&proxy->pid, proxy->argv[0], NULL, NULL, proxy->argv, environ);
    if (errno != 0)
        fail("posix_spawnp");
}

static void start_kp(struct proxy *proxy)
{
    kp_spec spec = {.size = sizeof spec,
                    .argv = proxy->argv,
                    .flags = flags,
                    .startup_timeout_ms = PATIENCE_S * 1000};
    kp_error error;
    check(kp_start(&spec, &proxy->handle, &error), &error);
}

static void await_bare(struct proxy *proxy)
{
    int64_t limit = meter_now() + (int64_t)PATIENCE_S * SECOND_NS;
    while (*proxy->stamp == 0 && meter_now() < limit)
        sched_yield();
    if (*proxy->stamp == 0)
        fail("no stamp");
}

static void await_kp(struct proxy *proxy)
{
    kp_error error;
    check(kp_handle_wait(proxy->handle, KP_STATE_READY, -1, &error), &error);
}

static void ask_bare(struct proxy *proxy)
{
    kill(proxy->pid, SIGTERM);
}

static void ask_kp(struct proxy *proxy)
{
    kp_handle_stop(proxy->handle, -1);
}

static void end_bare(struct proxy *proxy)
{
    if (waitpid(proxy->pid, NULL, 0) != proxy->pid)
        fail("waitpid");
}

static void end_kp(struct proxy *proxy)
{
    kp_handle_free(proxy->handle);
}

/* ---- What is measured --------------------------------------------------------- */

typedef void step(struct proxy *proxy);

struct way {
    const char *name;
    uint32_t flags;
    step *start, *await, *ask, *end;
};

static const struct way ways[] = {
    {"bare", 0, start_bare, await_bare, ask_bare, end_bare},
    {"kp", KP_SPEC_NO_GUARD, start_kp, await_kp, ask_kp, end_kp},
    {"guard", 0, start_kp, await_kp, ask_kp, end_kp},
};

static const struct way *find_way(const char *name)
{
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].name, name) == 0)
            return &ways[i];
    errno = EINVAL;
    fail(name);
}

static int64_t time_of(step *do_it, long count)
{
    int64_t begin = meter_now();
    for (long i = 0; i < count; i++)
        do_it(&proxies[i]);
    return meter_now() - begin;
}

static void live(const struct way *way, long count)
{
    prepare(count);
    flags = way->flags;
    int64_t start = time_of(way->start, count);
    time_of(way->await, count);
    int64_t stop = time_of(way->ask, count) + time_of(way->end, count);
    printf("%lld %lld\n", (long long)start, (long long)stop);
}

static long count_descriptors(void)
{
    long count = 0;
    DIR *all = opendir("/proc/self/fd");
    while (all != NULL && readdir(all) != NULL)
        count++;
    if (all != NULL)
        closedir(all);
    return count;
}

/* The handles' own memory does not depend on what an allocator makes of it: it is freshly there. */
static void weigh(const struct way *way, long count)
{
    prepare(count);
    flags = way->flags;
    size_t bytes = mallinfo2().uordblks;
    long fds = count_descriptors();
    time_of(way->start, count);
    time_of(way->await, count);
    bytes = mallinfo2().uordblks - bytes;
    long ready_fds = count_descriptors() - fds;
    for (long i = 0; i < count; i++)
        kp_handle_fd(proxies[i].handle);
    long loop_fds = count_descriptors() - fds;
    time_of(way->ask, count);
    time_of(way->end, count);
    printf("%ld %ld %ld\n", (long)bytes * 1000 / count, ready_fds * 1000 / count,
           loop_fds * 1000 / count);
}

/* ---- The command line ----------------------------------------------------------- */

static void hold_ballast(size_t size)
{
    void *memory = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    memset(memory, 1, size);
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int be_a_host(long ballast_mb)
{
    char line[64], name[16];
    long count;
    raise_descriptor_limit();
    setenv(KP_PORT_ENV, "0", 1); /* of the bare ones; the library sets its own */
    hold_ballast((size_t)ballast_mb * MEGABYTE);
    while (fgets(line, sizeof line, stdin) != NULL) {
        bool costs = sscanf(line, "cost %15s %ld", name, &count) == 2;
        if ((!costs && sscanf(line, "%15s %ld", name, &count) != 2) || count < 1 || count > MOST)
            return 2;
        (costs ? weigh : live)(find_way(name), count);
        fflush(stdout);
    }
    return 0;
}

static int be_a_crowd(long count)
{
    pid_t *pids = calloc((size_t)count, sizeof *pids);
    char byte;
    for (long i = 0; pids != NULL && i < count; i++)
        if ((pids[i] = fork()) == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                pause();
        }
    puts("there");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    for (long i = 0; pids != NULL && i < count; i++)
        if (pids[i] > 0 && kill(pids[i], SIGKILL) == 0)
            waitpid(pids[i], NULL, 0);
    free(pids);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "crowd") == 0)
        return be_a_crowd(atol(argv[2]));
    if (argc == 5 && strcmp(argv[1], "host") == 0) {
        listener = argv[3];
        folder = argv[4];
        return be_a_host(atol(argv[2]));
    }
    fputs("usage: stop host BALLAST_MB LISTENER FOLDER | stop crowd COUNT\n", stderr);
    return 2;
}
