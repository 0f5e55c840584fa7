/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine on the simulated platform: what can be said exactly only where time
 * and processes do as they are told. */
#include "mistakes.h"
#include "sim.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* ---- Programs ------------------------------------------------------------- */

/* Longer than any test. */
#define FOR_EVER (1000 * SIM_S)

static const struct sim_program serve = {.name = "serve", .listens_after = 400 * SIM_US};
static const struct sim_program late = {.name = "late", .listens_after = 700 * SIM_MS};
static const struct sim_program never = {.name = "never"};
static const struct sim_program deaf = {.name = "deaf", .listens_after = 400 * SIM_US, .deaf = 1};
static const struct sim_program briefly = {.name = "briefly", .exits_after = SIM_MS};
static const struct sim_program for_ever = {.name = "for ever"};
static const struct sim_program fails = {
    .name = "fails", .exits_after = 40 * SIM_MS, .exit_code = 7};
static const struct sim_program ends = {.name = "ends",
                                        .listens_after = 400 * SIM_US,
                                        .exits_after = 3 * SIM_S,
                                        .exit_signal = SIGSEGV};
static const struct sim_program mute = {
    .name = "mute", .listens_after = 400 * SIM_US, .answers_after = FOR_EVER};
static const struct sim_program slow_to_answer = {
    .name = "slow to answer", .listens_after = 100 * SIM_MS, .answers_after = 400 * SIM_MS};
static const struct sim_program plain = {
    .name = "plain", .listens_after = 400 * SIM_US, .plain = 1};
static const struct sim_program missing = {.name = "missing", .spawn_errno = ENOENT};
static const struct sim_program stuck = {
    .name = "stuck", .listens_after = 400 * SIM_US, .stuck = 1, .deaf = 1};
static const struct sim_program stopped = {.name = "stopped", .stops_after = 10 * SIM_MS};
static const struct sim_program leaver = {
    .name = "leaver", .listens_after = 400 * SIM_US, .leaves_after = 100 * SIM_US};

static const struct sim_program slow = {.name = "slow", .obeys_after = 900 * SIM_MS};
static const struct sim_program deaf_child = {.name = "deaf child", .deaf = 1};
static const struct sim_program stuck_child = {.name = "stuck child", .deaf = 1, .stuck = 1};
static const struct sim_program wrapper = {
    .name = "wrapper", .listens_after = 400 * SIM_US, .child = &slow, .children = 2};
static const struct sim_program farm = {
    .name = "farm", .listens_after = 400 * SIM_US, .child = &slow, .children = 50};
static const struct sim_program deaf_wrapper = {
    .name = "deaf wrapper", .listens_after = 400 * SIM_US, .child = &deaf_child, .children = 2};
static const struct sim_program stuck_wrapper = {
    .name = "stuck wrapper", .listens_after = 400 * SIM_US, .child = &stuck_child, .children = 1};
static const struct sim_program gone = {
    .name = "gone", .exits_after = 40 * SIM_MS, .child = &deaf_child, .children = 20};
static const struct sim_program above_the_stuck = {
    .name = "above the stuck", .deaf = 1, .child = &stuck_child, .children = 1};
static const struct sim_program stuck_below = {
    .name = "stuck below", .listens_after = 400 * SIM_US, .child = &above_the_stuck, .children = 1};

static const struct sim_program *const programs[] = {
    &serve,   &late, &never,        &deaf,          &briefly,        &for_ever,    &fails,
    &ends,    &mute, &plain,        &missing,       &stuck,          &stopped,     &leaver,
    &wrapper, &farm, &deaf_wrapper, &stuck_wrapper, &slow_to_answer, &stuck_below, &gone,
};

/* ---- Scenes ----------------------------------------------------------------- */

static kp_handle *proxy;
static kp_error failure;

static void begin(uint64_t seed, unsigned quirks)
{
    sim_begin(seed, quirks);
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        sim_teach(programs[i]);
}

static int open_scene(void **state)
{
    (void)state;
    begin(0, 0);
    proxy = NULL;
    return 0;
}

static void end(void)
{
    kp_handle_free(proxy);
    proxy = NULL;
    assert_string_equal(sim_left(), "");
}

static int close_scene(void **state)
{
    (void)state;
    end();
    return 0;
}

static char *arguments[2];

static kp_spec spec_for(const char *name)
{
    static char program[32];
    snprintf(program, sizeof program, "%s", name);
    arguments[0] = program;
    kp_spec spec = {.size = sizeof spec, .argv = arguments};
    return spec;
}

static void assert_result(kp_result expected, kp_result got)
{
    assert_string_equal(kp_result_name(expected), kp_result_name(got));
}

static void start(kp_spec spec)
{
    assert_result(KP_OK, kp_start(&spec, &proxy, &failure));
}

static void get_ready(const char *name)
{
    start(spec_for(name));
    assert_result(KP_OK, kp_handle_wait(proxy, KP_STATE_READY, -1, &failure));
}

static kp_result wait_for(kp_state until)
{
    return kp_handle_wait(proxy, until, -1, &failure);
}

static void assert_between(int64_t least, int64_t most, int64_t got)
{
    if (got < least || got > most)
        fail_msg("%lld is not between %lld and %lld", (long long)got, (long long)least,
                 (long long)most);
}

/* What it takes beyond a moment until something is noticed, in microseconds. */
#define SOON (100 * SIM_US)

/* The documented schedule of looking by the clock. */
static int64_t pause_after(int64_t waited)
{
    int64_t pause = waited / 64;
    return pause < 20 * SIM_US ? 20 * SIM_US : pause > 10 * SIM_MS ? 10 * SIM_MS : pause;
}

static const unsigned systems[] = {SIM_SYSTEMS};
enum { SYSTEMS = sizeof systems / sizeof *systems };

/* valgrind would take half an hour. */
static uint64_t seeds(void)
{
    return getenv("KP_TEST_VALGRIND") == NULL ? 5 : 1;
}

/* Runs a test in a new world on each system, and with several seeds. */
static void on_each_system(void (*test)(void))
{
    for (size_t i = 0; i < SYSTEMS; i++)
        for (uint64_t seed = 0; seed < seeds(); seed++) {
            begin(seed, systems[i]);
            test();
            end();
        }
}

/* ---- Starting ----------------------------------------------------------------- */

static void a_proxy_that_never_binds_times_out(void **state)
{
    (void)state;
    start(spec_for("never"));
    int64_t begun = sim_now();
    assert_result(KP_ERR_TIMED_OUT, wait_for(KP_STATE_READY));
    assert_int_equal(sim_now() - begun, 5 * SIM_S);
    assert_int_equal(failure.code, KP_ERR_TIMED_OUT);
    assert_non_null(strstr(failure.message, "timed out after 5.0 s"));
    assert_int_equal(kp_handle_state(proxy), KP_STATE_STOPPING);
    assert_int_equal(sim_told(kp_handle_pid(proxy), SIGTERM), sim_now());
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_told(kp_handle_pid(proxy), SIGKILL), -1);
    assert_between(0, SOON, sim_now() - begun - 5 * SIM_S);
}

