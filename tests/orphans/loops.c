/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts that are killed at random moments, many of them, leave nobody behind: no proxy, no worker,
 * no guard, within the grace and a second of the last host's death. The same hosts without a guard
 * leave orphans, which shows that they would be seen.
 *
 * Each host arms a timer that sends it SIGKILL, so that the moment does not depend on when somebody
 * else runs. The moments are drawn from a seed, which is printed; KP_TEST_SEED sets it.
 */
#include "../mortal.h"
#include "../process.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MS = 250, LATE_MS = 1000, MAX_AT_ONCE = 6, MAX_HOSTS = 2000 };

/* ---- Moments ------------------------------------------------------------- */

static uint64_t seed;

/* splitmix64 */
static uint64_t draw(uint64_t below)
{
    uint64_t z = (seed += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (z ^ (z >> 31)) % below;
}

static void choose_seed(void)
{
    const char *wanted = getenv("KP_TEST_SEED");
    seed = wanted != NULL ? strtoull(wanted, NULL, 0) : (uint64_t)now_ms() * (uint64_t)getpid();
    printf("# KP_TEST_SEED=%#llx\n", (unsigned long long)seed);
}

/* SIGKILL to this process. */
static void die_in(uint64_t microseconds)
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(microseconds / 1000000),
                                           .tv_nsec = (long)(microseconds % 1000000 * 1000 + 1)}};
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &when, NULL) == 0);
}

/* ---- A host --------------------------------------------------------------- */

enum phase { NOT_BORN, IN_START, STARTING, READY, STOPPING, RESTARTING, FREEING, DONE, PHASES };

static const char *const names[PHASES] = {"not born", "in kp_start", "starting", "ready",
                                          "stopping", "restarting",  "freeing",  "done"};

/* The phase of each host, in a page that it shares with the test. */
static volatile unsigned char *phases;

struct doom {
    enum phase phase; /* in which the timer is armed */
    uint64_t after;   /* microseconds */
};

struct life {
    volatile unsigned char *phase;
    struct doom doom;
};

static void enter(const struct life *life, enum phase phase)
{
    *life->phase = (unsigned char)phase;
    if (phase == life->doom.phase)
        die_in(life->doom.after);
}

static void become_ready(kp_handle *proxy)
{
    CHECK(kp_handle_wait(proxy, KP_STATE_READY, -1, NULL) == KP_OK);
}

/* From its start to the end of its stop, with a restart in between. */
static _Noreturn void live(const struct life *life, const kp_spec *spec)
{
    kp_handle *proxy;
    alarm(60);
    enter(life, IN_START);
    CHECK(kp_start(spec, &proxy, NULL) == KP_OK);
    enter(life, STARTING);
    become_ready(proxy);
    enter(life, READY);
    sleep_ms(20);
    enter(life, STOPPING);
    CHECK(kp_handle_stop(proxy, -1) == KP_OK);
    CHECK(kp_handle_wait(proxy, KP_STATE_EXITED, -1, NULL) == KP_OK);
    enter(life, RESTARTING);
    CHECK(kp_handle_restart(proxy, NULL) == KP_OK);
    become_ready(proxy);
    enter(life, FREEING);
    kp_handle_free(proxy);
    enter(life, DONE);
    _exit(0);
}

/* ---- The loop ----------------------------------------------------------------- */

struct loop {
    const char *name;
    size_t hosts, at_once;
    kp_spec spec;
    struct doom (*doom)(void);
};

/* Rounds are for the orphans' sake: so many that there is memory for all of them. */
enum { ROUND = 500, TOTAL_S = 120 };

struct tally {
    size_t died_in[PHASES], left;
    int64_t took_ms, bound_ms; /* of the slowest round */
};

struct slot {
    pid_t pid;
    size_t number;
};

static void fork_host(const struct loop *loop, size_t number, struct slot *slot)
{
    struct life life = {&phases[number], loop->doom()};
    *life.phase = NOT_BORN;
    pid_t pid = fork();
    if (pid == 0)
        live(&life, &loop->spec);
    assert_true(pid > 0);
    *slot = (struct slot){pid, number};
}

/* Whom a host has left behind ends here too; it is nobody's slot. */
static struct slot *reap_host(struct slot slots[MAX_AT_ONCE])
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        assert_true(pid > 0);
        for (size_t i = 0; i < MAX_AT_ONCE; i++)
            if (slots[i].pid == pid) {
                bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
                assert_true(was_killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
                return &slots[i];
            }
    }
}

static void run_hosts(const struct loop *loop, size_t next, size_t end, struct tally *tally)
{
    struct slot slots[MAX_AT_ONCE] = {{0}};
    size_t running = 0;
    fflush(NULL);
    for (; running < loop->at_once && next < end; next++)
        fork_host(loop, next, &slots[running++]);
    while (running > 0) {
        struct slot *slot = reap_host(slots);
        tally->died_in[phases[slot->number]]++;
        slot->pid = 0;
        if (next < end)
            fork_host(loop, next++, slot);
        else
            running--;
    }
}

