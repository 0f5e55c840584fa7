/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proxies that the host can't end: one that made itself root, a member of the group who is another
 * user, and one that outlasts SIGKILL. No call hangs, and each is told of by its pid. The test's
 * own process is root, and ends them by that.
 */
#include "../process.h"
#include "forked.h"
#include "namespace.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef ST_NOSUID
#define ST_NOSUID 2
#endif

enum { GRACE = 300, BOUND = GRACE + KILL_TIME + SLACK };

static const char *rooted;      /* a setuid root program that becomes its user altogether */
static const char *own_fixture; /* where somebody else may execute it */

static const char *strange_proxy(void)
{
    const char *path = getenv("KP_STRANGE");
    if (path == NULL)
        fail_msg("KP_STRANGE does not name the strange proxy");
    return path;
}

/* ---- Root, who helps the host ------------------------------------------------ */

enum help { END_IT, JOIN_GROUP, HOLD_AT_EXIT, LET_GO };

struct request {
    enum help help;
    pid_t pid; /* or a group */
};

static int channel = -1; /* the host's end */

/* The helper's answer: a pid, or 0. */
static pid_t ask_root(enum help help, pid_t pid)
{
    struct request request = {help, pid};
    pid_t answer = -1;
    CHECK(write(channel, &request, sizeof request) == sizeof request);
    CHECK(read(channel, &answer, sizeof answer) == sizeof answer);
    return answer;
}

static void kill_it(pid_t pid)
{
    assert_true(pid > 1);
    kill(pid, SIGKILL);
    assert_true(eventually_gone(pid));
}

static bool is_member(const void *data)
{
    const pid_t *pids = data;
    return getpgid(pids[0]) == pids[1];
}

/* A stranger of another user joins the group, as anybody in the session can. */
static pid_t join_group(pid_t group)
{
    pid_t pids[2] = {fork(), group};
    if (pids[0] == 0) {
        alarm(60);
        if (setpgid(0, group) != 0)
            _exit(1);
        for (;;)
            pause();
    }
    assert_true(eventually(is_member, pids));
    return pids[0];
}

/* Its SIGKILL has come, and it is not allowed to leave: as one that is stuck in the kernel. */
static void hold_at_exit(pid_t pid)
{
    assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACEEXIT), 0);
}

static void let_go(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, __WALL), pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
    assert_true(eventually_gone(pid));
}

static pid_t help(struct request request)
{
    switch (request.help) {
    case END_IT:
        kill_it(request.pid);
        return 0;
    case JOIN_GROUP:
        return join_group(request.pid);
    case HOLD_AT_EXIT:
        hold_at_exit(request.pid);
        return 0;
    default:
        let_go(request.pid);
        return 0;
    }
}

static void run_helped(struct scene *scene, host_body *body, bool as_somebody)
{
    int ends[2], status = 0;
    struct request request;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    pid_t host = fork();
    if (host == 0) {
        close(ends[0]);
        channel = ends[1];
        alarm(50);
        CHECK(!as_somebody || become_somebody());
        use_fixture(own_fixture);
        body(scene);
        _exit(0);
    }
    close(ends[1]);
    while (read(ends[0], &request, sizeof request) == sizeof request) {
        pid_t answer = help(request);
        assert_int_equal(write(ends[0], &answer, sizeof answer), sizeof answer);
    }
    close(ends[0]);
    assert_int_equal(waitpid(host, &status, 0), host);
    while (waitpid(-1, NULL, WNOHANG) > 0) /* who joined the group */
        ;
    assert_int_equal(status, 0);
}

static void install(struct scene *scene)
{
    own_fixture = install_program(scene, fixture(), "fixture", "755");
    rooted = install_program(scene, strange_proxy(), "rooted", "4755");
}

static void run_as_somebody(struct scene *scene, host_body *body)
{
    install(scene);
    run_helped(scene, body, true);
}

/* ---- What is given up -------------------------------------------------------------- */

static void check_told(const struct scene *scene, pid_t pid)
{
    char number[32];
    snprintf(number, sizeof number, "process %ld ", (long)pid);
    CHECK(scene->error.code == KP_ERR_SYSTEM);
    CHECK(strstr(scene->error.message, number) != NULL);
}

/* As reach(EXITED), which keeps to itself what a step tells on the way there. */
static kp_result reach_end(struct scene *scene)
{
    return scene->way->blocks ? reach(scene, KP_STATE_EXITED)
                              : step_until_told(scene, &scene->error);
}

/* In time, once, and EXITED is reached all the same. */
static void check_given_up(struct scene *scene, pid_t pid)
{
    int64_t begin = now_ms();
    CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, -1));
    CHECK_RESULT(KP_ERR_SYSTEM, reach_end(scene));
    CHECK(now_ms() - begin >= GRACE && now_ms() - begin < BOUND);
    check_told(scene, pid);
    CHECK(kp_handle_state(scene->proxy) == KP_STATE_EXITED);
    CHECK_RESULT(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, &scene->error));
    CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, 0));
}

static void check_freed_in_time(struct scene *scene)
{
    CHECK(check_free(scene) < BOUND);
}

