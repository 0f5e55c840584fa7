/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts that have made arrangements for signals. */
#include "life.h"
#include <errno.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

enum { EVERY = 0 };

/* ---- Blocked, ignored -------------------------------------------------------------- */

static bool block(struct scene *scene, int number)
{
    sigset_t set;
    (void)scene;
    sigemptyset(&set);
    if (number == EVERY)
        sigfillset(&set);
    else
        sigaddset(&set, number);
    return sigprocmask(SIG_BLOCK, &set, NULL) == 0;
}

/* In a host that lets no signal in, those that came wait: none but of its children did. */
static void only_sigchld_came(struct scene *scene)
{
    sigset_t pending;
    (void)scene;
    CHECK(sigpending(&pending) == 0);
    for (int i = 1; i < NSIG; i++)
        CHECK(i == SIGCHLD || sigismember(&pending, i) != 1);
}

static bool ignore(struct scene *scene, int number)
{
    (void)scene;
    if (number != EVERY)
        return signal(number, SIG_IGN) != SIG_ERR;
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_IGN); /* SIGKILL, SIGSTOP and libc's own can't be */
    return true;
}

/* ---- Handled ------------------------------------------------------------------------- */

static volatile sig_atomic_t counts[NSIG];

static void count(int number)
{
    counts[number]++;
}

static bool handle(struct scene *scene, int flags)
{
    struct sigaction action = {.sa_handler = count, .sa_flags = flags};
    (void)scene;
    for (int i = 1; i < NSIG; i++)
        sigaction(i, &action, NULL);
    return true;
}

/* The signals of a stop reach the proxy's group alone, and no probe or pipe raises SIGPIPE. */
static void only_sigchld_was_handled(struct scene *scene)
{
    (void)scene;
    for (int i = 1; i < NSIG; i++)
        CHECK(i == SIGCHLD || counts[i] == 0);
}

/* ---- A timer: every call that can be interrupted is ----------------------------------- */

static void set_timer(int microseconds)
{
    struct itimerval timer = {.it_interval.tv_usec = microseconds,
                              .it_value.tv_usec = microseconds};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static bool tick(struct scene *scene, int flags)
{
    struct sigaction action = {.sa_handler = count, .sa_flags = flags};
    (void)scene;
    if (sigaction(SIGALRM, &action, NULL) != 0)
        return false;
    set_timer(1000);
    while (counts[SIGALRM] == 0)
        pause();
    return true;
}

static void stop_ticking(struct scene *scene)
{
    (void)scene;
    set_timer(0);
}

/* ---- What the calls that wait do about it ----------------------------------------------- */

/* kp_spawn and kp_handle_free go on; kp_handle_wait comes back, and can be called again. */
static void wait_among_ticks(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("late", "100"));
    spec.flags = scene->way->flags;
    CHECK(tick(scene, 0));
    CHECK_RESULT(KP_OK, kp_spawn(&spec, &scene->proxy, &scene->error));
    error_fill(&scene->error);
    int before = counts[SIGALRM];
    CHECK(kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, &scene->error) == KP_AGAIN);
    CHECK(error_untouched(&scene->error));
    CHECK(counts[SIGALRM] > before);
    CHECK(kp_handle_stop(scene->proxy, 50) == KP_OK);
    kp_handle_free(scene->proxy);
    set_timer(0);
}

static void ticks_end_only_the_wait_that_may_end(void **state)
{
    run_host(wait_among_ticks, *state, __func__);
}

/* A grace that many interrupted waits make up is as long as one. */
static void free_a_deaf_one_among_ticks(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("deaf"));
    spec.flags = scene->way->flags;
    spec.stop_grace_ms = 300;
    CHECK(tick(scene, 0));
    CHECK_RESULT(KP_OK, kp_spawn(&spec, &scene->proxy, &scene->error));
    int64_t begin_ms = now_ms();
    kp_handle_free(scene->proxy);
    CHECK(now_ms() - begin_ms >= 300);
    set_timer(0);
}

static void ticks_do_not_shorten_the_grace(void **state)
{
    run_host(free_a_deaf_one_among_ticks, *state, __func__);
}

/* In a host that lets no signal in nothing can end a wait but what is waited for. */
static void wait_with_all_blocked(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("late", "100"));
    spec.flags = scene->way->flags;
    CHECK(handle(scene, 0));
    CHECK(block(scene, EVERY));
    set_timer(1000);
    CHECK_RESULT(KP_OK, kp_start(&spec, &scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_READY, PATIENCE_MS, &scene->error));
    CHECK(counts[SIGALRM] == 0);
    set_timer(0);
    kp_handle_free(scene->proxy);
}

static void a_blocked_signal_ends_no_wait(void **state)
{
    run_host(wait_with_all_blocked, *state, __func__);
}

int main(void)
{
    static const struct circumstance list[] = {
        {"SIGTERM is blocked", block, .number = SIGTERM},
        {"SIGPIPE is blocked", block, .number = SIGPIPE},
        {"SIGINT is blocked", block, .number = SIGINT},
        {"SIGHUP is blocked", block, .number = SIGHUP},
        {"SIGCHLD is blocked", block, .number = SIGCHLD},
        {"SIGCONT is blocked", block, .number = SIGCONT},
        {"every signal is blocked", block, .number = EVERY, .after = only_sigchld_came},
        {"SIGTERM is ignored", ignore, .number = SIGTERM},
        {"SIGPIPE is ignored", ignore, .number = SIGPIPE},
        {"SIGINT is ignored", ignore, .number = SIGINT},
        {"SIGHUP is ignored", ignore, .number = SIGHUP},
        {"SIGCONT is ignored", ignore, .number = SIGCONT},
        {"every signal is ignored", ignore, .number = EVERY, .reaps = true},
        {"every signal is handled", handle, .number = 0, .after = only_sigchld_was_handled},
        {"a timer ticks each millisecond", tick, .number = 0, .after = stop_ticking},
        {"a timer ticks each millisecond and calls restart", tick, .number = SA_RESTART,
         .after = stop_ticking},
    };
    static const struct CMUnitTest own[] = {
        TEST_WAY(ticks_end_only_the_wait_that_may_end, "guard", &ways[0]),
        TEST_WAY(ticks_end_only_the_wait_that_may_end, "no guard", &ways[3]),
        TEST_WAY(ticks_do_not_shorten_the_grace, "guard", &ways[0]),
        TEST_WAY(ticks_do_not_shorten_the_grace, "no guard", &ways[3]),
        TEST(a_blocked_signal_ends_no_wait),
    };
    return run_strange(list, sizeof list / sizeof *list, own, sizeof own / sizeof *own);
}