static void a_spawn_ends_at_the_latest(void **state)
{
    (void)state;
    static const struct sim_program worst = {.name = "worst", .deaf = 1, .stuck = 1};
    sim_teach(&worst);
    kp_spec spec = spec_for("worst");
    int64_t begun = sim_now();
    assert_result(KP_ERR_TIMED_OUT, kp_spawn(&spec, &proxy, &failure));
    assert_null(proxy);
    assert_int_equal(sim_now() - begun, 8 * SIM_S);
}

static long scheduled_probes(int64_t until)
{
    long probes = 1;
    for (int64_t at = 0; at < until; at += pause_after(at))
        probes++;
    return probes;
}

static void the_schedule_bounds_the_probes(void **state)
{
    (void)state;
    start(spec_for("never"));
    assert_result(KP_ERR_TIMED_OUT, wait_for(KP_STATE_READY));
    long expected = scheduled_probes(5 * SIM_S);
    assert_between(expected - 2, expected + 2, sim_counted().probes);
    assert_between(0, 10 * expected, sim_counted().calls);
}

static void assert_found_soon(int64_t after)
{
    struct sim_program program = {.name = "some time", .listens_after = after};
    begin(0, 0);
    sim_teach(&program);
    int64_t begun = sim_now();
    get_ready("some time");
    assert_between(0, after / 64 + 20 * SIM_US, sim_now() - begun - after);
    assert_between(0, 10 * SIM_MS, sim_now() - begun - after);
    end();
}

static void a_late_proxy_is_found_soon(void **state)
{
    (void)state;
    /* Times that are no round numbers, so that none meets the schedule by luck. */
    for (int64_t after = 7; after < 4900 * SIM_MS; after += after / 37 + 1013)
        assert_found_soon(after);
}

/* By new connections too: the kernel repeats the first one after a second only. */
static void a_pending_probe_is_found_by_the_schedule(void **state)
{
    (void)state;
    int64_t begun = sim_now();
    get_ready("slow to answer");
    assert_int_equal(sim_now() - begun, 500 * SIM_MS);
    /* One to look at what is pending, and one that is new. */
    long most = 2 * scheduled_probes(500 * SIM_MS);
    assert_between(most / 2, most, sim_counted().probes);
}

static void a_connection_that_is_never_accepted(void **state)
{
    (void)state;
    int64_t begun = sim_now();
    start(spec_for("mute"));
    assert_result(KP_ERR_TIMED_OUT, wait_for(KP_STATE_READY));
    assert_non_null(strstr(failure.message, "connection unanswered"));
    assert_int_equal(sim_now() - begun, 5 * SIM_S);
}

static void an_address_out_of_reach_is_told_soon(void **state)
{
    (void)state;
    int64_t begun = sim_now();
    sim_cut_off(ENETUNREACH, FOR_EVER);
    start(spec_for("serve"));
    assert_result(KP_ERR_SYSTEM, wait_for(KP_STATE_READY));
    assert_int_equal(failure.sys_errno, ENETUNREACH);
    assert_between(200 * SIM_MS, 204 * SIM_MS, sim_now() - begun);
}

/* A namespace that is being made; and one that goes and comes. */
static void an_address_may_be_out_of_reach_for_a_moment(void **state)
{
    (void)state;
    start(spec_for("late"));
    for (int i = 0; i < 3; i++) {
        sim_cut_off(ENETUNREACH, sim_now() + 190 * SIM_MS);
        assert_result(KP_AGAIN, kp_handle_wait(proxy, KP_STATE_READY, 200, &failure));
    }
    assert_result(KP_OK, wait_for(KP_STATE_READY));
}

static void an_exit_is_told_at_once(void **state)
{
    (void)state;
    int64_t begun = sim_now();
    start(spec_for("fails"));
    assert_result(KP_ERR_EXITED, wait_for(KP_STATE_READY));
    assert_int_equal(sim_now() - begun, 40 * SIM_MS);
    assert_int_equal(failure.exit_code, 7);
    assert_non_null(strstr(failure.message, "exited with status 7 after 40 ms"));
}

static void the_reservation_is_in_the_way_of_a_plain_bind(void **state)
{
    (void)state;
    start(spec_for("plain"));
    assert_result(KP_ERR_EXITED, wait_for(KP_STATE_READY));
    assert_non_null(strstr(failure.message, "KP_SPEC_NO_RESERVE"));
    end();
    kp_spec spec = spec_for("plain");
    spec.flags = KP_SPEC_NO_RESERVE;
    start(spec);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
}

static void is_not_executed(void)
{
    static const struct sim_program forbidden = {.name = "forbidden", .spawn_errno = EPERM};
    sim_teach(&forbidden);
    kp_spec spec = spec_for("missing");
    assert_result(KP_ERR_SPAWN, kp_start(&spec, &proxy, &failure));
    assert_int_equal(failure.sys_errno, ENOENT);
    spec = spec_for("forbidden"); /* as joining a group that is gone would be */
    assert_result(KP_ERR_SPAWN, kp_start(&spec, &proxy, &failure));
    assert_int_equal(failure.sys_errno, EPERM);
}

static void what_is_being_written_is_tried_for_20_ms(void **state)
{
    (void)state;
    static const struct sim_program busy = {.name = "busy", .spawn_errno = ETXTBSY};
    sim_teach(&busy);
    kp_spec spec = spec_for("busy");
    int64_t begun = sim_now();
    assert_result(KP_ERR_SPAWN, kp_start(&spec, &proxy, &failure));
    assert_int_equal(failure.sys_errno, ETXTBSY);
    assert_between(20 * SIM_MS, 21 * SIM_MS, sim_now() - begun);
}

static void what_was_being_written_is_started(void **state)
{
    (void)state;
    struct sim_program busy = {.name = "busy",
                               .spawn_errno = ETXTBSY,
                               .executable_at = sim_now() + 5 * SIM_MS,
                               .listens_after = SIM_MS};
    sim_teach(&busy);
    start(spec_for("busy"));
    assert_between(busy.executable_at, busy.executable_at + 5 * SIM_MS, sim_now());
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    end();
    begin(0, 0);
}

static void a_failed_start_leaves_nothing(void **state)
{
    (void)state;
    on_each_system(is_not_executed);

    static const struct sim_program no_shell = {.name = "/bin/sh", .spawn_errno = EACCES};
    begin(0, 0);
    sim_teach(&no_shell);
    kp_spec spec = spec_for("serve");
    assert_result(KP_ERR_GUARD, kp_start(&spec, &proxy, &failure));
    assert_string_equal(sim_left(), "");

    sim_occupy(8080, 0);
    spec.port = 8080;
    assert_result(KP_ERR_PORT_IN_USE, kp_start(&spec, &proxy, &failure));
    assert_int_equal(sim_counted().spawns, 0);
}

