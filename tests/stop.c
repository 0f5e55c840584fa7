/* SPDX-License-Identifier: Apache-2.0 */
/* Stopping: everybody has the grace, and after EXITED nothing of the proxy's is left. */
#include "stopping.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- The grace -------------------------------------------------------------- */

static void a_prompt_proxy_is_asked(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    assert_true(stop(scene, -1) < PATIENCE_MS);
    assert_exit(scene, -1, SIGTERM);
}

static void a_deaf_proxy_is_killed_after_the_grace(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), 200));
    assert_true(stop(scene, -1) >= 200);
    assert_exit(scene, -1, SIGKILL);
}

static void without_grace_it_is_killed_now(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), LONG_GRACE));
    assert_true(stop(scene, 0) < PATIENCE_MS);
    assert_exit(scene, -1, SIGKILL);
}

/* No SIGTERM before the SIGKILL from which it could run away: its exit would be 0. */
static void without_grace_a_slow_proxy_is_killed_too(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("slow-stop", "30000"), LONG_GRACE));
    assert_true(stop(scene, 0) < PATIENCE_MS);
    assert_exit(scene, -1, SIGKILL);
}

static void a_longer_grace_than_the_specs(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), 10));
    assert_true(stop(scene, 300) >= 300);
    assert_exit(scene, -1, SIGKILL);
}

static void a_shorter_grace_than_the_specs(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), LONG_GRACE));
    int64_t took = stop(scene, 100);
    assert_in_range(took, 100, PATIENCE_MS);
}

/* Two seconds, when nothing else is said. */
static void the_default_grace(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("deaf")));
    assert_true(stop(scene, -1) >= 2000);
}

static void a_slow_proxy_has_its_grace(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("slow-stop", "200"), LONG_GRACE));
    int64_t took = stop(scene, -1);
    assert_in_range(took, 200, PATIENCE_MS);
    assert_exit(scene, 0, 0);
}

static void a_second_stop_brings_the_kill_nearer(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), LONG_GRACE));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    int64_t took = stop(scene, 100);
    assert_in_range(took, 100, PATIENCE_MS);
}

static void a_second_stop_can_not_push_it_away(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), 100));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_true(stop(scene, LONG_GRACE) < PATIENCE_MS);
}

/* The second Ctrl-C. */
static void a_third_stop_kills_now(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), LONG_GRACE));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, LONG_GRACE / 2));
    assert_true(stop(scene, 0) < PATIENCE_MS);
}

/* A SIGTERM alone would wait until somebody continues it. */
static void a_stopped_proxy_is_continued(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("slow-stop", "10"), LONG_GRACE));
    kill(kp_handle_pid(scene->proxy), SIGSTOP);
    assert_true(stop(scene, -1) < PATIENCE_MS);
    assert_exit(scene, 0, 0);
}

/* ---- Workers, wrappers, leavers ---------------------------------------------- */

static void workers_go_too(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("workers", "3"), LONG_GRACE));
    assert_true(group_size(group_of(scene)) >= 4);
    assert_true(stop(scene, -1) < PATIENCE_MS);
    assert_exit(scene, -1, SIGTERM);
}

static void deaf_workers_have_the_grace_and_go(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "3"), 200));
    assert_true(stop(scene, -1) >= 200);
    assert_exit(scene, -1, SIGTERM);
}

static void without_grace_workers_go_at_once(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "3"), LONG_GRACE));
    assert_true(stop(scene, 0) < PATIENCE_MS);
}

static void a_wrapper_and_its_proxy_go(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(SHELL("\"$0\" serve; exit 1"), LONG_GRACE));
    assert_true(group_size(group_of(scene)) >= 2);
    assert_true(stop(scene, -1) < PATIENCE_MS);
}

/* The shell dies of the SIGTERM at once; the worker has a trap, and its time for it. */
static void a_wrapper_that_leaves_first_costs_the_others_nothing(void **state)
{
    struct scene *scene = *state;
    setenv("KP_TRACE", scene_path(scene, "cleaned-up"), 1);
    get_ready(scene, with_grace(SHELL("(trap 'sleep 0.2; echo > $KP_TRACE; exit' TERM;"
                                      " \"$0\" serve & wait) & wait"),
                                LONG_GRACE));
    unsetenv("KP_TRACE");
    int64_t took = stop(scene, -1);
    assert_in_range(took, 200, PATIENCE_MS);
    assert_true(file_exists(scene_path(scene, "cleaned-up")));
}

