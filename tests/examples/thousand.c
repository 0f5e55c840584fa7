/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many proxies at once, from one thread: started together, restarted when they die, and
 * stopped within one total deadline.
 *
 *     thousand [-n COUNT] [-d DEADLINE_MS] [-t SECONDS] [-G] PROXY [ARGUMENT...]
 *
 *     -n  how many; default 1000
 *     -d  from SIGTERM or SIGINT to the end of the last one; default 5000
 *     -t  stop after so many seconds, as if by SIGTERM
 *     -G  without guards: half as many processes, but they outlive a killed host
 */
#include <kp/kp.h>

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

struct proxy {
    kp_handle *handle; /* NULL: not started */
    bool was_ready;    /* in this life */
};

struct fleet {
    struct proxy *proxies;
    size_t count, started;
    size_t running; /* those that have not ended for good */
    int loop, signals;
    unsigned seconds;    /* until it stops by itself; 0: never */
    int64_t deadline_ms; /* how long the stop may take */
    int64_t stop_ms;     /* when it began; 0: not yet */
    bool all_killed;     /* its second half has begun */
    size_t ready, restarts, failures, killed;
};

enum { BATCH = 10, SIGNALS = -1 }; /* the number of the signals among those of the proxies */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Start -------------------------------------------------------------------- */

/* A proxy takes some seven descriptors of its host. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool watch(const struct fleet *fleet, int fd, int64_t number)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)number};
    return fd >= 0 && epoll_ctl(fleet->loop, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void tell(struct fleet *fleet, size_t number, const char *message)
{
    fleet->failures++;
    fprintf(stderr, "proxy %zu: %s\n", number, message);
}

static void start_one(struct fleet *fleet, size_t number, const kp_spec *spec)
{
    kp_handle **handle = &fleet->proxies[number].handle;
    kp_error error;
    if (kp_start(spec, handle, &error) != KP_OK) {
        tell(fleet, number, error.message);
    } else if (!watch(fleet, kp_handle_fd(*handle), (int64_t)number)) {
        tell(fleet, number, "can't be watched");
        kp_handle_free(*handle);
        *handle = NULL;
    } else {
        fleet->running++;
    }
}

static bool is_starting(const struct fleet *fleet)
{
    return fleet->started < fleet->count && fleet->stop_ms == 0;
}

/* A few in each turn of the loop, so that those that run already are not kept waiting. */
static void start_some(struct fleet *fleet, const kp_spec *spec)
{
    for (int i = 0; i < BATCH && is_starting(fleet); i++)
        start_one(fleet, fleet->started++, spec);
}

static bool open_fleet(struct fleet *fleet)
{
    fleet->proxies = calloc(fleet->count, sizeof(struct proxy));
    fleet->loop = epoll_create1(EPOLL_CLOEXEC);
    fleet->signals = open_signals();
    return fleet->proxies != NULL && fleet->loop >= 0 && watch(fleet, fleet->signals, SIGNALS);
}

/* ---- Stop --------------------------------------------------------------------- */

static void stop_all(struct fleet *fleet, int grace_ms)
{
    for (size_t i = 0; i < fleet->count; i++) {
        kp_handle *handle = fleet->proxies[i].handle;
        if (handle == NULL || kp_handle_state(handle) == KP_STATE_EXITED)
            continue;
        fleet->killed += grace_ms == 0;
        kp_handle_stop(handle, grace_ms);
    }
}

/* All are asked now, and nobody has longer than the whole deadline. */
static void begin_stop(struct fleet *fleet)
{
    fleet->stop_ms = now_ms();
    stop_all(fleet, (int)fleet->deadline_ms);
}

/* Who is left in the second half of the deadline has had its grace. */
static void kill_all(struct fleet *fleet)
{
    fleet->all_killed = true;
    stop_all(fleet, 0);
}

/* How long the loop may sleep: the handles' own times are in their descriptors. */
static int patience_ms(const struct fleet *fleet)
{
    int64_t left = fleet->stop_ms + fleet->deadline_ms / 2 - now_ms();
    if (fleet->stop_ms == 0 || fleet->all_killed)
        return -1;
    return left < 0 ? 0 : (int)left;
}

/* A second signal does not wait for the deadline. */
static void on_signal(struct fleet *fleet)
{
    struct signalfd_siginfo info;
    while (read(fleet->signals, &info, sizeof info) == sizeof info) {
        if (fleet->stop_ms == 0)
            begin_stop(fleet);
        else
            kill_all(fleet);
    }
}