/* ---- The guard ------------------------------------------------------------------ */

static void the_guard_comes_first(void **state)
{
    (void)state;
    kp_spec spec = spec_for("serve");
    spec.stop_grace_ms = 61234;
    start(spec);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    pid_t guard = sim_pid(0);
    assert_int_equal(sim_counted().spawns, 2);
    assert_int_equal(sim_pid(1), kp_handle_pid(proxy));
    assert_int_equal(sim_group(guard), guard);
    assert_int_equal(sim_group(kp_handle_pid(proxy)), guard);
    assert_int_equal(sim_grace(guard), 61234 * SIM_MS);
    assert_int_equal(sim_nice(guard), 1);
    assert_int_equal(sim_nice(kp_handle_pid(proxy)), 0);
}

static void a_guard_that_ends_while_the_proxy_starts(void **state)
{
    (void)state;
    start(spec_for("late"));
    sim_run(100 * SIM_MS);
    sim_kill(sim_pid(0), SIGKILL);
    int64_t killed = sim_now();
    assert_result(KP_ERR_GUARD, wait_for(KP_STATE_READY));
    assert_between(0, SOON, sim_now() - killed);
}

static void a_guard_that_ends_later_harms_nothing(void **state)
{
    (void)state;
    get_ready("serve");
    sim_kill(sim_pid(0), SIGKILL);
    assert_result(KP_AGAIN, kp_handle_wait(proxy, KP_STATE_EXITED, 1000, &failure));
    assert_int_equal(kp_handle_state(proxy), KP_STATE_READY);
}

/* A host's whole life, with a restart. */
static void live(const char *program, uint64_t seed, unsigned quirks)
{
    begin(seed, quirks);
    sim_kill_host_everywhere();
    start(spec_for(program));
    kp_handle_fd(proxy);
    if (wait_for(KP_STATE_READY) == KP_OK)
        kp_handle_wait(proxy, KP_STATE_EXITED, 300, &failure);
    kp_handle_stop(proxy, -1);
    wait_for(KP_STATE_EXITED);
    kp_handle_restart(proxy, &failure);
    kp_handle_stop(proxy, 700);
    end();
}

static void nothing_outlives_a_killed_host(void **state)
{
    (void)state;
    static const char *const names[] = {"serve", "wrapper", "deaf wrapper",
                                        "fails", "stopped", "gone"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t j = 0; j < SYSTEMS; j++)
            for (uint64_t seed = 0; seed < seeds(); seed++)
                live(names[i], seed, systems[j]);
}

/* ---- Stopping --------------------------------------------------------------------- */

static void a_prompt_proxy_is_not_waited_for(uint32_t flags)
{
    kp_spec spec = spec_for("serve");
    spec.flags = flags;
    start(spec);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    int64_t begun = sim_now();
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_between(0, 50 * SIM_MS, sim_now() - begun);
}

static void with_a_guard_nobody_waits_for_the_prompt(void)
{
    a_prompt_proxy_is_not_waited_for(0);
}

static void without_one_nobody_waits_for_the_prompt(void)
{
    a_prompt_proxy_is_not_waited_for(KP_SPEC_NO_GUARD);
}

static void a_deaf_proxy_is_killed_exactly_at_the_grace(void)
{
    get_ready("deaf");
    pid_t pid = kp_handle_pid(proxy);
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    int64_t begun = sim_now();
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_told(pid, SIGTERM), begun);
    assert_int_equal(sim_told(pid, SIGKILL), begun + 2 * SIM_S);
}

static void a_proxy_without_children_needs_no_search(void **state)
{
    (void)state;
    get_ready("serve");
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_between(0, 2 * SOON, sim_now() - begun);
    assert_int_equal(sim_counted().searches, 0);
}

/* When SIGKILL comes, counted from the first of two stops that are a second apart. */
static void assert_kill(int first_ms, int second_ms, int64_t expected)
{
    begin(0, 0);
    get_ready("deaf");
    pid_t pid = kp_handle_pid(proxy);
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, first_ms));
    assert_result(KP_AGAIN, kp_handle_wait(proxy, KP_STATE_EXITED, 1000, &failure));
    assert_result(KP_OK, kp_handle_stop(proxy, second_ms));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_told(pid, SIGKILL) - begun, expected);
    end();
}

static void a_second_stop_only_brings_the_kill_nearer(void **state)
{
    (void)state;
    assert_kill(3000, 500, 1500 * SIM_MS);
    assert_kill(3000, 0, 1000 * SIM_MS);
    assert_kill(3000, 2500, 3000 * SIM_MS);
    assert_kill(3000, -1, 3000 * SIM_MS);
    assert_kill(1500, 60000, 1500 * SIM_MS);
}

/* The wrapper obeys at once, its children take 0.9 s. */
static void a_wrapper_that_leaves_first_costs_nothing(void)
{
    get_ready("wrapper");
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    for (size_t i = 2; i < 4; i++) {
        assert_int_equal(sim_told(sim_pid(i), SIGTERM), begun);
        assert_false(sim_lives(sim_pid(i)));
        /* A search that can't be made ends with the grace. */
        int64_t kill = sim_told(sim_pid(i), SIGKILL);
        assert_true(kill == -1 || kill >= begun + 2 * SIM_S);
    }
}

static void an_exit_takes_the_children_along(void)
{
    start(spec_for("gone"));
    assert_result(KP_ERR_EXITED, wait_for(KP_STATE_READY));
    int64_t begun = sim_now();
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_told(sim_pid(2), SIGKILL), begun + 2 * SIM_S);
}

static void more_members_than_are_watched_at_once(void **state)
{
    (void)state;
    get_ready("farm");
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_living(), 0);
    assert_between(900 * SIM_MS, 900 * SIM_MS + 5 * SOON, sim_now() - begun);
}

/* By a terminal, say, while its proxy runs on; until the end of what is done in `calls` calls. */
static void a_host_may_be_stopped_at_any_moment(void **state)
{
    (void)state;
    static const char *const names[] = {"deaf", "deaf wrapper"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (long calls = 1, all = 2; calls < all; calls++) {
            begin(0, 0);
            get_ready(names[i]);
            long before = sim_counted().calls;
            sim_stop_host(calls, 4 * SIM_S);
            assert_result(KP_OK, kp_handle_stop(proxy, 50));
            assert_result(KP_OK, wait_for(KP_STATE_EXITED));
            end();
            all = sim_counted().calls - before;
        }
}

/* The nth process is the one that is told of. */
static void assert_given_up(const char *program, size_t nth)
{
    char words[48];
    begin(0, 0);
    get_ready(program);
    snprintf(words, sizeof words, "process %d of", sim_pid(nth));
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_ERR_SYSTEM, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_now() - begun, 3 * SIM_S);
    assert_non_null(strstr(failure.message, words));
    assert_int_equal(kp_handle_state(proxy), KP_STATE_EXITED);
    assert_result(KP_OK, kp_handle_step(proxy, &failure)); /* told once */
    if (nth == 1) /* the proxy itself: it still has the port */
        assert_result(KP_ERR_SYSTEM, kp_handle_restart(proxy, &failure));
    end();
}

