/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts that fork workers, which never call exec and hold a copy of everything. Whoever frees
 * first, the parent's proxy lives its life, and ends with it.
 */
#include "filter.h"
#include "life.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Workers ------------------------------------------------------------------------ */

struct worker {
    pid_t pid;
    int order, answer; /* a byte each: free it; it is free */
};

enum { TIMES = 10 };

static struct worker running[TIMES];
static size_t running_count;

static void look_free_and_tell(struct scene *scene, int order, int answer)
{
    char byte;
    CHECK(kp_handle_step(scene->proxy, NULL) == KP_ERR_FORKED);
    CHECK(read(order, &byte, 1) == 1);
    struct census before = census_take();
    kp_handle_free(scene->proxy);
    CHECK(census_take().fds < before.fds);
    CHECK(write(answer, &byte, 1) == 1);
}

/* Lives on with its copy freed, until it is ended. */
static _Noreturn void be_a_worker(struct scene *scene, int order, int answer)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    look_free_and_tell(scene, order, answer);
    for (;;)
        pause();
}

/* The ends of the pipes that are not its own would keep it waiting for ever. */
static struct worker fork_worker(struct scene *scene)
{
    int order[2], answer[2];
    assert_int_equal(pipe(order), 0);
    assert_int_equal(pipe(answer), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(order[1]);
        close(answer[0]);
        be_a_worker(scene, order[0], answer[1]);
    }
    close(order[0]);
    close(answer[1]);
    running[running_count] = (struct worker){pid, order[1], answer[0]};
    return running[running_count++];
}

static void order_free(const struct worker *worker)
{
    assert_int_equal(write(worker->order, "f", 1), 1);
}

static void await_freed(const struct worker *worker)
{
    char byte = 0;
    assert_int_equal(read(worker->answer, &byte, 1), 1); /* it may have failed instead */
}

static void let_free(const struct worker *worker)
{
    order_free(worker);
    await_freed(worker);
}

static void end_workers(void)
{
    for (; running_count > 0; running_count--) {
        const struct worker *worker = &running[running_count - 1];
        close(worker->order);
        close(worker->answer);
        kill(worker->pid, SIGKILL);
        waitpid(worker->pid, NULL, 0);
    }
}

/* ---- The rest of the parent's life --------------------------------------------------------- */

static void become_ready(struct scene *scene)
{
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
}

static void stop(struct scene *scene)
{
    pid_t group = getpgid(kp_handle_pid(scene->proxy));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    assert_int_equal(group_size(group), 0);
}

static void free_now(struct scene *scene)
{
    pid_t pid = kp_handle_pid(scene->proxy);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    assert_false(process_lives(pid));
}

static void live_to_the_end(struct scene *scene)
{
    become_ready(scene);
    stop(scene);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    become_ready(scene);
    free_now(scene);
}

static void start_late(struct scene *scene)
{
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("late", "500"))));
    if (!scene->way->blocks && scene->way->pause != ways[2].pause)
        assert_true(kp_handle_fd(scene->proxy) >= 0);
    assert_result(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
}

/* ---- While it starts --------------------------------------------------------------------------
 */

static void the_child_frees_before_it_is_ready(void **state)
{
    struct scene *scene = *state;
    start_late(scene);
    struct worker worker = fork_worker(scene);
    let_free(&worker);
    live_to_the_end(scene);
}

/* All the time a copy of each descriptor is open elsewhere. */
static void the_child_frees_after_all(void **state)
{
    struct scene *scene = *state;
    start_late(scene);
    struct worker worker = fork_worker(scene);
    live_to_the_end(scene);
    let_free(&worker);
}

static void the_child_frees_between_two_lives(void **state)
{
    struct scene *scene = *state;
    start_late(scene);
    struct worker worker = fork_worker(scene);
    become_ready(scene);
    stop(scene);
    let_free(&worker);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    live_to_the_end(scene);
}