/* ---- Run ---------------------------------------------------------------------- */

/* One that died is started again, on its port: whoever uses it can go on. One that never
 * was ready would only fail once more. */
static void on_end(struct fleet *fleet, size_t number)
{
    struct proxy *proxy = &fleet->proxies[number];
    kp_error error;
    fleet->running--;
    if (fleet->stop_ms != 0 || !proxy->was_ready)
        return;
    proxy->was_ready = false;
    if (kp_handle_restart(proxy->handle, &error) != KP_OK) {
        tell(fleet, number, error.message);
        return;
    }
    fleet->running++;
    fleet->restarts++;
}

static void on_ready(struct fleet *fleet, size_t number)
{
    fleet->proxies[number].was_ready = true;
    fleet->ready++;
}

/* A failure is told by one step; later ones lead to EXITED. */
static void on_due_step(struct fleet *fleet, size_t number)
{
    struct proxy *proxy = &fleet->proxies[number];
    kp_error error;
    kp_state before = kp_handle_state(proxy->handle);
    if (kp_handle_step(proxy->handle, &error) < 0 && !proxy->was_ready)
        tell(fleet, number, error.message);
    kp_state now = kp_handle_state(proxy->handle);
    if (now == before)
        return;
    if (now == KP_STATE_READY)
        on_ready(fleet, number);
    else if (now == KP_STATE_EXITED)
        on_end(fleet, number);
}

static void run(struct fleet *fleet, const kp_spec *spec)
{
    struct epoll_event events[64];
    while (fleet->running > 0 || is_starting(fleet)) {
        start_some(fleet, spec);
        int patience = is_starting(fleet) ? 0 : patience_ms(fleet);
        int count = epoll_wait(fleet->loop, events, 64, patience);
        for (int i = 0; i < count; i++) {
            int64_t number = (int64_t)events[i].data.u64;
            if (number == SIGNALS)
                on_signal(fleet);
            else
                on_due_step(fleet, (size_t)number);
        }
        if (patience_ms(fleet) == 0)
            kill_all(fleet);
    }
}

/* Whether all went well. */
static bool sum_up(const struct fleet *fleet)
{
    int64_t took_ms = fleet->stop_ms == 0 ? 0 : now_ms() - fleet->stop_ms;
    printf("%zu proxies: %zu times ready, %zu restarts, %zu failures; ", fleet->count, fleet->ready,
           fleet->restarts, fleet->failures);
    printf("stopped in %lld ms, %zu of them killed\n", (long long)took_ms, fleet->killed);
    return fleet->failures == 0 && took_ms <= fleet->deadline_ms;
}

static void close_fleet(struct fleet *fleet)
{
    for (size_t i = 0; i < fleet->count; i++)
        kp_handle_free(fleet->proxies[i].handle);
    free(fleet->proxies);
    close(fleet->signals);
    close(fleet->loop);
}

/* ---- The command line ----------------------------------------------------------- */

static bool parse(int argc, char **argv, struct fleet *fleet, kp_spec *spec)
{
    int option;
    while ((option = getopt(argc, argv, "+n:d:t:G")) != -1)
        switch (option) {
        case 'n':
            fleet->count = strtoul(optarg, NULL, 10);
            break;
        case 'd':
            fleet->deadline_ms = strtol(optarg, NULL, 10);
            break;
        case 't':
            fleet->seconds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'G':
            spec->flags |= KP_SPEC_NO_GUARD;
            break;
        default:
            return false;
        }
    spec->argv = argv + optind;
    return argv[optind] != NULL;
}

int main(int argc, char **argv)
{
    struct fleet fleet = {.count = 1000, .deadline_ms = 5000};
    kp_spec spec = {.size = sizeof spec, .startup_timeout_ms = 60000};
    if (!parse(argc, argv, &fleet, &spec) || !open_fleet(&fleet)) {
        fprintf(stderr, "usage: thousand [-n COUNT] [-d DEADLINE_MS] [-t SECONDS] [-G] PROXY...\n");
        return 2;
    }
    raise_descriptor_limit();
    alarm(fleet.seconds);
    run(&fleet, &spec);
    bool went_well = sum_up(&fleet);
    close_fleet(&fleet);
    return went_well ? 0 : 1;
}
