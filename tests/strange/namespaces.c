/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts and pid namespaces: one that is init of its own, one that forks into another, one that
 * stands between two, and those whose /proc is another's, hides others, or is not there.
 */
#include "../process.h"
#include "filter.h"
#include "forked.h"
#include "namespace.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- A host that is init --------------------------------------------------- */

static pid_t fork_and_exit_with(int status)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(status);
    return pid;
}

static void check_status(pid_t pid, int expected)
{
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == expected);
}

/* The workers are the host's now, and zombies until it reaps them: they do not count. */
static void run_workers_as_init(struct scene *scene)
{
    CHECK(getpid() == 1);
    check_ready(scene, with_grace(FIXTURE("workers", "3"), LONG_GRACE));
    CHECK(check_stop(scene, -1) < PROMPT);
    CHECK(reap_all() == 3);
    CHECK(alone_in_namespace());
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_READY));
    CHECK(check_free(scene) < PROMPT);
    CHECK(reap_all() == 3);
    CHECK(alone_in_namespace());
}

static void a_host_that_is_init(void **state)
{
    assert_int_equal(as_init(PROC_FRESH, run_workers_as_init, *state), 0);
}

/* Zombies in a group in which others live: these have their grace, and are killed. */
static void run_deaf_workers_as_init(struct scene *scene)
{
    check_ready(scene, with_grace(DEAF_BEHIND_A_WRAPPER, 300));
    int64_t took = check_stop(scene, -1);
    CHECK(took >= 300 && took < 300 + KILL_TIME + SLACK);
    CHECK(reap_all() == 3);
    CHECK(alone_in_namespace());
}

static void its_deaf_orphans_are_killed(void **state)
{
    assert_int_equal(as_init(PROC_FRESH, run_deaf_workers_as_init, *state), 0);
}

/* What ends by itself leaves orphans too. */
static void see_an_exit_as_init(struct scene *scene)
{
    check_ready(scene,
                with_grace(SHELL("trap 'exit 5' USR1; \"$0\" workers 2 & wait"), LONG_GRACE));
    CHECK(kill(kp_handle_pid(scene->proxy), SIGUSR1) == 0);
    CHECK_RESULT(KP_ERR_EXITED, told_somehow(scene));
    CHECK(scene->error.exit_code == 5);
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    CHECK(reap_all() == 3);
    CHECK(alone_in_namespace());
}

static void what_an_exit_leaves_to_it_is_stopped(void **state)
{
    assert_int_equal(as_init(PROC_FRESH, see_an_exit_as_init, *state), 0);
}

/* An orphan that the host inherits, and a child of its own: both are still there to be waited for.
 */
static void keep_children_as_init(struct scene *scene)
{
    pid_t own = fork_and_exit_with(7), parent = fork();
    CHECK(parent >= 0);
    if (parent == 0) {
        fork_and_exit_with(9);
        _exit(8);
    }
    check_status(parent, 8);
    pid_t group = getpgrp();
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    CHECK(check_stop(scene, -1) < PROMPT);
    check_free(scene);
    check_status(own, 7);
    int status;
    CHECK(waitpid(-group, &status, 0) > 0 && WEXITSTATUS(status) == 9);
    CHECK(alone_in_namespace());
}

static void its_other_children_are_its_own(void **state)
{
    assert_int_equal(as_init(PROC_FRESH, keep_children_as_init, *state), 0);
}

static atomic_bool reaping;

static void *reap_everybody(void *unused)
{
    while (reaping)
        if (waitpid(-1, NULL, WNOHANG) <= 0)
            sleep_ms(1);
    return unused;
}

/* As an init does it. */
static void run_beside_a_reaper(struct scene *scene)
{
    pthread_t thread;
    reaping = true;
    CHECK(pthread_create(&thread, NULL, reap_everybody, NULL) == 0);
    check_ready(scene, with_grace(FIXTURE("workers", "3"), LONG_GRACE));
    CHECK(check_stop(scene, -1) < PROMPT);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_READY));
    CHECK(check_free(scene) < PROMPT);
    check_ready(scene, with_grace(DEAF_BEHIND_A_WRAPPER, 300));
    CHECK(check_free(scene) < 300 + KILL_TIME + SLACK);
    reaping = false;
    CHECK(pthread_join(thread, NULL) == 0);
    reap_all();
    CHECK(alone_in_namespace());
}

static void an_init_whose_thread_reaps(void **state)
{
    assert_int_equal(as_init(PROC_FRESH, run_beside_a_reaper, *state), 0);
}

/* ---- A host that forks into another namespace --------------------------------- */