static void what_can_not_be_killed_is_given_up(void **state)
{
    (void)state;
    assert_given_up("stuck", 1);
    assert_given_up("stuck wrapper", 2);
    assert_given_up("stuck below", 3); /* not its parent, which could be killed */
}

static void a_stopped_proxy_is_continued(void)
{
    start(spec_for("stopped"));
    assert_result(KP_ERR_TIMED_OUT, wait_for(KP_STATE_READY));
    int64_t begun = sim_now();
    pid_t pid = kp_handle_pid(proxy);
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_told(pid, SIGCONT), begun);
    assert_true(sim_told(pid, SIGKILL) == -1 || sim_told(pid, SIGKILL) == begun + 2 * SIM_S);
}

static void a_proxy_that_left_its_group_is_stopped(void)
{
    get_ready("leaver");
    assert_int_equal(sim_group(kp_handle_pid(proxy)), kp_handle_pid(proxy));
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_living(), 0);
}

static void without_a_guard_the_proxy_leads(void)
{
    kp_spec spec = spec_for("deaf wrapper");
    spec.flags = KP_SPEC_NO_GUARD;
    start(spec);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    assert_int_equal(sim_counted().spawns, 3);
    assert_int_equal(sim_group(kp_handle_pid(proxy)), kp_handle_pid(proxy));
    assert_result(KP_OK, kp_handle_stop(proxy, 0));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
}

#define ON_EACH_SYSTEM(name)                                                                       \
    static void name##_everywhere(void **state)                                                    \
    {                                                                                              \
        (void)state;                                                                               \
        on_each_system(name);                                                                      \
    }
ON_EACH_SYSTEM(with_a_guard_nobody_waits_for_the_prompt)
ON_EACH_SYSTEM(without_one_nobody_waits_for_the_prompt)
ON_EACH_SYSTEM(a_deaf_proxy_is_killed_exactly_at_the_grace)
ON_EACH_SYSTEM(a_wrapper_that_leaves_first_costs_nothing)
ON_EACH_SYSTEM(an_exit_takes_the_children_along)
ON_EACH_SYSTEM(a_stopped_proxy_is_continued)
ON_EACH_SYSTEM(a_proxy_that_left_its_group_is_stopped)
ON_EACH_SYSTEM(without_a_guard_the_proxy_leads)

/* ---- The port ------------------------------------------------------------------------ */

static void the_port_is_shut_between_lives(void **state)
{
    (void)state;
    get_ready("ends");
    uint16_t port = kp_handle_port(proxy);
    pid_t pid = kp_handle_pid(proxy);
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_false(sim_can_bind(port));
    assert_result(KP_OK, kp_handle_restart(proxy, &failure));
    assert_true(sim_can_bind(port));
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    assert_int_equal(kp_handle_port(proxy), port);
    assert_int_not_equal(kp_handle_pid(proxy), pid);
    end();
    assert_true(sim_can_bind(port));
}

/* ---- Whose the listener is -------------------------------------------------------------- */

/* Taken by somebody who can't be seen, once the proxy is started. */
static void start_beside_a_stranger(const char *name, uint32_t flags)
{
    kp_spec spec = spec_for(name);
    spec.flags = flags;
    start(spec);
    sim_occupy(kp_handle_port(proxy), 1000);
}

static void a_strangers_listener_is_refused(void **state)
{
    (void)state;
    start_beside_a_stranger("never", 0);
    int64_t begun = sim_now();
    assert_result(KP_ERR_FOREIGN_LISTENER, wait_for(KP_STATE_READY));
    /* Doubted for 200 ms, and then at the next probe. */
    assert_between(200 * SIM_MS, 205 * SIM_MS, sim_now() - begun);
    assert_non_null(strstr(failure.message, "a process of uid 1000 listens there"));
}

static void doubt_ends_with_the_time(void **state)
{
    (void)state;
    kp_spec spec = spec_for("never");
    spec.startup_timeout_ms = 50;
    start(spec);
    sim_occupy(kp_handle_port(proxy), 1000);
    int64_t begun = sim_now();
    assert_result(KP_ERR_FOREIGN_LISTENER, wait_for(KP_STATE_READY));
    assert_int_equal(sim_now() - begun, 50 * SIM_MS);
}

static void a_stranger_beside_the_proxy_is_refused(void **state)
{
    (void)state;
    start(spec_for("serve"));
    sim_run(SIM_MS);
    sim_occupy(kp_handle_port(proxy), 1000);
    assert_result(KP_ERR_FOREIGN_LISTENER, wait_for(KP_STATE_READY));
}

static void any_listener_is_accepted(void **state)
{
    (void)state;
    start_beside_a_stranger("never", KP_SPEC_ANY_LISTENER);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
}

/* Who can't be seen may be the host's own (0), or of the user whom the proxy has become. */
static const struct sim_program somebodys = {
    .name = "somebody's", .listens_after = 400 * SIM_US, .uid = 1000};
static const struct sim_program somebodys_never = {.name = "somebody's never", .uid = 1000};
static const struct sim_program hidden_somebodys = {
    .name = "hidden", .listens_after = SIM_MS, .hidden = 1, .uid = 1000};

static void the_user_speaks_for_who_can_not_be_seen(void **state)
{
    (void)state;
    static const struct {
        const struct sim_program *program;
        unsigned quirks;
        unsigned stranger; /* 1: there is none */
    } accepted[] = {
        {&serve, SIM_NO_PROC, 1},    {&somebodys, SIM_NO_PROC, 1},
        {&hidden_somebodys, 0, 1},   {&never, SIM_NO_PROC, 0},
        {&never, SIM_NO_DIAG, 1000}, {&somebodys_never, SIM_NO_PROC, 1000},
    };
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        begin(0, accepted[i].quirks);
        sim_teach(accepted[i].program);
        start(spec_for(accepted[i].program->name));
        if (accepted[i].stranger != 1)
            sim_occupy(kp_handle_port(proxy), accepted[i].stranger);
        assert_result(KP_OK, wait_for(KP_STATE_READY));
        end();
    }
}

/* It listens before the proxy, beside it, or instead of it. */
static void nobody_speaks_for_another_user(void **state)
{
    (void)state;
    static const char *const names[] = {"serve", "never", "late"};
    static const int64_t whens[] = {0, 700 * SIM_US, 300 * SIM_MS};
    for (size_t i = 0; i < 9; i++) {
        begin(0, SIM_NO_PROC);
        start(spec_for(names[i / 3]));
        sim_run(whens[i % 3]);
        sim_occupy(kp_handle_port(proxy), 1000);
        bool is_kept_out = i == 0; /* the proxy finds its address in use */
        assert_result(is_kept_out ? KP_ERR_EXITED : KP_ERR_FOREIGN_LISTENER,
                      wait_for(KP_STATE_READY));
        assert_non_null(strstr(failure.message, "a process of uid 1000 listens there"));
        assert_int_equal(strstr(failure.message, "KP_SPEC_ANY_LISTENER accepts it") == NULL,
                         is_kept_out);
        end();
    }
}