static void a_deaf_proxy_behind_a_wrapper(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(SHELL("\"$0\" deaf & wait"), 200));
    assert_true(stop(scene, -1) >= 200);
}

/* Only a member can leave a group, so there is a guard in it. */
static void a_proxy_that_left_the_group(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("leave"), LONG_GRACE));
    assert_int_equal(getsid(kp_handle_pid(scene->proxy)), kp_handle_pid(scene->proxy));
    assert_true(stop(scene, -1) < PATIENCE_MS);
    assert_exit(scene, -1, SIGTERM);
}

/* A wrapper that moves itself, and ignores SIGTERM. */
static void a_deaf_proxy_that_left_the_group(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(SHELL("trap '' TERM; exec \"$0\" leave"), 200));
    assert_true(stop(scene, -1) >= 200);
    assert_exit(scene, -1, SIGKILL);
}

/* ---- Exits by themselves ------------------------------------------------------- */

static void what_an_exit_leaves_is_stopped(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(SHELL("trap 'exit 5' USR1; \"$0\" deaf & wait"), 200));
    pid_t group = group_of(scene);
    kill(kp_handle_pid(scene->proxy), SIGUSR1);
    assert_result(KP_ERR_EXITED, step_until_told(scene, &scene->error));
    get_exited(scene);
    assert_int_equal(group_size(group), 0);
    assert_false(port_answers(kp_handle_port(scene->proxy)));
    assert_exit(scene, 5, 0);
}

static void what_a_failed_start_leaves_is_stopped(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_EXITED,
                  spawn(scene, with_grace(SHELL("\"$0\" never & sleep 0.1; exit 5"), LONG_GRACE)));
    assert_string_equal(census_leaks(&scene->before), "");
}

static void a_start_that_timed_out_leaves_nothing(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = with_grace(SHELL("\"$0\" never & \"$0\" never"), LONG_GRACE);
    spec.startup_timeout_ms = 150;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    assert_string_equal(census_leaks(&scene->before), "");
}

/* A wrapper has its chance to clean up after a start that failed. */
static void a_failed_start_has_its_grace(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = with_grace(SHELL("trap '' TERM; exec \"$0\" never"), 200);
    spec.startup_timeout_ms = 1000; /* in which the shell sets its trap on a busy machine, too */
    int64_t begin = now_ms();
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    assert_in_range(now_ms() - begin, 1200, PATIENCE_MS);
    assert_string_equal(census_leaks(&scene->before), "");
}

/* ---- Freeing ------------------------------------------------------------------- */

static void free_while_starting(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, with_grace(FIXTURE("never"), LONG_GRACE)));
    assert_true(free_now(scene) < PATIENCE_MS);
}

static void free_while_ready(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("workers", "2"), LONG_GRACE));
    assert_true(free_now(scene) < PATIENCE_MS);
}

static void free_while_stopping(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("slow-stop", "200"), LONG_GRACE));
    int64_t begin = now_ms();
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_true(free_now(scene) < PATIENCE_MS);
    assert_true(now_ms() - begin >= 200);
}

static void free_after_the_end(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    stop(scene, -1);
    assert_true(free_now(scene) < PATIENCE_MS);
}

static void free_gives_the_grace(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), 200));
    assert_true(free_now(scene) >= 200);
}

static void free_can_not_push_the_kill_away(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf"), LONG_GRACE));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    assert_true(free_now(scene) < PATIENCE_MS);
}

/* ---- Short of descriptors ------------------------------------------------- */

enum { FEW_FDS = 96 };

/* Leaves `free` descriptors to this process; the others, to be given back. */
static size_t use_up_descriptors(int *used, size_t free_ones)
{
    size_t count = 0;
    while (count < FEW_FDS && (used[count] = dup(STDERR_FILENO)) >= 0)
        count++;
    for (size_t i = 0; i < free_ones && count > 0; i++)
        close(used[--count]);
    return count;
}