static int own_namespace(void)
{
    int fd = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

/* The init of a new namespace; this process's next children are in its own again. */
static pid_t fork_an_init(void)
{
    int own = own_namespace();
    CHECK(unshare(CLONE_NEWPID) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid != 0)
        CHECK(setns(own, CLONE_NEWPID) == 0);
    close(own);
    return pid;
}

static size_t count_descriptors(void)
{
    size_t count = 0;
    for (int fd = 0; fd < MAX_FDS; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* No page of the parent's tells the two apart, and no number does. */
static void be_refused_everything(struct scene *scene)
{
    kp_error error;
    CHECK(getpid() == 1 && getppid() == 0);
    CHECK(kp_handle_step(scene->proxy, &error) == KP_ERR_FORKED);
    CHECK(kp_handle_wait(scene->proxy, KP_STATE_EXITED, 0, &error) == KP_ERR_FORKED);
    CHECK(kp_handle_restart(scene->proxy, &error) == KP_ERR_FORKED);
    CHECK(kp_handle_stop(scene->proxy, 0) == KP_ERR_FORKED);
    CHECK(kp_handle_fd(scene->proxy) == -1);
    CHECK(kp_handle_state(scene->proxy) == KP_STATE_READY);
    kp_handle_free(scene->proxy);
}

static void fork_into_another_init(struct scene *scene)
{
    CHECK(getpid() == 1);
    size_t before = count_descriptors();
    check_ready(scene, with_grace(FIXTURE("workers", "1"), LONG_GRACE));
    size_t with_proxy = count_descriptors();
    pid_t pid = fork_an_init();
    if (pid == 0) {
        be_refused_everything(scene);
        CHECK(count_descriptors() == before);
        _exit(7);
    }
    check_status(pid, 7);
    CHECK(count_descriptors() == with_proxy);
    CHECK(process_lives(kp_handle_pid(scene->proxy)));
    CHECK(port_answers(kp_handle_port(scene->proxy)));
    CHECK_RESULT(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    CHECK(check_stop(scene, -1) < PROMPT);
    check_free(scene);
    CHECK(count_descriptors() == before);
    CHECK(reap_all() == 1);
    CHECK(alone_in_namespace());
}

static void a_child_that_is_init_as_its_parent_is(void **state)
{
    assert_int_equal(as_init(PROC_FRESH, fork_into_another_init, *state), 0);
}

/* It is a host itself: its /proc is its parent's, and shows its own numbers as others'. */
static void run_proxies_in_both(struct scene *scene)
{
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    pid_t pid = fork_an_init();
    if (pid == 0) {
        kp_handle *parents = scene->proxy;
        check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
        CHECK(kp_handle_port(scene->proxy) != kp_handle_port(parents));
        CHECK(check_stop(scene, -1) < PROMPT);
        check_free(scene);
        CHECK(alone_in_namespace());
        kp_handle_free(parents);
        _exit(7);
    }
    check_status(pid, 7);
    CHECK_RESULT(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    CHECK(check_stop(scene, -1) < PROMPT);
    CHECK(alone_in_namespace());
}

static void both_inits_have_proxies(void **state)
{
    assert_int_equal(as_init(PROC_FRESH, run_proxies_in_both, *state), 0);
}

/* ---- A host between two namespaces ---------------------------------------------- */

static void check_refused(struct scene *scene, kp_result result)
{
    CHECK_RESULT(KP_ERR_STATE, result);
    CHECK(scene->error.code == KP_ERR_STATE);
    CHECK(strstr(scene->error.message, "pid namespace") != NULL);
}

static void check_starts_refused(struct scene *scene)
{
    kp_spec spec = with_grace(FIXTURE("serve"), LONG_GRACE);
    kp_handle *none = scene->proxy;
    size_t before = count_descriptors();
    spec.flags = scene->way->flags;
    check_refused(scene, kp_start(&spec, &none, &scene->error));
    CHECK(none == NULL);
    error_fill(&scene->error);
    check_refused(scene, kp_spawn(&spec, &none, &scene->error));
    CHECK(none == NULL && count_descriptors() == before);
}

/* Everything that a host does, in a child that is where its parent's children go. */
static void check_child_works(struct scene *scene)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        check_status(pid, 7);
        return;
    }
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    CHECK(check_stop(scene, -1) < PROMPT);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_READY));
    CHECK(check_free(scene) < PROMPT);
    _exit(7);
}

static void start_after_unshare(struct scene *scene)
{
    int own = own_namespace();
    CHECK(unshare(CLONE_NEWPID) == 0);
    check_starts_refused(scene);
    check_child_works(scene);
    check_starts_refused(scene); /* its child was the other namespace's init, and is gone */
    CHECK(setns(own, CLONE_NEWPID) == 0);
    close(own);
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    CHECK(check_free(scene) < PROMPT);
    CHECK(alone_in_namespace());
}

static void a_host_between_unshare_and_fork(void **state)
{
    assert_int_equal(below_init(PROC_FRESH, start_after_unshare, *state), 0);
}

static int namespace_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/ns/pid", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static void start_after_setns(struct scene *scene)
{
    pid_t init = fork_an_init();
    if (init == 0)
        for (;;)
            pause();
    int own = own_namespace(), other = namespace_of(init);
    CHECK(setns(other, CLONE_NEWPID) == 0);
    check_starts_refused(scene);
    check_child_works(scene);
    check_starts_refused(scene);
    CHECK(setns(own, CLONE_NEWPID) == 0);
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    CHECK(check_free(scene) < PROMPT);
    CHECK(kill(init, SIGKILL) == 0 && waitpid(init, NULL, 0) == init);
    CHECK(alone_in_namespace());
}

static void a_host_between_setns_and_fork(void **state)
{
    assert_int_equal(below_init(PROC_FRESH, start_after_setns, *state), 0);
}

/* What runs where the host is goes on, and can be stopped; it can't be started there again. */
static void stop_and_restart_between(struct scene *scene)
{
    int own = own_namespace();
    check_ready(scene, with_grace(FIXTURE("workers", "1"), LONG_GRACE));
    CHECK(unshare(CLONE_NEWPID) == 0);
    CHECK_RESULT(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    CHECK(check_stop(scene, -1) < PROMPT);
    check_refused(scene, kp_handle_restart(scene->proxy, &scene->error));
    CHECK(kp_handle_state(scene->proxy) == KP_STATE_EXITED);
    CHECK(kp_handle_exit_status(scene->proxy, NULL, NULL) == 1);
    CHECK(setns(own, CLONE_NEWPID) == 0);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_READY));
    CHECK(unshare(CLONE_NEWPID) == 0);
    CHECK(check_free(scene) < PROMPT);
}