static void who_is_told_nothing_is_not_ready(void **state)
{
    (void)state;
    begin(0, SIM_DIAG_REFUSED);
    int64_t begun = sim_now();
    start(spec_for("serve"));
    assert_result(KP_ERR_FOREIGN_LISTENER, wait_for(KP_STATE_READY));
    assert_between(0, SIM_MS, sim_now() - begun);
    assert_non_null(strstr(failure.message, "KP_SPEC_ANY_LISTENER accepts it"));
    end();
    begin(0, SIM_DIAG_REFUSED);
    kp_spec spec = spec_for("serve");
    spec.flags = KP_SPEC_ANY_LISTENER;
    start(spec);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
}

static void what_can_not_be_looked_at_is_refused(void **state)
{
    (void)state;
    begin(0, SIM_SHORT);
    start(spec_for("serve"));
    assert_result(KP_ERR_SYSTEM, wait_for(KP_STATE_READY));
    assert_int_equal(failure.sys_errno, EMFILE);
    assert_int_equal(kp_handle_state(proxy), KP_STATE_STOPPING);
}

static void a_listener_that_closes_again_is_waited_for(void **state)
{
    (void)state;
    static const struct sim_program blinks = {
        .name = "blinks", .listens_after = SIM_MS, .blinks_for = 300 * SIM_MS};
    sim_teach(&blinks);
    int64_t begun = sim_now();
    get_ready("blinks");
    assert_between(301 * SIM_MS, 307 * SIM_MS, sim_now() - begun);
}

static void a_listener_that_is_never_seen(void **state)
{
    (void)state;
    static const struct sim_program unlisted = {
        .name = "unlisted", .listens_after = SIM_MS, .unlisted = 1};
    sim_teach(&unlisted);
    start(spec_for("unlisted"));
    assert_result(KP_ERR_TIMED_OUT, wait_for(KP_STATE_READY));
    assert_non_null(strstr(failure.message, "no listener is to be seen"));
    end();
    kp_spec spec = spec_for("unlisted");
    spec.flags = KP_SPEC_ANY_LISTENER;
    start(spec);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
}

static void an_exit_between_probe_and_ready_is_an_exit(void **state)
{
    (void)state;
    static const struct sim_program dies = {
        .name = "dies", .listens_after = SIM_MS, .dies_when_probed = 1};
    sim_teach(&dies);
    kp_spec spec = spec_for("dies");
    spec.flags = KP_SPEC_ANY_LISTENER; /* whose listener it was does not matter */
    start(spec);
    assert_result(KP_ERR_EXITED, wait_for(KP_STATE_READY));
    assert_int_equal(failure.exit_code, 9);
    assert_non_null(strstr(failure.message, "did not bind"));
}

static void a_guard_that_ends_between_probe_and_ready(void **state)
{
    (void)state;
    static const struct sim_program unguarded = {
        .name = "unguarded", .listens_after = SIM_MS, .loses_guard_when_probed = 1};
    sim_teach(&unguarded);
    start(spec_for("unguarded"));
    assert_result(KP_ERR_GUARD, wait_for(KP_STATE_READY));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
}

/* The port is free from the spawn on, and each probe comes from elsewhere. */
static void where_nobody_can_bind_beside_a_reservation(void **state)
{
    (void)state;
    begin(0, SIM_NO_SHARE);
    get_ready("late");
    assert_int_equal(sim_counted().descriptors, 3); /* two ends and the guard's pipe */
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_result(KP_OK, kp_handle_restart(proxy, &failure));
    assert_result(KP_OK, wait_for(KP_STATE_READY));
}

static void a_probe_that_meets_itself_is_refused(void **state)
{
    (void)state;
    begin(0, SIM_NO_SHARE | SIM_MEETS_ITSELF | SIM_NO_DIAG); /* no verification helps */
    int64_t begun = sim_now();
    get_ready("late");
    assert_between(700 * SIM_MS, 711 * SIM_MS, sim_now() - begun);
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
}

/* ---- The owner that has left the group ------------------------------------------------------ */

static const struct sim_program left_owner = {.name = "left owner",
                                              .leaves_after = 100 * SIM_US,
                                              .listens_after = 400 * SIM_US,
                                              .obeys_after = 300 * SIM_MS};
static const struct sim_program waits = {
    .name = "waits", .obeys_after = 50 * SIM_MS, .child = &left_owner, .children = 1};
static const struct sim_program deaf_left_owner = {.name = "deaf left owner",
                                                   .leaves_after = 100 * SIM_US,
                                                   .listens_after = 400 * SIM_US,
                                                   .deaf = 1};
static const struct sim_program waits_for_the_deaf = {
    .name = "waits for the deaf", .child = &deaf_left_owner, .children = 1};

/* Without a pidfd nothing could be told from a stranger who took its number. */
static void it_comes_after_the_group(void)
{
    sim_teach(&waits);
    get_ready("waits");
    pid_t owner = sim_pid(2);
    assert_int_not_equal(sim_group(owner), sim_group(kp_handle_pid(proxy)));
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_lives(owner), 0);
    assert_between(50 * SIM_MS, 70 * SIM_MS, sim_told(owner, SIGTERM) - begun);
    assert_int_equal(sim_told(owner, SIGKILL), -1);
    assert_between(350 * SIM_MS, 400 * SIM_MS, sim_now() - begun);
}

static void the_owner_of_the_listener_is_stopped_with_it(void **state)
{
    (void)state;
    static const unsigned with_pidfd[] = {0, SIM_SLOW_INIT, SIM_LOW_HOST, SIM_NO_GROUP_SIGNAL,
                                          SIM_HOST_REAPS};
    for (size_t i = 0; i < sizeof with_pidfd / sizeof *with_pidfd; i++) {
        begin(0, with_pidfd[i]);
        it_comes_after_the_group();
        end();
    }
}

static void a_deaf_owner_is_killed_at_the_grace(void **state)
{
    (void)state;
    sim_teach(&waits_for_the_deaf);
    get_ready("waits for the deaf");
    pid_t owner = sim_pid(2);
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, 700));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_int_equal(sim_lives(owner), 0);
    assert_int_equal(sim_told(owner, SIGKILL) - begun, 700 * SIM_MS);
}

static const struct sim_program prompt_child = {.name = "prompt child"};
static const struct sim_program parent_of_a_zombie = {.name = "parent of a zombie",
                                                      .leaves_after = 100 * SIM_US,
                                                      .listens_after = 400 * SIM_US,
                                                      .obeys_after = 300 * SIM_MS,
                                                      .child = &prompt_child,
                                                      .children = 1};