#define ROOTED WORDS(rooted, "become", "0", "listen", "127.0.0.1")

/* ---- A proxy that is root -------------------------------------------------------------- */

static void outlive_a_rooted_proxy(struct scene *scene)
{
    check_ready(scene, with_grace(ROOTED, GRACE));
    pid_t proxy = kp_handle_pid(scene->proxy);
    CHECK(kill(proxy, 0) != 0);
    check_given_up(scene, proxy);
    CHECK(kp_handle_exit_status(scene->proxy, NULL, NULL) == 0);
    CHECK(process_lives(proxy));
    CHECK_RESULT(KP_ERR_SYSTEM, kp_handle_restart(scene->proxy, &scene->error));
    check_told(scene, proxy);
    CHECK(kp_handle_state(scene->proxy) == KP_STATE_EXITED);
    ask_root(END_IT, proxy);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach(scene, KP_STATE_READY));
    CHECK(waitpid(proxy, NULL, WNOHANG) < 0); /* the first one was reaped */
    proxy = kp_handle_pid(scene->proxy);
    check_given_up(scene, proxy);
    ask_root(END_IT, proxy);
    check_freed_in_time(scene);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

static void a_proxy_that_made_itself_root(void **state)
{
    run_as_somebody(*state, outlive_a_rooted_proxy);
}

static void free_a_rooted_proxy(struct scene *scene)
{
    check_ready(scene, with_grace(ROOTED, GRACE));
    pid_t proxy = kp_handle_pid(scene->proxy);
    check_freed_in_time(scene);
    CHECK(process_lives(proxy));
    ask_root(END_IT, proxy);
}

static void free_gives_it_up_too(void **state)
{
    run_as_somebody(*state, free_a_rooted_proxy);
}

enum { ROOTED_WITHIN = 1000 };

/* A start that fails gives it up as well. */
static void spawn_a_rooted_one(struct scene *scene)
{
    kp_spec spec = with_grace(WORDS(rooted, "become", "0", "never"), GRACE);
    spec.flags = scene->way->flags;
    spec.startup_timeout_ms = ROOTED_WITHIN;
    CHECK_RESULT(KP_OK, kp_start(&spec, &scene->proxy, &scene->error));
    pid_t proxy = kp_handle_pid(scene->proxy);
    int64_t begin = now_ms();
    CHECK_RESULT(KP_ERR_TIMED_OUT, reach(scene, KP_STATE_READY));
    CHECK_RESULT(KP_ERR_SYSTEM, reach_end(scene));
    CHECK(now_ms() - begin < ROOTED_WITHIN + BOUND);
    check_told(scene, proxy);
    check_freed_in_time(scene);
    ask_root(END_IT, proxy);
}

static void nor_does_its_failed_start_hang(void **state)
{
    run_as_somebody(*state, spawn_a_rooted_one);
}

/* ---- A member who is another user --------------------------------------------------------- */

/* What the host started itself is gone; another start does not meet who is left. */
static void check_only_one_is_left(struct scene *scene, pid_t member)
{
    pid_t proxy = kp_handle_pid(scene->proxy);
    check_given_up(scene, member);
    CHECK(kp_handle_exit_status(scene->proxy, NULL, NULL) == 1);
    CHECK(!process_lives(proxy) && process_lives(member));
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach(scene, KP_STATE_READY));
}

static void outlive_who_joined(struct scene *scene)
{
    check_ready(scene, with_grace(FIXTURE("serve"), GRACE));
    pid_t member = ask_root(JOIN_GROUP, getpgid(kp_handle_pid(scene->proxy)));
    check_only_one_is_left(scene, member);
    ask_root(END_IT, member);
    check_freed_in_time(scene);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0);
}

static void another_user_joined_the_group(void **state)
{
    run_as_somebody(*state, outlive_who_joined);
}

/* Where the leader is gone, the other user's process is all that is left to signal. */
static void outlive_who_joined_later(struct scene *scene)
{
    check_ready(scene, with_grace(FIXTURE("serve"), GRACE));
    pid_t group = getpgid(kp_handle_pid(scene->proxy));
    pid_t first = ask_root(JOIN_GROUP, group);
    CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, -1));
    CHECK_RESULT(KP_AGAIN, kp_handle_wait(scene->proxy, KP_STATE_EXITED, GRACE / 2, &scene->error));
    pid_t second = ask_root(JOIN_GROUP, group);
    ask_root(END_IT, first);
    CHECK_RESULT(KP_ERR_SYSTEM, reach_end(scene));
    check_told(scene, second);
    ask_root(END_IT, second);
    check_freed_in_time(scene);
}

static void another_user_joined_while_it_stopped(void **state)
{
    run_as_somebody(*state, outlive_who_joined_later);
}

static pid_t found;

static bool visit_other(const struct process *process, void *data)
{
    const pid_t *proxy = data;
    bool is_it = process->parent == *proxy && process_lives_in(process);
    found = is_it ? process->pid : found;
    return !is_it;
}

static bool has_worker(const void *proxy)
{
    pid_t pid = *(const pid_t *)proxy;
    found = 0;
    process_each(visit_other, &pid);
    return found != 0 && kill(found, 0) != 0;
}

