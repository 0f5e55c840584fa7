/* SPDX-License-Identifier: Apache-2.0 */
/* However the host dies, and whenever: its proxy ends too, and so does the guard. */
#include "mortal.h"
#include "process.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MS = 200 };

static void kill_a_host_with(const struct plan *plan)
{
    struct host host = host_start(plan);
    assert_int_not_equal(host.group, host.proxy);
    host_kill(&host);
    assert_nobody_is_left();
}

static void a_host_dies_with(const struct plan *plan, int status)
{
    struct host host = host_start(plan);
    assert_int_equal(host_status(&host), status);
    assert_nobody_is_left();
}

/* ---- When ------------------------------------------------------------------- */

static void a_host_is_killed_with_a_ready_proxy(void **state)
{
    (void)state;
    kill_a_host_with(&(struct plan){.spec = guarded(FIXTURE("serve"), GRACE_MS), .ready = true});
}

static void a_host_is_killed_with_a_starting_proxy(void **state)
{
    (void)state;
    kill_a_host_with(&(struct plan){.spec = guarded(FIXTURE("never"), GRACE_MS)});
}

static void a_host_is_killed_with_a_deaf_proxy(void **state)
{
    (void)state;
    kill_a_host_with(&(struct plan){.spec = guarded(FIXTURE("deaf"), GRACE_MS), .ready = true});
}

static void a_host_is_killed_with_deaf_workers(void **state)
{
    (void)state;
    kill_a_host_with(
        &(struct plan){.spec = guarded(FIXTURE("deaf-workers", "3"), GRACE_MS), .ready = true});
}

static void stop_with_patience(kp_handle *proxy)
{
    kp_handle_stop(proxy, PATIENCE_MS);
    kp_handle_wait(proxy, KP_STATE_EXITED, -1, NULL);
}

/* The proxy has ended, its workers have not: the guard is still needed. */
static void a_host_is_killed_while_it_stops(void **state)
{
    (void)state;
    struct plan plan = {.spec = guarded(FIXTURE("deaf-workers", "2"), GRACE_MS),
                        .ready = true,
                        .then = stop_with_patience};
    struct host host = host_start(&plan);
    assert_true(eventually_gone(host.proxy));
    sleep_ms(100);
    assert_true(process_lives(host.group));
    host_kill(&host);
    assert_nobody_is_left();
}

static void restart(kp_handle *proxy)
{
    CHECK(kp_handle_stop(proxy, 0) == KP_OK);
    CHECK(kp_handle_wait(proxy, KP_STATE_EXITED, -1, NULL) == KP_OK);
    CHECK(kp_handle_restart(proxy, NULL) == KP_OK);
}

static void a_host_is_killed_while_it_restarts(void **state)
{
    (void)state;
    kill_a_host_with(&(struct plan){.spec = guarded(FIXTURE("never"), GRACE_MS), .later = restart});
}

static void restart_and_get_ready(kp_handle *proxy)
{
    restart(proxy);
    CHECK(kp_handle_wait(proxy, KP_STATE_READY, -1, NULL) == KP_OK);
}

static void a_host_is_killed_after_a_restart(void **state)
{
    (void)state;
    kill_a_host_with(&(struct plan){
        .spec = guarded(FIXTURE("deaf"), GRACE_MS), .ready = true, .later = restart_and_get_ready});
}

static _Noreturn void start_over_and_over(const kp_spec *spec)
{
    alarm(60);
    for (;;) {
        kp_handle *proxy;
        CHECK(kp_start(spec, &proxy, NULL) == KP_OK);
        kp_handle_stop(proxy, 0);
        kp_handle_free(proxy);
    }
}

/* At some moment of its first starts and stops, whatever it is doing then. */
static void kill_a_busy_host(const kp_spec *spec, int microseconds)
{
    struct timespec rest = {.tv_nsec = microseconds * 1000L};
    struct host host = {.pid = fork()};
    if (host.pid == 0)
        start_over_and_over(spec);
    nanosleep(&rest, NULL);
    host_kill(&host);
}

enum { BUSY_HOSTS = 60 };

static void hosts_that_are_killed_at_any_moment(void **state)
{
    (void)state;
    kp_spec spec = guarded(FIXTURE("never"), GRACE_MS);
    for (int i = 0; i < BUSY_HOSTS; i++)
        kill_a_busy_host(&spec, 100 + 97 * i);
    assert_nobody_is_left();
}

/* ---- By what ------------------------------------------------------------------ */