static const struct sim_program wraps_it = {
    .name = "wraps it", .child = &parent_of_a_zombie, .children = 1};

/* Its child stays a zombie of the proxy's group until init reaps it. By the number alone that
 * can't be told from a living member, but the search has told it before. */
static void a_zombie_in_the_group_is_not_waited_for(void **state)
{
    (void)state;
    begin(0, SIM_NO_GROUP_SIGNAL | SIM_SLOW_INIT);
    sim_teach(&wraps_it);
    get_ready("wraps it");
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_between(300 * SIM_MS, 300 * SIM_MS + 2 * SOON, sim_now() - begun);
}

static const struct sim_program leads = {.name = "leads",
                                         .leaves_after = 100 * SIM_US,
                                         .listens_after = 400 * SIM_US,
                                         .child = &deaf_child,
                                         .children = 1};

/* The proxy leads a group of its own, in which a child is left that leaves that, too. */
static void who_leaves_again_is_not_waited_for(void **state)
{
    (void)state;
    sim_teach(&leads);
    get_ready("leads");
    pid_t leader = kp_handle_pid(proxy), child = sim_pid(2);
    sim_join(child, leader);
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_result(KP_AGAIN, kp_handle_wait(proxy, KP_STATE_EXITED, 100, &failure));
    assert_false(sim_lives(leader));
    sim_join(child, child);
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_true(sim_lives(child));
    sim_kill(child, SIGKILL);
    sim_run(SIM_MS);
}

static const struct sim_program leads_the_stuck = {.name = "leads the stuck",
                                                   .leaves_after = 100 * SIM_US,
                                                   .listens_after = 400 * SIM_US,
                                                   .child = &stuck_child,
                                                   .children = 1};

/* In the same group of its own: not the leader is told of, which has ended. */
static void who_is_left_of_that_group_is_given_up(void **state)
{
    (void)state;
    char words[48];
    sim_teach(&leads_the_stuck);
    get_ready("leads the stuck");
    snprintf(words, sizeof words, "process %d of", sim_pid(2));
    sim_join(sim_pid(2), kp_handle_pid(proxy));
    assert_result(KP_OK, kp_handle_stop(proxy, 50));
    assert_result(KP_ERR_SYSTEM, wait_for(KP_STATE_EXITED));
    assert_non_null(strstr(failure.message, words));
}

/* ---- HTTP ---------------------------------------------------------------------------------- */

static void assert_http(kp_result expected, int64_t after, struct sim_program program)
{
    begin(0, 0);
    program.name = "web";
    program.listens_after = SIM_MS;
    sim_teach(&program);
    kp_spec spec = spec_for("web");
    spec.flags = KP_SPEC_PROBE_HTTP;
    start(spec);
    int64_t begun = sim_now();
    assert_result(expected, wait_for(KP_STATE_READY));
    assert_between(after, after + 2 * SIM_MS, sim_now() - begun);
    end();
}

static void an_answer_is_told_at_once_and_silence_in_the_end(void **state)
{
    (void)state;
    assert_http(KP_OK, SIM_MS, (struct sim_program){.says = "HTTP/1.1 200 OK\r\n"});
    assert_http(KP_ERR_NOT_HTTP, SIM_MS, (struct sim_program){.says = "+OK ready\r\n"});
    assert_http(KP_ERR_NOT_HTTP, 5 * SIM_S, (struct sim_program){.says = NULL});
    assert_http(KP_ERR_NOT_HTTP, 5 * SIM_S, (struct sim_program){.hangs_up = 1});
}

static void a_connection_that_stays_open_costs_100_ms(void **state)
{
    (void)state;
    assert_http(KP_OK, 101 * SIM_MS,
                (struct sim_program){.says = "HTTP/1.1 200 OK\r\n", .keeps_open = 1});
}

/* Neither by the clock of the probes nor by a descriptor. */
static void an_exit_instead_of_an_answer_is_told_on_each_system(void)
{
    static const struct sim_program exits = {
        .name = "exits", .listens_after = SIM_MS, .exits_after = 40 * SIM_MS, .exit_code = 5};
    sim_teach(&exits);
    kp_spec spec = spec_for("exits");
    spec.flags = KP_SPEC_PROBE_HTTP;
    int64_t begun = sim_now();
    start(spec);
    assert_result(KP_ERR_EXITED, wait_for(KP_STATE_READY));
    assert_between(40 * SIM_MS, 41 * SIM_MS, sim_now() - begun);
}

static void an_exit_instead_of_an_answer(void **state)
{
    (void)state;
    on_each_system(an_exit_instead_of_an_answer_is_told_on_each_system);
}

/* A host that was stopped: the proxy has not been late with its answer. */
static void it_is_asked_after_the_time_out(void **state)
{
    (void)state;
    static const struct sim_program web = {
        .name = "web", .listens_after = SIM_MS, .says = "HTTP/1.1 200 OK\r\n"};
    sim_teach(&web);
    kp_spec spec = spec_for("web");
    spec.flags = KP_SPEC_PROBE_HTTP;
    start(spec);
    sim_run(6 * SIM_S);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
}

/* It is no time-out any more, and the rest of it is not waited for. */
static void an_answer_at_the_end_of_the_time(void **state)
{
    (void)state;
    static const struct sim_program tardy = {.name = "tardy",
                                             .listens_after = 1990 * SIM_MS,
                                             .says = "HTTP/1.1 200 OK\r\n",
                                             .keeps_open = 1};
    sim_teach(&tardy);
    kp_spec spec = spec_for("tardy");
    spec.flags = KP_SPEC_PROBE_HTTP;
    spec.startup_timeout_ms = 2000;
    int64_t begun = sim_now();
    start(spec);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    assert_int_equal(sim_now() - begun, 2000 * SIM_MS);
}

/* ---- Attaching ------------------------------------------------------------------------------ */

static kp_spec attach_spec(void)
{
    kp_spec spec = {.size = sizeof spec, .flags = KP_SPEC_ATTACH, .port = 8080};
    return spec;
}

static void attaching_starts_and_signals_nobody(void **state)
{
    (void)state;
    sim_occupy(8080, 0);
    start(attach_spec());
    int64_t begun = sim_now();
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    assert_int_equal(sim_now() - begun, 0);
    assert_int_equal(kp_handle_fd(proxy) >= 0, 1);
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_int_equal(kp_handle_state(proxy), KP_STATE_EXITED);
    assert_int_equal(sim_counted().spawns, 0);
    assert_int_equal(sim_counted().signals, 0);
}

static void attaching_to_another_users_is_refused_at_once(void **state)
{
    (void)state;
    sim_occupy(8080, 1000);
    start(attach_spec());
    int64_t begun = sim_now();
    assert_result(KP_ERR_FOREIGN_LISTENER, wait_for(KP_STATE_READY));
    assert_int_equal(sim_now() - begun, 0);
    assert_int_equal(kp_handle_state(proxy), KP_STATE_EXITED);
}

