/* SPDX-License-Identifier: Apache-2.0 */
/* After fork() the child may look at its copy and free it; the parent notices nothing. */
#include "process.h"
#include "support.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
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

enum { LOW_ONES = 40 };

/* All numbers that were the handle's are somebody else's now. */
static void occupy_descriptors(int *fds)
{
    for (int i = 0; i < LOW_ONES; i++)
        CHECK((fds[i] = fcntl(0, F_DUPFD_CLOEXEC, 3)) >= 0);
}

static void check_occupied(const int *fds)
{
    for (int i = 0; i < LOW_ONES; i++)
        CHECK(fcntl(fds[i], F_GETFD) == FD_CLOEXEC);
}

/* Nothing is left that was the handle's, and what it closed once it does not close again. */
static void detach(struct scene *scene)
{
    int fds[LOW_ONES];
    kp_state before = kp_handle_state(scene->proxy);
    CHECK(census_take().fds > scene->before.fds);
    kp_handle_detach(scene->proxy);
    CHECK(census_take().fds == scene->before.fds);
    occupy_descriptors(fds);
    kp_handle_detach(scene->proxy);
    CHECK(kp_handle_state(scene->proxy) == before);
    try_to_drive(scene);
    make_an_environment(scene);
    free_it(scene);
    check_occupied(fds);
}

static void detach_and_look(struct scene *scene)
{
    kp_handle_detach(scene->proxy);
    look(scene);
}

static void detach_in_a_grandchild(struct scene *scene)
{
    CHECK(in_child(detach, scene) == 0);
    detach(scene);
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

/* ---- Letting go ------------------------------------------------------------------- */

/* But where the time is waited for alone: with the descriptor there is none to be had. */
static void open_what_a_loop_needs(const struct scene *scene)
{
    if (scene->way->pause != ways[2].pause)
        assert_true(on_posix() || kp_handle_fd(scene->proxy) >= 0);
}

static void the_child_may_let_go(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    open_what_a_loop_needs(scene);
    assert_int_equal(in_child(detach, scene), 0);
    assert_int_equal(in_child(detach_and_look, scene), 0);
    assert_unharmed(scene);
}

static void so_may_a_grandchild_and_then_the_child(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(in_child(detach_in_a_grandchild, scene), 0);
    assert_unharmed(scene);
}

static void the_parent_has_nothing_to_let_go_of(void **state)
{
    struct scene *scene = *state;
    kp_handle_detach(NULL);
    get_ready(scene, spec_for(FIXTURE("serve")));
    open_what_a_loop_needs(scene);
    struct census before = census_take();
    kp_handle_detach(scene->proxy);
    assert_string_equal(census_leaks(&before), "");
    assert_unharmed(scene);
    kp_handle_stop(scene->proxy, 0);
    get_exited(scene);
    kp_handle_detach(scene->proxy);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
}

/* A connection is pending. */
static void of_a_proxy_that_starts(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("mute", "500"))));
    open_what_a_loop_needs(scene);
    sleep_ms(50);
    assert_result(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
    assert_int_equal(in_child(detach, scene), 0);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

/* Members, and an owner of the listener that has left the group, are held by descriptors. */
static void of_a_proxy_that_stops(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__) ||
        left_out_under_valgrind(__func__)) /* no descriptors for them */
        return;
    kp_spec spec = spec_for(SHELL("(trap '' TERM; sleep 60; :) & setsid \"$0\" deaf & wait"));
    spec.stop_grace_ms = 600;
    get_ready(scene, spec);
    open_what_a_loop_needs(scene);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_AGAIN, kp_handle_wait(scene->proxy, KP_STATE_EXITED, 100, NULL));
    assert_int_equal(in_child(detach, scene), 0);
    get_exited(scene);
}

static void of_a_proxy_that_has_ended(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    open_what_a_loop_needs(scene);
    kp_handle_stop(scene->proxy, 0);
    get_exited(scene);
    assert_int_equal(in_child(detach, scene), 0);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

/* A child that has let go, and lives on until it is killed. */
static pid_t fork_a_worker_that_lets_go(const struct scene *scene)
{
    int done[2];
    char byte = 0;
    assert_int_equal(pipe2(done, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        kp_handle_detach(scene->proxy);
        CHECK(write(done[1], "d", 1) == 1);
        for (;;)
            pause();
    }
    close(done[1]);
    ssize_t size = read(done[0], &byte, 1);
    close(done[0]);
    assert_true(pid > 0 && size == 1);
    return pid;
}

/* When the parent is done, so are port and log, whoever else lives on. */
static void nothing_outlives_the_parents_handle(void **state)
{
    struct scene *scene = *state;
    int log[2];
    assert_int_equal(pipe2(log, O_CLOEXEC), 0);
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.log_fd = log[1];
    get_ready(scene, spec);
    close(log[1]);
    uint16_t port = kp_handle_port(scene->proxy);
    pid_t worker = fork_a_worker_that_lets_go(scene);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    int taken = bind_socket("127.0.0.1", port, BIND_PLAIN | BIND_LISTEN);
    struct pollfd reader = {.fd = log[0], .events = POLLIN};
    int hung_up = poll(&reader, 1, PATIENCE_MS / 10);
    kill(worker, SIGKILL);
    waitpid(worker, NULL, 0);
    close(log[0]);
    close(taken);
    assert_true(taken >= 0);
    assert_int_equal(hung_up, 1);
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
        EACH_WAY(the_child_may_let_go),
        EACH_WAY(so_may_a_grandchild_and_then_the_child),
        EACH_WAY(the_parent_has_nothing_to_let_go_of),
        EACH_WAY(of_a_proxy_that_starts),
        EACH_WAY(of_a_proxy_that_stops),
        EACH_WAY(of_a_proxy_that_has_ended),
        TEST(nothing_outlives_the_parents_handle),
    };
    return RUN(tests);
}