static void it_can_stop_but_not_restart(void **state)
{
    assert_int_equal(below_init(PROC_FRESH, stop_and_restart_between, *state), 0);
}

/* ---- A /proc that does not show them ---------------------------------------------- */

/* Whose numbers /proc shows as others', or not at all: no listener is taken for a stranger's. */
static void stop_prompt_ones(struct scene *scene)
{
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    CHECK(check_stop(scene, -1) < PROMPT);
    CHECK(alone_in_namespace());
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_READY));
    CHECK(check_free(scene) < PROMPT);
    check_ready(scene, with_grace(SHELL("\"$0\" serve & wait"), 300));
    CHECK(check_free(scene) < 300 + KILL_TIME + SLACK);
    reap_all();
    CHECK(alone_in_namespace());
}

/* Nobody is lost: what nobody can see has its grace, and is killed. */
static void stop_deaf_ones(struct scene *scene)
{
    check_ready(scene, with_grace(DEAF_BEHIND_A_WRAPPER, 300));
    int64_t took = check_stop(scene, -1);
    CHECK(took >= 300 && took < 300 + KILL_TIME + SLACK);
    reap_all();
    CHECK(alone_in_namespace());
}

static void fail_to_start(struct scene *scene)
{
    CHECK_RESULT(KP_OK, start(scene, with_grace(FIXTURE("exit", "5"), LONG_GRACE)));
    CHECK_RESULT(KP_ERR_EXITED, told_somehow(scene));
    CHECK(scene->error.exit_code == 5);
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    CHECK(check_free(scene) < PROMPT);
    kp_spec spec = with_grace(FIXTURE("never"), LONG_GRACE);
    spec.startup_timeout_ms = 100;
    CHECK_RESULT(KP_OK, start(scene, spec));
    CHECK_RESULT(KP_ERR_TIMED_OUT, told_somehow(scene));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    CHECK(check_free(scene) < PROMPT);
    CHECK(alone_in_namespace());
}

static void live_unseen(struct scene *scene)
{
    stop_prompt_ones(scene);
    stop_deaf_ones(scene);
    check_free(scene);
    fail_to_start(scene);
}

static void a_proc_of_the_parents(void **state)
{
    assert_int_equal(below_init(PROC_OF_PARENT, live_unseen, *state), 0);
}

static void a_proc_of_the_parents_as_init(void **state)
{
    assert_int_equal(as_init(PROC_OF_PARENT, live_unseen, *state), 0);
}

static void no_proc_at_all(void **state)
{
    assert_int_equal(below_init(PROC_ABSENT, live_unseen, *state), 0);
}

static void no_proc_at_all_as_init(void **state)
{
    assert_int_equal(as_init(PROC_ABSENT, live_unseen, *state), 0);
}

/* As on Linux before 6.9: nothing but nice values tells then that nobody is left. */
static void live_unseen_without_group_signals(struct scene *scene)
{
    refuse(&refuse_group_signals, 1);
    live_unseen(scene);
}

