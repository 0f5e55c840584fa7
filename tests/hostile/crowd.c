/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proxies start by the hundred while others on the machine take the ports that the kernel
 * hands out: no start ends on a port that another process owns, and none fails but by an
 * impostor. The loop that everybody writes does both, in the same crowd.
 */
#include "../support.h"
#include "network.h"
#include "stranger.h"
#include "tally.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORTS = 2000, STARTS = 200, NAIVE_MIN = 40, NAIVE_MAX = 2000 };

/* The first of the ports that are handed out: each crowd has ports that none had before. */
static uint16_t low = 20000;

/* What the crowd does, for this process to see. */
static struct {
    _Atomic int64_t robbed_at[PORTS]; /* when an impostor was last about to listen there */
    _Atomic unsigned binds, connects, listens;
} * seen;

static void share_memory(void)
{
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seen == MAP_FAILED)
        abort();
}

static bool robbed_since(uint16_t port, int64_t since)
{
    return port >= low && port < low + PORTS && seen->robbed_at[port - low] >= since;
}

/* ---- Squatters ----------------------------------------------------------- */

enum { HELD = 100 };

/* The last few sockets that one of them took; an older one gives way. */
struct hoard {
    int fds[HELD];
    unsigned next;
};

static void keep(struct hoard *hoard, int fd)
{
    int *slot = &hoard->fds[hoard->next++ % HELD];
    if (*slot > 0)
        close(*slot);
    *slot = fd;
}

struct habit {
    const char *address;
    int options;
    bool any;      /* takes what the kernel hands out; else each port by its number */
    bool impostor; /* may get a port that is reserved */
};

/* An impostor's port is noted before anything can be seen of it. */
static int squat_on(const struct habit *habit, uint16_t port)
{
    int fd = bind_socket(habit->address, port, habit->options);
    if (fd < 0)
        return -1;
    seen->binds++;
    if (habit->impostor)
        seen->robbed_at[port - low] = now_ns();
    if (listen(fd, 16) == 0)
        seen->listens++;
    return fd;
}

/* A pause now and then leaves the processors to the proxies. */
static void squat(int channel, const void *data)
{
    static struct hoard hoard;
    const struct habit *habit = data;
    unsigned seed = (unsigned)getpid();
    (void)channel;
    for (unsigned turn = 1;; turn++) {
        uint16_t port = (uint16_t)(habit->any ? 0 : low + rand_r(&seed) % PORTS);
        int fd = squat_on(habit, port);
        if (fd >= 0)
            keep(&hoard, fd);
        if (turn % 16 == 0)
            usleep(200);
    }
}

/* ---- Neighbours ---------------------------------------------------------- */

static void connect_somewhere(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    connect(fd, (const struct sockaddr *)&address, sizeof address);
    seen->connects++;
    close_at_once(fd);
}

/* Asks the kernel for ports in every way there is, and keeps some of them. */
static void be_a_neighbour(int channel, const void *data)
{
    static struct hoard hoard;
    unsigned seed = (unsigned)getpid();
    (void)channel;
    (void)data;
    for (unsigned turn = 1;; turn++) {
        int fd = bind_socket(turn % 3 == 0 ? "0.0.0.0" : "127.0.0.1", 0,
                             turn % 2 == 0 ? BIND_PLAIN : BIND_REUSEADDR);
        seen->binds += fd >= 0;
        if (fd >= 0)
            keep(&hoard, fd);
        connect_somewhere((uint16_t)(low + rand_r(&seed) % PORTS));
        if (turn % 16 == 0)
            usleep(200);
    }
}

/* ---- Crowds -------------------------------------------------------------- */

struct crowd {
    const char *name;
    void (*body)(int, const void *);
    const struct habit *habits; /* of one member each; the last has no address */
};

static const struct habit careless[] = {{"127.0.0.1", BIND_PLAIN, false, false},
                                        {"0.0.0.0", BIND_PLAIN, false, false},
                                        {"127.0.0.1", BIND_REUSEADDR, true, false},
                                        {"0.0.0.0", BIND_PLAIN, true, false},
                                        {NULL, 0, false, false}};
static const struct habit ruthless[] = {{"127.0.0.1", BIND_REUSEADDR, false, true},
                                        {"0.0.0.0", BIND_REUSEADDR, false, true},
                                        {"127.0.0.1", BIND_PLAIN, false, false},
                                        {NULL, 0, false, false}};
static const struct habit harmless[] = {{"127.0.0.1", 0, true, false},
                                        {"127.0.0.1", 0, true, false},
                                        {"127.0.0.1", 0, true, false},
                                        {NULL, 0, false, false}};