/* ---- Ways to drive ---------------------------------------------------------------------- */

enum way { BLOCKING, BY_DESCRIPTOR, BY_TIME };

/* Steps when a step is due, and at no other time. */
static void step_when_due(enum way way)
{
    if (way == BY_DESCRIPTOR) {
        assert_true(sim_run_until_readable(kp_handle_fd(proxy)));
    } else {
        int64_t ns = kp_handle_timeout_ns(proxy);
        assert_true(ns >= 0);
        sim_run(ns);
    }
    kp_handle_step(proxy, &failure);
}

static int64_t drive(enum way way, kp_state until)
{
    if (way == BLOCKING)
        kp_handle_wait(proxy, until, -1, &failure);
    else
        while (kp_handle_state(proxy) < until)
            step_when_due(way);
    return sim_now();
}

struct times {
    int64_t ready, exited;
};

/* A life in which the host stops the proxy after two seconds, unless that ends by itself. */
static struct times life_of(const char *program, enum way way, unsigned quirks)
{
    struct times times;
    begin(0, quirks);
    int64_t begun = sim_now();
    start(spec_for(program));
    if (way == BY_DESCRIPTOR)
        kp_handle_fd(proxy);
    times.ready = drive(way, KP_STATE_READY) - begun;
    if (kp_handle_state(proxy) == KP_STATE_READY && strcmp(program, "ends") != 0) {
        sim_run(begun + 2 * SIM_S - sim_now());
        kp_handle_stop(proxy, -1);
    }
    times.exited = drive(way, KP_STATE_EXITED) - begun;
    end();
    return times;
}

static void assert_same_times(const char *program, unsigned quirks)
{
    struct times blocking = life_of(program, BLOCKING, quirks);
    struct times descriptor = life_of(program, BY_DESCRIPTOR, quirks);
    struct times by_time = life_of(program, BY_TIME, quirks);
    assert_int_equal(descriptor.ready, blocking.ready);
    assert_int_equal(descriptor.exited, blocking.exited);
    int64_t pause = pause_after(blocking.ready);
    assert_between(-pause, pause, by_time.ready - blocking.ready);
    /* In READY an exit is looked for each 50 ms, in STOPPING at most each 20. */
    assert_between(-20 * SIM_MS, 70 * SIM_MS, by_time.exited - blocking.exited);
}

static void all_ways_take_the_same_time(void **state)
{
    (void)state;
    static const char *const names[] = {
        "serve",          "late",  "never",   "deaf",         "fails",         "ends", "mute",
        "slow to answer", "stuck", "wrapper", "deaf wrapper", "stuck wrapper", "farm", "leaver"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t j = 0; j < SYSTEMS; j++)
            assert_same_times(names[i], systems[j]);
}

/* What the descriptor is to hold may have begun before it. */
static void a_descriptor_that_is_made_late(void **state)
{
    (void)state;
    static const struct sim_program web = {
        .name = "web", .listens_after = SIM_MS, .says = "HTTP/1.1 200 OK\r\n"};
    sim_teach(&web);
    int64_t begun = sim_now();
    start(spec_for("slow to answer"));
    sim_run(200 * SIM_MS);
    assert_result(KP_AGAIN, kp_handle_step(proxy, &failure)); /* the connection is pending */
    assert_int_equal(drive(BY_DESCRIPTOR, KP_STATE_READY) - begun, 500 * SIM_MS);
    end();
    begin(0, 0);
    sim_teach(&web);
    kp_spec spec = spec_for("web");
    spec.flags = KP_SPEC_PROBE_HTTP;
    start(spec);
    sim_run(SIM_MS);
    begun = sim_now();
    assert_result(KP_AGAIN, kp_handle_step(proxy, &failure)); /* it is asked */
    assert_int_equal(drive(BY_DESCRIPTOR, KP_STATE_READY) - begun, 0);
}

static void assert_unmoved_by_steps(kp_state expected)
{
    kp_error untouched = failure;
    struct sim_counts before = sim_counted();
    int64_t probes = before.probes;
    for (int i = 0; i < 100; i++)
        assert_true(kp_handle_step(proxy, &failure) >= 0);
    assert_int_equal(kp_handle_state(proxy), expected);
    assert_memory_equal(&failure, &untouched, sizeof failure);
    assert_int_equal(sim_counted().signals, before.signals);
    assert_int_equal(sim_counted().spawns, before.spawns);
    assert_int_equal(sim_counted().descriptors, before.descriptors);
    assert_false(sim_readable(kp_handle_fd(proxy)));
    if (expected != KP_STATE_STARTING)
        assert_int_equal(sim_counted().probes, probes);
}

static void a_step_for_no_reason_changes_nothing(void **state)
{
    (void)state;
    memset(&failure, 0, sizeof failure);
    start(spec_for("deaf wrapper"));
    assert_true(sim_readable(kp_handle_fd(proxy))); /* a step is due */
    kp_handle_step(proxy, &failure);
    assert_unmoved_by_steps(KP_STATE_STARTING);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    assert_unmoved_by_steps(KP_STATE_READY);
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_true(sim_readable(kp_handle_fd(proxy)));
    kp_handle_step(proxy, &failure);
    assert_unmoved_by_steps(KP_STATE_STOPPING);
    assert_result(KP_AGAIN, kp_handle_wait(proxy, KP_STATE_EXITED, 1000, &failure));
    assert_unmoved_by_steps(KP_STATE_STOPPING);
    assert_result(KP_OK, wait_for(KP_STATE_EXITED));
    assert_unmoved_by_steps(KP_STATE_EXITED);
    assert_false(sim_run_until_readable(kp_handle_fd(proxy)));
}

/* Steps before the guard has ended, too, so that it is searched for members twice. */
static void what_can_not_be_watched_is_looked_at_by_the_clock(void **state)
{
    (void)state;
    begin(0, SIM_NO_GROUP_SIGNAL);
    start(spec_for("serve"));
    int fd = kp_handle_fd(proxy);
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    sim_lack_watches();
    int64_t begun = sim_now();
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    while (kp_handle_state(proxy) != KP_STATE_EXITED) {
        assert_true(sim_run_until_readable(fd));
        kp_handle_step(proxy, &failure);
        kp_handle_step(proxy, &failure);
    }
    assert_between(0, 50 * SIM_MS, sim_now() - begun);
}

/* All of what is waited for, or none of it: a loop would sleep through the rest. */
static void a_descriptor_that_can_not_watch_all_is_none(void **state)
{
    (void)state;
    int64_t begun = sim_now();
    start(spec_for("slow to answer"));
    sim_run(200 * SIM_MS);
    assert_result(KP_AGAIN, kp_handle_step(proxy, &failure)); /* the connection is pending */
    sim_lack_watches();
    assert_int_equal(kp_handle_fd(proxy), -1);
    assert_between(500 * SIM_MS, 520 * SIM_MS, drive(BY_TIME, KP_STATE_READY) - begun);
}