/* What the grace takes a shell that was started now, on this machine. */
static pid_t start_ruler(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        char script[32];
        snprintf(script, sizeof script, "sleep %d.%03d", GRACE_MS / 1000, GRACE_MS % 1000);
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

/* Nobody is left in time, or those that are left are counted and ended. */
static void await_everybody(struct tally *tally)
{
    int64_t start = now_ms(), took = 0, bound = PATIENCE_MS;
    pid_t reaped = 1, ruler = start_ruler();
    while (reaped >= 0 && took <= bound) {
        reaped = waitpid(-1, NULL, WNOHANG);
        took = now_ms() - start;
        if (reaped == ruler)
            bound = (took > GRACE_MS ? took : GRACE_MS) + LATE_MS;
        if (reaped == 0)
            sleep_ms(1);
    }
    tally->left += end_everybody();
    if (took > tally->took_ms) {
        tally->took_ms = took;
        tally->bound_ms = bound;
    }
}

static void print_tally(const struct loop *loop, const struct tally *tally)
{
    printf("# %s: %zu hosts; died", loop->name, loop->hosts);
    for (int phase = 0; phase < PHASES; phase++)
        if (tally->died_in[phase] != 0)
            printf(" %s %zu,", names[phase], tally->died_in[phase]);
    printf(" left %zu; the last had gone after %lld of %lld ms\n", tally->left,
           (long long)tally->took_ms, (long long)tally->bound_ms);
}

static struct tally play(const struct loop *loop)
{
    struct tally tally = {.left = 0};
    alarm(TOTAL_S);
    for (size_t next = 0; next < loop->hosts; next += ROUND) {
        size_t end = next + ROUND < loop->hosts ? next + ROUND : loop->hosts;
        run_hosts(loop, next, end, &tally);
        await_everybody(&tally);
    }
    print_tally(loop, &tally);
    return tally;
}

/* ---- The loops -------------------------------------------------------------------- */

enum { LIVES = 300, STARTS = 2000 };

static int dev_null;

static kp_spec quiet(char *const *argv, uint32_t flags)
{
    kp_spec spec = guarded(argv, GRACE_MS);
    spec.flags = flags;
    spec.log_fd = dev_null;
    return spec;
}

/* Each phase as often as any other, however short it is. */
static struct doom at_any_moment(void)
{
    static const struct doom longest[] = {
        {IN_START, 1500},   {STARTING, 6000},           {READY, 20000}, {STOPPING, GRACE_MS * 1000},
        {RESTARTING, 6000}, {FREEING, GRACE_MS * 1000},
    };
    struct doom doom = longest[draw(sizeof longest / sizeof *longest)];
    doom.after = draw(doom.after);
    return doom;
}

static struct doom at_the_start(void)
{
    return (struct doom){IN_START, draw(2500)};
}

/* A wrapper shell, a worker, and a proxy that ignores SIGTERM. */
static struct tally play_lives(const char *name, uint32_t flags)
{
    char *const *argv = SHELL("\"$0\" never & \"$0\" deaf & wait");
    struct loop loop = {name, LIVES, 6, quiet(argv, flags), at_any_moment};
    struct tally tally = play(&loop);
    for (int phase = IN_START; phase < DONE; phase++)
        assert_int_not_equal(tally.died_in[phase], 0);
    return tally;
}

static struct tally play_starts(const char *name, uint32_t flags)
{
    struct loop loop = {name, STARTS, 2, quiet(FIXTURE("deaf"), flags), at_the_start};
    struct tally tally = play(&loop);
    assert_int_not_equal(tally.died_in[IN_START], 0);
    assert_int_not_equal(tally.died_in[STARTING], 0);
    return tally;
}

static void killed_at_any_moment_they_leave_nobody(void **state)
{
    (void)state;
    assert_int_equal(play_lives(__func__, 0).left, 0);
}

static void killed_as_they_start_they_leave_nobody(void **state)
{
    (void)state;
    assert_int_equal(play_starts(__func__, 0).left, 0);
}

static void without_a_guard_they_leave_orphans(void **state)
{
    (void)state;
    assert_int_not_equal(play_lives(__func__, KP_SPEC_NO_GUARD).left, 0);
}

static void without_a_guard_they_leave_some_at_the_start_too(void **state)
{
    (void)state;
    assert_int_not_equal(play_starts(__func__, KP_SPEC_NO_GUARD).left, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MORTAL(killed_at_any_moment_they_leave_nobody),
        MORTAL(killed_as_they_start_they_leave_nobody),
        MORTAL(without_a_guard_they_leave_orphans),
        MORTAL(without_a_guard_they_leave_some_at_the_start_too),
    };
    choose_seed();
    dev_null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    phases = mmap(NULL, MAX_HOSTS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (dev_null < 0 || phases == MAP_FAILED)
        return EXIT_FAILURE;
    return RUN(tests);
}
