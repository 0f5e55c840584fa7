/* SPDX-License-Identifier: Apache-2.0 */
/* Many lives in one process leave nothing behind: no descriptor, no child, no memory. */
#include "support.h"
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* KP_TEST_CYCLES: fewer under valgrind and the sanitizers. */
static int cycles(void)
{
    const char *wanted = getenv("KP_TEST_CYCLES");
    return wanted == NULL ? 1000 : atoi(wanted);
}

/* The first ones may allocate what the C library keeps. */
enum { WARM_UP = 5 };

typedef void cycle_fn(struct scene *scene);

static void assert_flat(size_t before)
{
    size_t now = mallinfo2().uordblks;
    if (now > before + 1024)
        fail_msg("%zu bytes in use, %zu before", now, before);
}

static void repeat(struct scene *scene, cycle_fn *cycle, int times)
{
    for (int i = 0; i < WARM_UP; i++)
        cycle(scene);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < times; i++)
        cycle(scene);
    assert_flat(before);
    assert_string_equal(census_leaks(&scene->before), "");
}

static void live(struct scene *scene)
{
    get_ready(scene, spec_for(FIXTURE("serve")));
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
}

static void live_in_a_loop(struct scene *scene)
{
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_true(on_posix() || kp_handle_fd(scene->proxy) >= 0);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
}

static void fail_to_start(struct scene *scene)
{
    assert_result(KP_ERR_EXITED, spawn(scene, spec_for(FIXTURE("exit", "1"))));
}

static void fail_to_execute(struct scene *scene)
{
    kp_spec spec = spec_for(WORDS("/no/such/proxy"));
    kp_result result = kp_spawn(&spec, &scene->proxy, &scene->error);
    assert_true(result == KP_ERR_SPAWN || (under_valgrind() && result == KP_ERR_EXITED));
}

static void live_again(struct scene *scene)
{
    if (scene->proxy == NULL)
        assert_result(KP_OK, start(scene, spec_for(FIXTURE("serve"))));
    else
        assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
}

static void tell_children(struct scene *scene)
{
    char **env = kp_env_new(scene->proxy, NULL);
    assert_non_null(env);
    kp_env_free(env);
}

static void starts_and_stops(void **state)
{
    repeat(*state, live, cycles());
}

static void starts_and_stops_in_a_loop(void **state)
{
    repeat(*state, live_in_a_loop, cycles() / 4);
}

static void failed_starts(void **state)
{
    repeat(*state, fail_to_start, cycles() / 4);
}

static void failed_executions(void **state)
{
    repeat(*state, fail_to_execute, cycles() / 4);
}

/* One handle all the time, so the census is taken with it: only its memory counts. */
static void restarts(void **state)
{
    struct scene *scene = *state;
    live_again(scene);
    size_t before = mallinfo2().uordblks;
    struct census census = census_take();
    strcpy(census.mark, scene->before.mark);
    for (int i = 0; i < cycles() / 4; i++)
        live_again(scene);
    assert_flat(before);
    assert_string_equal(census_leaks(&census), "");
}

static void environments(void **state)
{
    repeat(*state, tell_children, cycles());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(starts_and_stops),
        TEST_WAY(starts_and_stops_in_a_loop, "descriptor", &ways[1]),
        TEST_WAY(starts_and_stops_in_a_loop, "no guard", &ways[3]),
        EACH_WAY(failed_starts),
        TEST(failed_executions),
        EACH_WAY(restarts),
        TEST(environments),
    };
    return RUN(tests);
}