static void exit_by_then(void (*then)(kp_handle *), int status)
{
    a_host_dies_with(
        &(struct plan){.spec = guarded(FIXTURE("deaf"), GRACE_MS), .ready = true, .then = then},
        status);
}

static void leave_without_a_word(kp_handle *proxy)
{
    (void)proxy;
    _exit(7);
}

static void a_host_that_leaves_without_a_word(void **state)
{
    (void)state;
    exit_by_then(leave_without_a_word, 7);
}

static void leave(kp_handle *proxy)
{
    (void)proxy;
    exit(7);
}

static void a_host_that_exits_without_freeing(void **state)
{
    (void)state;
    exit_by_then(leave, 7);
}

static void abort_without_a_core(kp_handle *proxy)
{
    (void)proxy;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    abort();
}

static void a_host_that_aborts(void **state)
{
    (void)state;
    exit_by_then(abort_without_a_core, 128 + SIGABRT);
}

/* The thread is inside of the library all the while. */
static void *wait_for_the_end(void *proxy)
{
    kp_handle_wait(proxy, KP_STATE_EXITED, -1, NULL);
    return NULL;
}

static void leave_beside_a_thread(kp_handle *proxy)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_the_end, proxy) == 0);
    sleep_ms(20);
    exit(7);
}

/* valgrind takes the thread's stack for a leak. */
static void a_host_of_which_one_thread_exits(void **state)
{
    (void)state;
    if (left_out_under_valgrind(__func__))
        return;
    exit_by_then(leave_beside_a_thread, 7);
}

static void become_another_program(kp_handle *proxy)
{
    (void)proxy;
    execl("/bin/sleep", "sleep", "60", (char *)NULL);
    _exit(127);
}

/* The host lives on without its proxy. */
static void it_ends_while_the_host_lives(void (*then)(kp_handle *))
{
    struct plan plan = {.spec = guarded(FIXTURE("deaf"), GRACE_MS), .ready = true, .then = then};
    struct host host = host_start(&plan);
    assert_true(eventually_empty(host.group));
    assert_true(process_lives(host.pid));
    host_kill(&host);
    assert_nobody_is_left();
}

static void a_host_that_becomes_another_program(void **state)
{
    (void)state;
    it_ends_while_the_host_lives(become_another_program);
}

static void close_everything(kp_handle *proxy)
{
    (void)proxy;
    for (int fd = 0; fd < MAX_FDS; fd++)
        close(fd);
}

static void a_host_that_closes_all_its_descriptors(void **state)
{
    (void)state;
    it_ends_while_the_host_lives(close_everything);
}

static void stop_oneself(kp_handle *proxy)
{
    (void)proxy;
    raise(SIGSTOP);
}

static bool is_stopped(const void *pid)
{
    struct process process;
    return process_read(*(const pid_t *)pid, &process) && process.state == 'T';
}

/* A stop alone is none of the guard's business. */
static void a_stopped_host_is_killed(void **state)
{
    (void)state;
    struct plan plan = {
        .spec = guarded(FIXTURE("deaf"), GRACE_MS), .ready = true, .then = stop_oneself};
    struct host host = host_start(&plan);
    assert_true(eventually(is_stopped, &host.pid));
    sleep_ms(100);
    assert_true(process_lives(host.proxy));
    host_kill(&host);
    assert_nobody_is_left();
}

/* ---- Hosts that fork ------------------------------------------------------------- */

/* The worker has a copy of the guard's pipe. */
static void a_worker_that_lives_keeps_the_proxy(void **state)
{
    (void)state;
    struct plan plan = {.spec = guarded(FIXTURE("serve"), GRACE_MS), .ready = true, .forks = true};
    struct host host = host_start(&plan);
    host_kill(&host);
    sleep_ms(200);
    assert_true(process_lives(host.proxy));
    kill(host.worker, SIGKILL);
    assert_nobody_is_left();
}

static kp_handle *of_this_host;

static void let_go(void)
{
    kp_handle_detach(of_this_host);
}

static void let_workers_go(kp_handle *proxy)
{
    of_this_host = proxy;
    CHECK(pthread_atfork(NULL, NULL, let_go) == 0);
}

/* As a prefork server does it. */
static void one_that_has_let_go_does_not(void **state)
{
    (void)state;
    struct plan plan = {.spec = guarded(FIXTURE("serve"), GRACE_MS),
                        .at_once = let_workers_go,
                        .ready = true,
                        .forks = true};
    struct host host = host_start(&plan);
    host_kill(&host);
    assert_true(eventually_gone(host.proxy));
    assert_true(process_lives(host.worker));
    kill(host.worker, SIGKILL);
    assert_nobody_is_left();
}