/* What can't be looked at is not taken for gone. */
static void stop_with_few_descriptors(struct scene *scene, size_t free_ones)
{
    struct rlimit before, few;
    int used[FEW_FDS];
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "2"), 100));
    pid_t group = group_of(scene);
    getrlimit(RLIMIT_NOFILE, &before);
    few = (struct rlimit){.rlim_cur = FEW_FDS, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    size_t count = use_up_descriptors(used, free_ones);
    kp_result stopped = kp_handle_stop(scene->proxy, -1);
    kp_result result = kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, &scene->error);
    while (count > 0)
        close(used[--count]);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_result(KP_OK, stopped);
    assert_result(KP_OK, result);
    assert_int_equal(group_size(group), 0);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
}

static void nobody_is_lost_for_want_of_descriptors(void **state)
{
    for (size_t free_ones = 0; free_ones < 4; free_ones++)
        stop_with_few_descriptors(*state, free_ones);
}

static bool answers(const void *port)
{
    return port_answers(*(const uint16_t *)port);
}

/* It listens, and no step has seen it. */
static uint16_t start_with_owner_outside(struct scene *scene)
{
    assert_result(KP_OK, start(scene, spec_for(SHELL("setsid \"$0\" serve & wait"))));
    uint16_t port = kp_handle_port(scene->proxy);
    assert_true(eventually(answers, &port));
    return port;
}

/* The verification is short of descriptors: who is to be stopped with the proxy is not found. */
static void verify_with_few_descriptors(struct scene *scene, size_t free_ones)
{
    struct rlimit before, few;
    int used[FEW_FDS];
    uint16_t port = start_with_owner_outside(scene);
    getrlimit(RLIMIT_NOFILE, &before);
    few = (struct rlimit){.rlim_cur = FEW_FDS, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    size_t count = use_up_descriptors(used, free_ones);
    kp_result result = kp_handle_step(scene->proxy, &scene->error);
    while (count > 0)
        close(used[--count]);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_true(result >= KP_OK); /* it may pass */
    kp_handle_stop(scene->proxy, -1);
    get_exited(scene);
    assert_false(port_answers(port));
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
}

static void no_owner_is_lost_for_want_of_descriptors(void **state)
{
    if (left_out_without_pidfds(__func__))
        return;
    for (size_t free_ones = 1; free_ones < 8; free_ones++) /* one is for the probe */
        verify_with_few_descriptors(*state, free_ones);
}

/* Nobody has asked yet whose the listener is. */
static void an_owner_outside_of_a_starting_proxy(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    start_with_owner_outside(scene);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_STARTING);
    free_now(scene);
}

/* The teardown looks for what is left. valgrind has no descriptors for processes, without which
 * those outside the group can't be held. */
static void workers_of_an_owner_that_left_the_group(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, spec_for(SHELL("setsid \"$0\" workers 2 & wait")));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
}

static void workers_of_a_proxy_that_left_the_group(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, spec_for(SHELL("exec setsid -w \"$0\" deaf-workers 2")));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 100));
    get_exited(scene);
}

static bool nothing_is_left(const void *before)
{
    return census_leaks(before)[0] == '\0';
}

/* As a worker of the common group that leaves it: out of reach, and nothing to wait or to fail for.
 */
static void a_worker_that_leaves_the_proxys_own_group(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, spec_for(SHELL("exec setsid -w sh -c '(trap \"exec setsid sleep 2\" TERM;"
                                    " while :; do sleep 0.1; done) & exec \"$0\" serve' \"$0\"")));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 300));
    assert_result(KP_OK, reach(scene, KP_STATE_EXITED));
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    sleep_ms(2100);
    assert_true(eventually(nothing_is_left, &scene->before));
}

/* Its own is the wrapper's. */
static void workers_in_the_group_of_a_wrapper(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, spec_for(WORDS("timeout", "60", fixture(), "deaf-workers", "2")));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 100));
    get_exited(scene);
}

/* And that is not the proxy. */
static void workers_in_the_group_of_an_inner_wrapper(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, spec_for(SHELL("setsid sh -c '\"$0\" deaf-workers 2 & wait' \"$0\" & wait")));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 100));
    get_exited(scene);
}