static void outlive_a_rooted_worker(struct scene *scene)
{
    setenv("KP_ROOTED", rooted, 1);
    check_ready(scene,
                with_grace(SHELL("\"$KP_ROOTED\" become 0 never & exec \"$0\" serve"), GRACE));
    pid_t proxy = kp_handle_pid(scene->proxy);
    CHECK(eventually(has_worker, &proxy));
    pid_t worker = found;
    check_only_one_is_left(scene, worker);
    ask_root(END_IT, worker);
    proxy = kp_handle_pid(scene->proxy);
    CHECK(eventually(has_worker, &proxy));
    worker = found;
    check_freed_in_time(scene);
    CHECK(process_lives(worker) && !process_lives(proxy));
    ask_root(END_IT, worker);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0);
}

static void a_worker_that_made_itself_root(void **state)
{
    run_as_somebody(*state, outlive_a_rooted_worker);
}

/* In the group of a proxy that has left its own, which one that leads it can't. */
static void outlive_a_rooted_follower(struct scene *scene)
{
    setenv("KP_ROOTED", rooted, 1);
    check_ready(scene,
                with_grace(WORDS("setsid", "/bin/sh", "-c",
                                 "\"$KP_ROOTED\" become 0 never & exec \"$0\" serve", own_fixture),
                           GRACE));
    pid_t proxy = kp_handle_pid(scene->proxy);
    CHECK(eventually(has_worker, &proxy));
    check_given_up(scene, found);
    CHECK(process_lives(found) && !process_lives(proxy));
    ask_root(END_IT, found);
    check_freed_in_time(scene);
}

static void a_rooted_worker_outside_the_group(void **state)
{
    run_as_somebody(*state, outlive_a_rooted_follower);
}

/* ---- A proxy that outlasts SIGKILL ---------------------------------------------------------- */

static void outlive_a_stuck_proxy(struct scene *scene)
{
    check_ready(scene, with_grace(FIXTURE("deaf"), GRACE));
    pid_t proxy = kp_handle_pid(scene->proxy);
    ask_root(HOLD_AT_EXIT, proxy);
    check_given_up(scene, proxy);
    CHECK_RESULT(KP_ERR_SYSTEM, kp_handle_restart(scene->proxy, &scene->error));
    check_told(scene, proxy);
    ask_root(LET_GO, proxy);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach(scene, KP_STATE_READY));
    check_freed_in_time(scene);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0);
}

static void a_proxy_that_outlasts_sigkill(void **state)
{
    install(*state);
    run_helped(*state, outlive_a_stuck_proxy, false);
}

static void outlive_a_stuck_worker(struct scene *scene)
{
    check_ready(scene,
                with_grace(SHELL("(trap '' TERM; exec sleep 60) & exec \"$0\" serve"), GRACE));
    pid_t proxy = kp_handle_pid(scene->proxy);
    found = 0;
    process_each(visit_other, &proxy);
    CHECK(found != 0);
    pid_t worker = found;
    ask_root(HOLD_AT_EXIT, worker);
    check_given_up(scene, worker);
    CHECK(kp_handle_exit_status(scene->proxy, NULL, NULL) == 1);
    ask_root(LET_GO, worker);
    check_freed_in_time(scene);
}

static void a_worker_that_outlasts_sigkill(void **state)
{
    install(*state);
    run_helped(*state, outlive_a_stuck_worker, false);
}

/* It is a child of the host's, as the proxy is. */
static void outlive_a_stuck_guard(struct scene *scene)
{
    check_ready(scene, with_grace(FIXTURE("serve"), GRACE));
    pid_t guard = getpgid(kp_handle_pid(scene->proxy));
    ask_root(HOLD_AT_EXIT, guard);
    check_given_up(scene, guard);
    ask_root(LET_GO, guard);
    check_freed_in_time(scene);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0);
}

static void a_guard_that_outlasts_sigkill(void **state)
{
    install(*state);
    run_helped(*state, outlive_a_stuck_guard, false);
}

static bool has_setuid_programs(void)
{
    struct statfs place;
    return statfs("/tmp", &place) == 0 && (place.f_flags & ST_NOSUID) == 0;
}

int main(void)
{
    int status = leave_out_without_root();
    if (status >= 0)
        return status;
    if (!has_setuid_programs())
        return leave_out("no setuid programs in /tmp");
    const struct CMUnitTest tests[] = {
        EACH_WAY(a_proxy_that_made_itself_root),
        EACH_WAY(free_gives_it_up_too),
        EACH_WAY(nor_does_its_failed_start_hang),
        EACH_WAY(another_user_joined_the_group),
        EACH_WAY(another_user_joined_while_it_stopped),
        EACH_WAY(a_worker_that_made_itself_root),
        EACH_GUARDED_WAY(a_rooted_worker_outside_the_group),
        EACH_WAY(a_proxy_that_outlasts_sigkill),
        EACH_WAY(a_worker_that_outlasts_sigkill),
        EACH_GUARDED_WAY(a_guard_that_outlasts_sigkill),
    };
    return RUN(tests);
}