/* A host that steps once nothing is left of the time that it was told. */
static void assert_the_time_comes(void)
{
    int64_t ns = kp_handle_timeout_ns(proxy);
    assert_true(ns > 0);
    sim_run(ns / 2);
    assert_between(0, ns - ns / 2, kp_handle_timeout_ns(proxy));
    sim_run(ns - ns / 2);
    assert_int_equal(kp_handle_timeout_ns(proxy), 0);
    kp_handle_step(proxy, &failure);
}

static void what_is_left_of_the_time_runs_out(void **state)
{
    (void)state;
    start(spec_for("deaf wrapper"));
    kp_handle_step(proxy, &failure);
    assert_the_time_comes();
    assert_result(KP_OK, wait_for(KP_STATE_READY));
    for (int i = 0; i < 3; i++)
        assert_the_time_comes();
    assert_result(KP_OK, kp_handle_stop(proxy, -1));
    assert_int_equal(kp_handle_timeout_ns(proxy), 0);
    kp_handle_step(proxy, &failure);
    for (int i = 0; i < 3; i++)
        assert_the_time_comes();
}

static void a_handler_ends_the_wait(void **state)
{
    (void)state;
    start(spec_for("late"));
    int64_t begun = sim_now();
    sim_interrupt_after(100 * SIM_MS);
    assert_result(KP_AGAIN, wait_for(KP_STATE_READY));
    assert_int_equal(sim_now() - begun, 100 * SIM_MS);
    sim_interrupt_after(SIM_US);
    end(); /* goes on */
    begin(0, 0);
    kp_spec spec = spec_for("late");
    sim_interrupt_after(100 * SIM_MS);
    assert_result(KP_OK, kp_spawn(&spec, &proxy, &failure)); /* goes on too */
}

/* ---- The world itself --------------------------------------------------------------------- */

static void the_world_complains(void **state)
{
    (void)state;
    static void (*const mistakes[])(void) = {
        mistake_signal_a_stranger,         mistake_signal_a_strangers_group, mistake_close_twice,
        mistake_use_a_closed_descriptor,   mistake_close_what_is_watched,    mistake_reap_twice,
        mistake_reap_the_living,           mistake_block_for_ever,           mistake_spin,
        mistake_probe_without_reservation, mistake_leave_an_orphan,
    };
    sim_kill_host_everywhere();
    assert_false(sim_complains(mistake_none));
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        if (!sim_complains(mistakes[i]))
            fail_msg("mistake %zu went unnoticed", i);
}

static void the_world_sees_what_is_left(void **state)
{
    (void)state;
    get_ready("wrapper");
    assert_non_null(strstr(sim_left(), "descriptor"));
    assert_non_null(strstr(sim_left(), "process"));
    assert_non_null(strstr(sim_left(), "memory"));
}

/* ---- */

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_scene, close_scene)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_being_written_is_tried_for_20_ms),
        TEST(what_was_being_written_is_started),
        TEST(a_proxy_that_never_binds_times_out),
        TEST(a_spawn_ends_at_the_latest),
        TEST(the_schedule_bounds_the_probes),
        TEST(a_late_proxy_is_found_soon),
        TEST(a_pending_probe_is_found_by_the_schedule),
        TEST(a_connection_that_is_never_accepted),
        TEST(an_address_out_of_reach_is_told_soon),
        TEST(an_address_may_be_out_of_reach_for_a_moment),
        TEST(an_exit_is_told_at_once),
        TEST(the_reservation_is_in_the_way_of_a_plain_bind),
        TEST(a_failed_start_leaves_nothing),
        TEST(the_guard_comes_first),
        TEST(a_guard_that_ends_while_the_proxy_starts),
        TEST(a_guard_that_ends_later_harms_nothing),
        TEST(nothing_outlives_a_killed_host),
        TEST(with_a_guard_nobody_waits_for_the_prompt_everywhere),
        TEST(without_one_nobody_waits_for_the_prompt_everywhere),
        TEST(a_deaf_proxy_is_killed_exactly_at_the_grace_everywhere),
        TEST(a_proxy_without_children_needs_no_search),
        TEST(a_second_stop_only_brings_the_kill_nearer),
        TEST(a_wrapper_that_leaves_first_costs_nothing_everywhere),
        TEST(an_exit_takes_the_children_along_everywhere),
        TEST(more_members_than_are_watched_at_once),
        TEST(a_host_may_be_stopped_at_any_moment),
        TEST(what_can_not_be_killed_is_given_up),
        TEST(a_stopped_proxy_is_continued_everywhere),
        TEST(a_proxy_that_left_its_group_is_stopped_everywhere),
        TEST(without_a_guard_the_proxy_leads_everywhere),
        TEST(the_port_is_shut_between_lives),
        TEST(a_strangers_listener_is_refused),
        TEST(doubt_ends_with_the_time),
        TEST(a_stranger_beside_the_proxy_is_refused),
        TEST(any_listener_is_accepted),
        TEST(the_user_speaks_for_who_can_not_be_seen),
        TEST(nobody_speaks_for_another_user),
        TEST(who_is_told_nothing_is_not_ready),
        TEST(what_can_not_be_looked_at_is_refused),
        TEST(a_listener_that_closes_again_is_waited_for),
        TEST(a_listener_that_is_never_seen),
        TEST(an_exit_between_probe_and_ready_is_an_exit),
        TEST(a_guard_that_ends_between_probe_and_ready),
        TEST(where_nobody_can_bind_beside_a_reservation),
        TEST(a_probe_that_meets_itself_is_refused),
        TEST(the_owner_of_the_listener_is_stopped_with_it),
        TEST(a_deaf_owner_is_killed_at_the_grace),
        TEST(a_zombie_in_the_group_is_not_waited_for),
        TEST(who_leaves_again_is_not_waited_for),
        TEST(who_is_left_of_that_group_is_given_up),
        TEST(an_answer_is_told_at_once_and_silence_in_the_end),
        TEST(a_connection_that_stays_open_costs_100_ms),
        TEST(an_exit_instead_of_an_answer),
        TEST(an_answer_at_the_end_of_the_time),
        TEST(it_is_asked_after_the_time_out),
        TEST(attaching_starts_and_signals_nobody),
        TEST(attaching_to_another_users_is_refused_at_once),
        TEST(all_ways_take_the_same_time),
        TEST(a_descriptor_that_is_made_late),
        TEST(a_step_for_no_reason_changes_nothing),
        TEST(what_can_not_be_watched_is_looked_at_by_the_clock),
        TEST(a_descriptor_that_can_not_watch_all_is_none),
        TEST(what_is_left_of_the_time_runs_out),
        TEST(a_handler_ends_the_wait),
        TEST(the_world_complains),
        TEST(the_world_sees_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