static void fork_the_host(void)
{
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (pid > 0)
        _exit(0);
    alarm(60);
    while (getppid() == parent)
        sleep_ms(1);
}

/* A process that uses the library has a grandchild, its parent gone, that does so too and dies. */
static void the_grandchild_of_a_host(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    struct plan plan = {
        .spec = guarded(FIXTURE("deaf"), GRACE_MS), .first = fork_the_host, .ready = true};
    struct host host = host_start(&plan);
    host_kill(&host);
    assert_true(eventually_empty(host.group));
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_READY, 0, &scene->error));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    assert_nobody_is_left();
}

/* ---- What the proxy gets ------------------------------------------------------------ */

static void the_proxy_has_its_grace(void **state)
{
    struct scene *scene = *state;
    setenv("KP_TRACE", scene_path(scene, "cleaned-up"), 1);
    char *const *argv = SHELL("trap 'sleep 0.2; echo > $KP_TRACE; exit' TERM; \"$0\" serve & wait");
    kill_a_host_with(&(struct plan){.spec = guarded(argv, 2000), .ready = true});
    unsetenv("KP_TRACE");
    assert_true(file_exists(scene_path(scene, "cleaned-up")));
}

/* A group that was stopped by hand is continued, or its SIGTERM would wait for ever. */
static void a_stopped_proxy_ends_too(void **state)
{
    struct scene *scene = *state;
    setenv("KP_TRACE", scene_path(scene, "cleaned-up"), 1);
    char *const *argv = SHELL("trap 'echo > $KP_TRACE; exit' TERM; \"$0\" serve & wait");
    struct plan plan = {.spec = guarded(argv, 2000), .ready = true};
    struct host host = host_start(&plan);
    unsetenv("KP_TRACE");
    kill(host.proxy, SIGSTOP);
    host_kill(&host);
    assert_nobody_is_left();
    assert_true(file_exists(scene_path(scene, "cleaned-up")));
}

static void lead_a_session(void)
{
    CHECK(setsid() == getpid());
}

static bool all_are_stopped(const void *data)
{
    const struct host *host = data;
    return is_stopped(&host->proxy) && is_stopped(&host->group);
}

/* The guard too: as an orphan among groups it is continued by the kernel. */
static void a_stopped_group_ends_too(void **state)
{
    (void)state;
    struct plan plan = {
        .spec = guarded(FIXTURE("deaf"), GRACE_MS), .first = lead_a_session, .ready = true};
    struct host host = host_start(&plan);
    kill(-host.group, SIGSTOP);
    assert_true(eventually(all_are_stopped, &host));
    host_kill(&host);
    assert_nobody_is_left();
}

static void without_a_guard_the_proxy_lives_on(void **state)
{
    (void)state;
    struct plan plan = {.spec = guarded(FIXTURE("serve"), GRACE_MS), .ready = true};
    plan.spec.flags = KP_SPEC_NO_GUARD;
    struct host host = host_start(&plan);
    host_kill(&host);
    sleep_ms(GRACE_MS);
    assert_true(process_lives(host.proxy));
    kill(host.proxy, SIGKILL);
    assert_nobody_is_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MORTAL(a_host_is_killed_with_a_ready_proxy),
        MORTAL(a_host_is_killed_with_a_starting_proxy),
        MORTAL(a_host_is_killed_with_a_deaf_proxy),
        MORTAL(a_host_is_killed_with_deaf_workers),
        MORTAL(a_host_is_killed_while_it_stops),
        MORTAL(a_host_is_killed_while_it_restarts),
        MORTAL(a_host_is_killed_after_a_restart),
        MORTAL(hosts_that_are_killed_at_any_moment),
        MORTAL(a_host_that_leaves_without_a_word),
        MORTAL(a_host_that_exits_without_freeing),
        MORTAL(a_host_that_aborts),
        MORTAL(a_host_of_which_one_thread_exits),
        MORTAL(a_host_that_becomes_another_program),
        MORTAL(a_host_that_closes_all_its_descriptors),
        MORTAL(a_stopped_host_is_killed),
        MORTAL(a_worker_that_lives_keeps_the_proxy),
        MORTAL(one_that_has_let_go_does_not),
        MORTAL(the_grandchild_of_a_host),
        MORTAL(the_proxy_has_its_grace),
        MORTAL(a_stopped_proxy_ends_too),
        MORTAL(a_stopped_group_ends_too),
        MORTAL(without_a_guard_the_proxy_lives_on),
    };
    return RUN(tests);
}
