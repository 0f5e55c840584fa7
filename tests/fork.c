/* SPDX-License-Identifier: Apache-2.0 */
/* After fork() the child may look at its copy and free it; the parent notices nothing. */
#include "process.h"
#include "support.h"
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- In the child ------------------------------------------------------------ */

static void look(struct scene *scene)
{
    CHECK(kp_handle_state(scene->proxy) == KP_STATE_READY);
    CHECK(kp_handle_port(scene->proxy) != 0);
    CHECK(kp_handle_pid(scene->proxy) > 1);
    CHECK(strncmp(kp_handle_url(scene->proxy), "http://127.0.0.1:", 17) == 0);
    CHECK(kp_handle_exit_status(scene->proxy, NULL, NULL) == 0);
}

static void make_an_environment(struct scene *scene)
{
    char *nothing[] = {NULL}, **env = kp_env_new(scene->proxy, nothing);
    CHECK(env != NULL && env[0] != NULL);
    CHECK(strcmp(env[0] + strlen("ALL_PROXY="), kp_handle_url(scene->proxy)) == 0);
    kp_env_free(env);
}

static bool is_refusal(kp_result result, const kp_error *error)
{
    return result == KP_ERR_FORKED && error->code == KP_ERR_FORKED && error->message[0] != '\0';
}

static void try_to_drive(struct scene *scene)
{
    kp_error *error = &scene->error;
    CHECK(is_refusal(kp_handle_step(scene->proxy, error), error));
    error_fill(error);
    CHECK(is_refusal(kp_handle_wait(scene->proxy, KP_STATE_EXITED, 0, error), error));
    error_fill(error);
    CHECK(is_refusal(kp_handle_restart(scene->proxy, error), error));
    CHECK(kp_handle_stop(scene->proxy, 0) == KP_ERR_FORKED);
    CHECK(kp_handle_fd(scene->proxy) == -1);
}

static void free_it(struct scene *scene)
{
    kp_handle_free(scene->proxy);
}

static void free_it_after_looking(struct scene *scene)
{
    look(scene);
    make_an_environment(scene);
    try_to_drive(scene);
    free_it(scene);
}

static void free_it_in_a_grandchild(struct scene *scene)
{
    CHECK(in_child(free_it_after_looking, scene) == 0);
    free_it(scene);
}

/* The child is a host, too. */
static void run_a_proxy_of_its_own(struct scene *scene)
{
    kp_spec spec = spec_for(FIXTURE("serve"));
    kp_handle *own;
    CHECK(kp_spawn(&spec, &own, NULL) == KP_OK);
    CHECK(kp_handle_port(own) != kp_handle_port(scene->proxy));
    CHECK(kp_handle_step(own, NULL) == KP_OK);
    kp_handle_free(own);
    free_it(scene);
}

/* ---- In the parent ------------------------------------------------------------- */

/* All that a parent can do with its handle still works. */
static void assert_unharmed(struct scene *scene)
{
    assert_true(process_lives(kp_handle_pid(scene->proxy)));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
    assert_result(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    assert_result(KP_ERR_EXITED, step_until_told(scene, &scene->error));
    assert_int_equal(scene->error.term_signal, SIGKILL);
    get_exited(scene);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
}

static void the_child_may_look(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(in_child(look, scene), 0);
    assert_unharmed(scene);
}

static void the_child_may_tell_its_children(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(in_child(make_an_environment, scene), 0);
    assert_unharmed(scene);
}

static void the_child_may_not_drive(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(in_child(try_to_drive, scene), 0);
    assert_unharmed(scene);
}

static void the_child_may_free(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(in_child(free_it_after_looking, scene), 0);
    assert_unharmed(scene);
}

static void so_may_a_grandchild(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(in_child(free_it_in_a_grandchild, scene), 0);
    assert_unharmed(scene);
}

/* What parent and child share is the epoll instance: the child must not take from it. */
static void the_parents_descriptor_goes_on(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    get_ready(scene, spec_for(FIXTURE("serve")));
    struct pollfd watched = {.fd = kp_handle_fd(scene->proxy), .events = POLLIN};
    assert_result(KP_OK, kp_handle_step(scene->proxy, NULL));
    assert_int_equal(in_child(free_it, scene), 0);
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    assert_int_equal(poll(&watched, 1, PATIENCE_MS), 1);
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL));
}

static void the_parent_goes_on_starting(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("late", "1000"))));
    assert_true(kp_handle_fd(scene->proxy) >= 0);
    assert_result(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
    assert_int_equal(in_child(free_it, scene), 0);
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_READY, PATIENCE_MS, NULL));
}

static void the_parent_goes_on_stopping(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    kp_spec spec = spec_for(FIXTURE("deaf"));
    get_ready(scene, spec);
    assert_true(kp_handle_fd(scene->proxy) >= 0);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 1000));
    assert_result(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
    assert_int_equal(in_child(free_it, scene), 0);
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL));
}

static void a_child_may_free_what_has_ended(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    kp_handle_stop(scene->proxy, 0);
    get_exited(scene);
    assert_int_equal(in_child(free_it, scene), 0);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

static void the_child_may_have_proxies_of_its_own(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(in_child(run_a_proxy_of_its_own, scene), 0);
    assert_unharmed(scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(the_child_may_look),
        TEST(the_child_may_tell_its_children),
        EACH_WAY(the_child_may_not_drive),
        EACH_WAY(the_child_may_free),
        EACH_WAY(so_may_a_grandchild),
        TEST(the_parents_descriptor_goes_on),
        TEST(the_parent_goes_on_starting),
        TEST(the_parent_goes_on_stopping),
        EACH_WAY(a_child_may_free_what_has_ended),
        EACH_WAY(the_child_may_have_proxies_of_its_own),
    };
    return RUN(tests);
}