/* The first life's pipe in the child is not the second's. */
static void the_child_frees_in_the_second_life(void **state)
{
    struct scene *scene = *state;
    start_late(scene);
    struct worker worker = fork_worker(scene);
    become_ready(scene);
    stop(scene);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    become_ready(scene);
    let_free(&worker);
    assert_result(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
    live_to_the_end(scene);
}

static void the_child_is_killed_with_its_copy(void **state)
{
    struct scene *scene = *state;
    start_late(scene);
    fork_worker(scene);
    end_workers();
    live_to_the_end(scene);
}

/* ---- While it stops -------------------------------------------------------------------------- */

static void begin_to_stop(struct scene *scene)
{
    kp_spec spec = spec_for(SHELL("\"$0\" deaf-workers 2 & wait"));
    spec.stop_grace_ms = 500;
    get_ready(scene, spec);
}

static void the_child_frees_while_it_stops(void **state)
{
    struct scene *scene = *state;
    begin_to_stop(scene);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
    struct worker worker = fork_worker(scene);
    let_free(&worker);
    get_exited(scene);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    live_to_the_end(scene);
}

/* ---- Both at once ------------------------------------------------------------------------------
 */

static void both_free_at_once(void **state)
{
    struct scene *scene = *state;
    for (int i = 0; i < TIMES; i++) {
        get_ready(scene, spec_for(FIXTURE("workers", "1")));
        struct worker worker = fork_worker(scene);
        order_free(&worker);
        free_now(scene);
        await_freed(&worker);
        end_workers();
    }
}

static void many_children_free_at_once(void **state)
{
    struct scene *scene = *state;
    struct worker workers[TIMES];
    start_late(scene);
    for (int i = 0; i < TIMES; i++)
        workers[i] = fork_worker(scene);
    for (int i = 0; i < TIMES; i++)
        order_free(&workers[i]);
    become_ready(scene);
    for (int i = 0; i < TIMES; i++)
        await_freed(&workers[i]);
    live_to_the_end(scene);
}

/* ---- The parent's descriptor
 * ------------------------------------------------------------------------ */

static bool is_readable(kp_handle *handle)
{
    struct pollfd watched = {.fd = kp_handle_fd(handle), .events = POLLIN};
    return poll(&watched, 1, 0) > 0;
}

/* What was watched in an earlier life is open in the child: it must not stay ready in the parent's
 * descriptor, of which a loop would never sleep again. */
static void copies_of_what_has_ended_wake_nobody(void **state)
{
    struct scene *scene = *state;
    begin_to_stop(scene);
    assert_true(kp_handle_fd(scene->proxy) >= 0);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
    struct worker worker = fork_worker(scene);
    get_exited(scene);
    assert_false(is_readable(scene->proxy));
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    become_ready(scene);
    assert_result(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    assert_false(is_readable(scene->proxy));
    let_free(&worker);
    assert_false(is_readable(scene->proxy));
}

/* ---- The parent dies
 * ---------------------------------------------------------------------------------- */

/* The worker is the one that lives on; its parent, the host, leaves without a free. */
static void outlive_the_host(struct scene *scene)
{
    int alive[2];
    char byte;
    kp_spec spec = marked(scene, FIXTURE("serve"));
    spec.flags = scene->way->flags;
    spec.stop_grace_ms = 200;
    CHECK_RESULT(KP_OK, kp_spawn(&spec, &scene->proxy, &scene->error));
    CHECK(pipe(alive) == 0);
    pid_t worker = fork();
    CHECK(worker >= 0);
    if (worker > 0)
        _exit(0);
    close(alive[1]);
    CHECK(read(alive[0], &byte, 1) == 0); /* the host has gone */
    close(alive[0]);
}

/* To the last of the guard's holders it makes no difference which of them has made the handle. */
static void free_the_last_copy(struct scene *scene)
{
    int done[2];
    char byte = 0;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    CHECK(pipe(done) == 0);
    pid_t host = fork();
    if (host == 0) {
        outlive_the_host(scene);
        pid_t pid = kp_handle_pid(scene->proxy);
        sleep_ms(100);
        CHECK(answers(kp_handle_port(scene->proxy)));
        kp_handle_free(scene->proxy);
        CHECK(eventually_gone(pid));
        CHECK(write(done[1], "d", 1) == 1);
        _exit(0);
    }
    close(done[1]);
    CHECK(read(done[0], &byte, 1) == 1);
    while (waitpid(-1, NULL, 0) > 0)
        ;
}

static void the_last_copy_holds_the_proxy(void **state)
{
    run_host(free_the_last_copy, *state, __func__);
}

/* ---- Where fork() leaves nothing else ---------------------------------------------------- */

/* All else may be the lock of a thread that is not there any more. */
static void detach_where_only_closing_is_possible(struct scene *scene)
{
    const long calls[] = {SYS_close, SYS_exit_group};
    permit(calls, sizeof calls / sizeof *calls);
    kp_handle_detach(scene->proxy);
    syscall(SYS_exit_group, 0);
}

static void detaching_only_closes(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("late", "100"))));
    assert_true(kp_handle_fd(scene->proxy) >= 0);
    assert_int_equal(in_child(detach_where_only_closing_is_possible, scene), 0);
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_READY, PATIENCE_MS, NULL));
    assert_int_equal(in_child(detach_where_only_closing_is_possible, scene), 0);
    stop(scene);
    assert_int_equal(in_child(detach_where_only_closing_is_possible, scene), 0);
}

int main(void)
{
    static const struct CMUnitTest own[] = {
        EACH_WAY(the_child_frees_before_it_is_ready),
        EACH_WAY(the_child_frees_after_all),
        EACH_WAY(the_child_frees_between_two_lives),
        EACH_WAY(the_child_frees_in_the_second_life),
        EACH_WAY(the_child_is_killed_with_its_copy),
        EACH_WAY(the_child_frees_while_it_stops),
        EACH_WAY(both_free_at_once),
        EACH_WAY(many_children_free_at_once),
        TEST(the_last_copy_holds_the_proxy),
        TEST_WAY(detaching_only_closes, "guard", &ways[1]),
        TEST_WAY(detaching_only_closes, "no guard", &ways[3]),
        TEST_WAY(copies_of_what_has_ended_wake_nobody, "guard", &ways[1]),
        TEST_WAY(copies_of_what_has_ended_wake_nobody, "no guard", &ways[3]),
    };
    end_leftovers = end_workers;
    return run_strange(NULL, 0, own, sizeof own / sizeof *own);
}