static const struct crowd squatters = {"squatters", squat, careless};
static const struct crowd impostors = {"squatters with SO_REUSEADDR", squat, ruthless};
static const struct crowd neighbours = {"neighbours", be_a_neighbour, harmless};

static void gather(const struct crowd *crowd)
{
    memset(seen, 0, sizeof *seen);
    low = (uint16_t)(low + PORTS);
    assert_true(narrow_ports(low, (uint16_t)(low + PORTS - 1)));
    for (const struct habit *habit = crowd->habits; habit->address != NULL; habit++)
        assert_true(recruit(geteuid(), crowd->body, habit) >= 0);
}

/* Until the naive loop has met with it, or luck cannot be the reason. */
static struct tally naive_until(const struct crowd *crowd, bool (*met)(const struct tally *))
{
    struct tally naive = {0};
    while (!met(&naive) && naive.tried < NAIVE_MAX)
        tally_naive(&naive, NAIVE_MIN);
    tally_print(crowd->name, "a naive loop", &naive);
    return naive;
}

static bool met_another(const struct tally *tally)
{
    return tally->on_other > 0;
}

static bool met_a_loss(const struct tally *tally)
{
    return tally->lost > 0;
}

static void assert_all_right(const struct tally *tally)
{
    assert_int_equal(tally->on_other, 0);
    assert_int_equal(tally->on_nobody, 0);
    assert_int_equal(tally->lost, 0);
    assert_int_equal(tally->right + tally->robbed, tally->tried);
}

static struct tally start_in(const struct crowd *crowd, const kp_spec *spec,
                             bool (*robbed)(uint16_t, int64_t))
{
    struct tally tally = {0};
    bool reserves = (spec->flags & KP_SPEC_NO_RESERVE) == 0;
    tally_library(&tally, STARTS, spec, robbed);
    tally_print(crowd->name, reserves ? "libkp" : "libkp without reservation", &tally);
    return tally;
}

static void report_crowd(const struct crowd *crowd)
{
    printf("# %s: %u binds, %u listens, %u connects of theirs meanwhile\n", crowd->name,
           seen->binds, seen->listens, seen->connects);
}

/* ---- The tests ----------------------------------------------------------- */

static void squatters_take_every_port_but_ours(void **state)
{
    kp_spec spec = quiet_spec(FIXTURE("serve"));
    (void)state;
    gather(&squatters);
    struct tally tally = start_in(&squatters, &spec, NULL);
    struct tally naive = naive_until(&squatters, met_another);
    report_crowd(&squatters);
    assert_all_right(&tally);
    assert_true(naive.on_other > 0);
}

/* Then a start may lose its port, but it says so. */
static void squatters_are_never_taken_for_the_proxy(void **state)
{
    kp_spec spec = quiet_spec(FIXTURE("serve"));
    (void)state;
    spec.flags = KP_SPEC_NO_RESERVE;
    gather(&squatters);
    struct tally tally = start_in(&squatters, &spec, NULL);
    assert_int_equal(tally.on_other + tally.on_nobody, 0);
    assert_true(tally.right > 0);
}

/* The proxy takes its time, so that many of them come first. */
static void impostors_are_never_taken_for_the_proxy(void **state)
{
    kp_spec spec = quiet_spec(FIXTURE("late", "10"));
    (void)state;
    gather(&impostors);
    struct tally tally = start_in(&impostors, &spec, robbed_since);
    struct tally naive = naive_until(&impostors, met_another);
    report_crowd(&impostors);
    assert_all_right(&tally);
    assert_true(tally.right > 0 && naive.on_other > 0);
}

static void neighbours_do_not_get_our_ports(void **state)
{
    kp_spec spec = quiet_spec(FIXTURE("serve"));
    (void)state;
    gather(&neighbours);
    struct tally tally = start_in(&neighbours, &spec, NULL);
    struct tally naive = naive_until(&neighbours, met_a_loss);
    report_crowd(&neighbours);
    assert_all_right(&tally);
    assert_true(naive.lost > 0);
    assert_true(seen->binds > 10000 && seen->connects > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE(squatters_take_every_port_but_ours),
        HOSTILE(squatters_are_never_taken_for_the_proxy),
        HOSTILE(impostors_are_never_taken_for_the_proxy),
        HOSTILE(neighbours_do_not_get_our_ports),
    };
    if (!own_network() || !narrow_ports(low, (uint16_t)(low + PORTS - 1)))
        return leave_out_all("no network of its own to play in");
    share_memory();
    quiet_spec(NULL);
    return RUN(tests);
}