/* That is some job of the host's, which nobody but its own processes may be told of. */
static void an_owner_in_a_strangers_group(void **state)
{
    struct scene *scene = *state;
    char script[64];
    if (left_out_without_pidfds(__func__))
        return;
    pid_t leader = fork();
    if (leader == 0) {
        alarm(PATIENCE_MS / 1000);
        for (;;)
            pause();
    }
    setpgid(leader, leader);
    snprintf(script, sizeof script, "\"$0\" join %ld & wait", (long)leader);
    kp_result result = spawn(scene, spec_for(SHELL(script)));
    if (result == KP_OK)
        kp_handle_stop(scene->proxy, -1);
    kp_result stopped = result == KP_OK ? reach(scene, KP_STATE_EXITED) : result;
    size_t left = group_size(leader);
    kill(-leader, SIGKILL);
    waitpid(leader, NULL, 0);
    assert_result(KP_OK, stopped);
    assert_int_equal(left, 1);
}

static void an_owner_whose_leader_left_its_group(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, spec_for(FIXTURE("bereft")));
    uint16_t port = kp_handle_port(scene->proxy);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    assert_false(port_answers(port));
}

/* It is verified twice, and held once. */
static void an_owner_that_was_asked(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    kp_spec spec = spec_for(SHELL("setsid \"$0\" serve & wait"));
    spec.flags = KP_SPEC_PROBE_HTTP;
    get_ready(scene, spec);
    uint16_t port = kp_handle_port(scene->proxy);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    assert_false(port_answers(port));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(a_prompt_proxy_is_asked),
        EACH_WAY(a_deaf_proxy_is_killed_after_the_grace),
        EACH_WAY(without_grace_it_is_killed_now),
        EACH_WAY(without_grace_a_slow_proxy_is_killed_too),
        EACH_WAY(a_longer_grace_than_the_specs),
        EACH_WAY(a_shorter_grace_than_the_specs),
        TEST(the_default_grace),
        EACH_WAY(a_slow_proxy_has_its_grace),
        EACH_WAY(a_second_stop_brings_the_kill_nearer),
        EACH_WAY(a_second_stop_can_not_push_it_away),
        EACH_WAY(a_third_stop_kills_now),
        EACH_WAY(a_stopped_proxy_is_continued),
        EACH_WAY(workers_go_too),
        EACH_WAY(deaf_workers_have_the_grace_and_go),
        EACH_WAY(without_grace_workers_go_at_once),
        EACH_WAY(a_wrapper_and_its_proxy_go),
        EACH_WAY(a_wrapper_that_leaves_first_costs_the_others_nothing),
        EACH_WAY(a_deaf_proxy_behind_a_wrapper),
        EACH_GUARDED_WAY(a_proxy_that_left_the_group),
        EACH_GUARDED_WAY(a_deaf_proxy_that_left_the_group),
        EACH_WAY(what_an_exit_leaves_is_stopped),
        EACH_WAY(what_a_failed_start_leaves_is_stopped),
        EACH_WAY(a_start_that_timed_out_leaves_nothing),
        EACH_WAY(a_failed_start_has_its_grace),
        EACH_WAY(free_while_starting),
        EACH_WAY(free_while_ready),
        EACH_WAY(free_while_stopping),
        EACH_WAY(free_after_the_end),
        EACH_WAY(free_gives_the_grace),
        EACH_WAY(free_can_not_push_the_kill_away),
        TEST_WAY(nobody_is_lost_for_want_of_descriptors, "guard", &ways[0]),
        TEST_WAY(nobody_is_lost_for_want_of_descriptors, "no guard", &ways[3]),
        TEST_WAY(no_owner_is_lost_for_want_of_descriptors, "guard", &ways[0]),
        TEST_WAY(no_owner_is_lost_for_want_of_descriptors, "no guard", &ways[3]),
        EACH_WAY(an_owner_outside_of_a_starting_proxy),
        EACH_WAY(workers_of_an_owner_that_left_the_group),
        EACH_WAY(workers_of_a_proxy_that_left_the_group),
        EACH_WAY(a_worker_that_leaves_the_proxys_own_group),
        EACH_GUARDED_WAY(workers_in_the_group_of_a_wrapper),
        EACH_WAY(workers_in_the_group_of_an_inner_wrapper),
        EACH_WAY(an_owner_in_a_strangers_group),
        EACH_WAY(an_owner_whose_leader_left_its_group),
        EACH_WAY(an_owner_that_was_asked),
    };
    return RUN(tests);
}