static void no_proc_and_no_group_signals(void **state)
{
    assert_int_equal(below_init(PROC_ABSENT, live_unseen_without_group_signals, *state), 0);
}

/* That its children's namespace has no link there, as before Linux 4.12, is no reason to refuse. */
static void start_without_the_childrens_link(struct scene *scene)
{
    CHECK(mkdir("/proc/thread-self", 0755) == 0 && mkdir("/proc/thread-self/ns", 0755) == 0);
    CHECK(symlink("pid:[4026531836]", "/proc/thread-self/ns/pid") == 0);
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    CHECK(check_free(scene) < PROMPT);
}

static void a_proc_of_before_linux_4_12(void **state)
{
    assert_int_equal(below_init(PROC_ABSENT, start_without_the_childrens_link, *state), 0);
}

/* ---- Whose the port is, where that can't be seen --------------------------------------- */

static void meet_a_listener(struct scene *scene)
{
    uint16_t port = free_port();
    int fd = bind_socket("127.0.0.1", port, BIND_REUSEADDR | BIND_LISTEN);
    CHECK(fd >= 0);
    kp_spec spec = with_grace(FIXTURE("serve"), LONG_GRACE);
    spec.port = port;
    CHECK_RESULT(KP_ERR_PORT_IN_USE, kp_start(&spec, &scene->proxy, &scene->error));
    CHECK(strstr(scene->error.message, "a process of uid 0") != NULL);
    close(fd);
}

static void a_port_in_use_without_proc(void **state)
{
    assert_int_equal(below_init(PROC_ABSENT, meet_a_listener, *state), 0);
}

static void a_port_in_use_with_the_parents_proc(void **state)
{
    assert_int_equal(below_init(PROC_OF_PARENT, meet_a_listener, *state), 0);
}

/* ---- A /proc that hides others' ----------------------------------------------------- */

static const char *own_fixture; /* where another user may execute it */

static bool sees(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld", (long)pid);
    return access(path, F_OK) == 0;
}

static void live_as_somebody(struct scene *scene)
{
    CHECK(become_somebody());
    CHECK(!sees(1) && sees(getpid()));
    use_fixture(own_fixture);
    live_unseen(scene);
}

static void live_hidden(struct scene *scene, const char *mode, host_body *host, const char *test)
{
    if (geteuid() != 0) {
        left_out_part(test, "without root, who can become another user");
        return;
    }
    own_fixture = install_program(scene, fixture(), "fixture", mode);
    assert_int_equal(below_init(PROC_HIDING, host, scene), 0);
}

static void others_are_hidden(void **state)
{
    live_hidden(*state, "755", live_as_somebody, __func__);
}

/* A program that its user may not read can't be looked into while it runs. */
static void stop_hidden_ones(struct scene *scene)
{
    CHECK(become_somebody());
    check_ready(scene, with_grace(WORDS("/bin/sh", "-c", DEAF_SCRIPT, own_fixture), 300));
    int64_t took = check_stop(scene, -1);
    CHECK(took >= 300 && took < 300 + KILL_TIME + SLACK);
    reap_all();
    CHECK(alone_in_namespace());
    check_free(scene);
}

static void hidden_members_have_their_grace(void **state)
{
    live_hidden(*state, "711", stop_hidden_ones, __func__);
}

int main(void)
{
    int status = leave_out_without_namespaces();
    if (status >= 0)
        return status;
    const struct CMUnitTest tests[] = {
        EACH_WAY(a_host_that_is_init),
        EACH_WAY(its_deaf_orphans_are_killed),
        EACH_WAY(what_an_exit_leaves_to_it_is_stopped),
        EACH_WAY(its_other_children_are_its_own),
        EACH_WAY(an_init_whose_thread_reaps),
        EACH_WAY(a_child_that_is_init_as_its_parent_is),
        EACH_WAY(both_inits_have_proxies),
        EACH_WAY(a_host_between_unshare_and_fork),
        EACH_WAY(a_host_between_setns_and_fork),
        EACH_WAY(it_can_stop_but_not_restart),
        EACH_WAY(a_proc_of_the_parents),
        EACH_WAY(a_proc_of_the_parents_as_init),
        EACH_WAY(no_proc_at_all),
        EACH_WAY(no_proc_at_all_as_init),
        EACH_WAY(no_proc_and_no_group_signals),
        EACH_WAY(a_proc_of_before_linux_4_12),
        TEST(a_port_in_use_without_proc),
        TEST(a_port_in_use_with_the_parents_proc),
        EACH_WAY(others_are_hidden),
        EACH_WAY(hidden_members_have_their_grace),
    };
    return RUN(tests);
}
