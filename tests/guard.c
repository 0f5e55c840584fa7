/* SPDX-License-Identifier: Apache-2.0 */
/* The guard: when the host dies, however it dies, its proxy ends too. */
#include "process.h"
#include "support.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- A system without /bin/sh --------------------------------------------------- */

static int shell_fails_with; /* an errno; 0: it does not fail */

typedef int spawn_fn(pid_t *restrict, const char *restrict,
                     const posix_spawn_file_actions_t *restrict, const posix_spawnattr_t *restrict,
                     char *const[restrict], char *const[restrict]);

static bool fails(const char *path)
{
    return shell_fails_with != 0 && strcmp(path, "/bin/sh") == 0;
}

static spawn_fn *libcs(const char *name)
{
    union {
        void *object;
        spawn_fn *function;
    } found = {.object = dlsym(RTLD_NEXT, name)};
    return found.function;
}

/* The library calls these two: they come before libc's. */
int posix_spawn(pid_t *restrict pid, const char *restrict path,
                const posix_spawn_file_actions_t *restrict actions,
                const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
                char *const envp[restrict])
{
    return fails(path) ? shell_fails_with
                       : libcs("posix_spawn")(pid, path, actions, attributes, argv, envp);
}

int posix_spawnp(pid_t *restrict pid, const char *restrict file,
                 const posix_spawn_file_actions_t *restrict actions,
                 const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
                 char *const envp[restrict])
{
    return fails(file) ? shell_fails_with
                       : libcs("posix_spawnp")(pid, file, actions, attributes, argv, envp);
}

static kp_result spawn_without_a_shell(struct scene *scene, kp_spec spec)
{
    shell_fails_with = ENOENT;
    kp_result result = spawn(scene, spec);
    shell_fails_with = 0;
    return result;
}

/* Not the proxy's fault: another code, and the way out is named. */
static void a_missing_shell_is_told(void **state)
{
    struct scene *scene = *state;
    const char *trace = scene_path(scene, "started");
    assert_result(KP_ERR_GUARD, spawn_without_a_shell(scene, spec_for(WORDS("touch", trace))));
    assert_null(scene->proxy);
    assert_int_equal(scene->error.code, KP_ERR_GUARD);
    assert_int_equal(scene->error.sys_errno, ENOENT);
    assert_contains(scene->error.message, "/bin/sh");
    assert_contains(scene->error.message, "KP_SPEC_NO_GUARD");
    sleep_ms(20);
    assert_false(file_exists(trace));
}

static void without_a_guard_no_shell_is_needed(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.flags = KP_SPEC_NO_GUARD;
    assert_result(KP_OK, spawn_without_a_shell(scene, spec));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
}

static void a_restart_may_miss_it_too(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    kp_handle_stop(scene->proxy, 0);
    get_exited(scene);
    shell_fails_with = ENOENT;
    kp_result result = kp_handle_restart(scene->proxy, &scene->error);
    shell_fails_with = 0;
    assert_result(KP_ERR_GUARD, result);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

/* ---- What the guard has ------------------------------------------------------------ */

/* Its leader's number is the group's. */
static pid_t guard_of(const struct scene *scene)
{
    return getpgid(kp_handle_pid(scene->proxy));
}

/* A shell that has just been started holds its libraries for a moment. */
static bool has_low_descriptors_only(const void *pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/fd", (long)*(const pid_t *)pid);
    DIR *folder = opendir(path);
    bool low = folder != NULL;
    struct dirent *entry;
    while (low && (entry = readdir(folder)) != NULL)
        low = entry->d_name[0] == '.' || atoi(entry->d_name) <= 2;
    if (folder != NULL)
        closedir(folder);
    return low;
}

static void assert_in_the_root_folder(pid_t pid)
{
    char path[64], target[64] = "";
    snprintf(path, sizeof path, "/proc/%ld/cwd", (long)pid);
    assert_int_equal(readlink(path, target, sizeof target - 1), 1);
    assert_string_equal(target, "/");
}

static void assert_environment_of_path_only(pid_t pid)
{
    char text[8192];
    size_t size = process_file(pid, "environ", text, sizeof text);
    for (const char *at = text; at < text + size; at += strlen(at) + 1)
        assert_starts_with(at, "PATH=");
}

/* Descriptors that an idle shell would keep open for as long as the proxy runs. Under valgrind,
 * whose clone() is a fork, the library does not wait for the exec that closes them. */
static void it_holds_nothing_of_the_hosts(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return;
    int careless = dup(STDERR_FILENO);
    get_ready(scene, spec_for(FIXTURE("serve")));
    close(careless);
    pid_t guard = guard_of(scene);
    assert_int_not_equal(guard, kp_handle_pid(scene->proxy));
    assert_true(eventually(has_low_descriptors_only, &guard));
    assert_in_the_root_folder(guard);
    assert_environment_of_path_only(guard);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)guard), getpriority(PRIO_PROCESS, 0) + 1);
}

/* A nice worker is somebody too: while it has its grace, alone, the guard is there. */
static void a_nice_worker_keeps_the_guard(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    kp_spec spec =
        spec_for(SHELL("nice -n 10 sh -c 'trap \"\" TERM; sleep 0.5; sleep 60' & \"$0\" serve & "
                       "trap \"wait $!; exit 0\" TERM; wait"));
    spec.stop_grace_ms = 1000;
    get_ready(scene, spec);
    pid_t guard = guard_of(scene);
    sleep_ms(100); /* until the worker is nice and ignores SIGTERM */
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_AGAIN, kp_handle_wait(scene->proxy, KP_STATE_EXITED, 400, NULL));
    assert_false(process_lives(kp_handle_pid(scene->proxy)));
    assert_true(process_lives(guard));
    get_exited(scene);
    assert_int_equal(group_size(guard), 0);
}

/* The proxy itself is not made nice. */
static void the_proxy_keeps_its_priority(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)kp_handle_pid(scene->proxy)),
                     getpriority(PRIO_PROCESS, 0));
}

/* ---- Its own death -------------------------------------------------------------------- */

static void its_death_after_ready_harms_nothing(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    pid_t guard = guard_of(scene);
    kill(guard, SIGKILL);
    assert_true(eventually_gone(guard));
    assert_result(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    assert_int_equal(group_size(guard), 0);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

static void nor_does_it_cost_workers_their_end(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("workers", "2")));
    pid_t guard = guard_of(scene);
    kill(guard, SIGKILL);
    assert_true(eventually_gone(guard));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    assert_int_equal(group_size(guard), 0);
}

static void its_death_before_ready_is_a_failure(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    kill(guard_of(scene), SIGKILL);
    assert_result(KP_ERR_GUARD, reach(scene, KP_STATE_READY));
    assert_contains(scene->error.message, "KP_SPEC_NO_GUARD");
    get_exited(scene);
}

static void polite_signals_do_not_end_it(void **state)
{
    struct scene *scene = *state;
    static const int polite[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP};
    get_ready(scene, spec_for(FIXTURE("serve")));
    for (size_t i = 0; i < sizeof polite / sizeof *polite; i++)
        kill(guard_of(scene), polite[i]);
    sleep_ms(50);
    assert_true(process_lives(guard_of(scene)));
    assert_result(KP_OK, kp_handle_step(scene->proxy, &scene->error));
}

/* ---- Hosts that die ---------------------------------------------------------------------- */

/* A forked process that starts a proxy, tells of it, and waits for its death. */
struct host {
    pid_t pid, proxy, group, worker;
};

struct plan {
    kp_spec spec;
    bool ready;                /* tells when the proxy is */
    bool forks;                /* a worker that does not exec, before it tells */
    void (*then)(kp_handle *); /* what it does after that; NULL: it waits */
};

static pid_t fork_a_worker(void)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    alarm(60);
    for (;;)
        pause();
}

static _Noreturn void be_a_host(const struct plan *plan, int out)
{
    kp_handle *proxy;
    struct host host = {.pid = getpid()};
    alarm(60);
    CHECK(kp_start(&plan->spec, &proxy, NULL) == KP_OK);
    CHECK(!plan->ready || kp_handle_wait(proxy, KP_STATE_READY, -1, NULL) == KP_OK);
    host.proxy = kp_handle_pid(proxy);
    host.group = getpgid(host.proxy);
    host.worker = plan->forks ? fork_a_worker() : 0;
    CHECK(write(out, &host, sizeof host) == sizeof host);
    if (plan->then != NULL)
        plan->then(proxy);
    for (;;)
        pause();
}

static struct host start_host(const struct plan *plan)
{
    struct host host = {0};
    int ends[2];
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* whom the host leaves behind becomes our child */
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0)
        be_a_host(plan, ends[1]);
    close(ends[1]);
    ssize_t size = read(ends[0], &host, sizeof host);
    close(ends[0]);
    assert_int_equal(size, sizeof host);
    return host;
}

static bool all_children_are_gone(const void *unused)
{
    (void)unused;
    pid_t reaped;
    while ((reaped = waitpid(-1, NULL, WNOHANG)) > 0)
        ;
    return reaped == -1 && errno == ECHILD;
}

static void assert_nothing_is_left(void)
{
    bool nothing = eventually(all_children_are_gone, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    assert_true(nothing);
}

static void kill_host(const struct host *host)
{
    kill(host->pid, SIGKILL);
    assert_int_equal(waitpid(host->pid, NULL, 0), host->pid);
}

static kp_spec guarded(char *const *argv, uint32_t grace_ms)
{
    kp_spec spec = spec_for(argv);
    spec.stop_grace_ms = grace_ms;
    return spec;
}

static void kill_a_host_with(const struct plan *plan)
{
    struct host host = start_host(plan);
    assert_int_not_equal(host.group, host.proxy);
    kill_host(&host);
    assert_nothing_is_left();
}

static void a_host_is_killed_with_a_ready_proxy(void **state)
{
    (void)state;
    kill_a_host_with(&(struct plan){.spec = guarded(FIXTURE("serve"), 200), .ready = true});
}

static void a_host_is_killed_with_a_starting_proxy(void **state)
{
    (void)state;
    kill_a_host_with(&(struct plan){.spec = guarded(FIXTURE("never"), 200)});
}

static void a_host_is_killed_with_a_deaf_proxy(void **state)
{
    (void)state;
    kill_a_host_with(&(struct plan){.spec = guarded(FIXTURE("deaf"), 200), .ready = true});
}

static void a_host_is_killed_with_deaf_workers(void **state)
{
    (void)state;
    kill_a_host_with(
        &(struct plan){.spec = guarded(FIXTURE("deaf-workers", "3"), 200), .ready = true});
}

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
    struct host host = start_host(&plan);
    unsetenv("KP_TRACE");
    kill(host.proxy, SIGSTOP);
    kill_host(&host);
    assert_nothing_is_left();
    assert_true(file_exists(scene_path(scene, "cleaned-up")));
}

static void leave_without_a_word(kp_handle *proxy)
{
    (void)proxy;
    _exit(0);
}

static void become_another_program(kp_handle *proxy)
{
    (void)proxy;
    execl("/bin/sleep", "sleep", "60", (char *)NULL);
    _exit(127);
}

static void a_host_that_exits_without_freeing(void **state)
{
    (void)state;
    struct plan plan = {guarded(FIXTURE("serve"), 200), .ready = true,
                        .then = leave_without_a_word};
    start_host(&plan);
    assert_nothing_is_left();
}

static void a_host_that_becomes_another_program(void **state)
{
    (void)state;
    struct plan plan = {guarded(FIXTURE("serve"), 200), .ready = true,
                        .then = become_another_program};
    struct host host = start_host(&plan);
    assert_true(eventually_empty(host.group));
    assert_true(process_lives(host.pid));
    kill_host(&host);
    assert_nothing_is_left();
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
    struct plan plan = {guarded(FIXTURE("deaf-workers", "2"), 200), .ready = true,
                        .then = stop_with_patience};
    struct host host = start_host(&plan);
    assert_true(eventually_gone(host.proxy));
    sleep_ms(100);
    assert_true(process_lives(host.group));
    kill_host(&host);
    assert_nothing_is_left();
}

/* The worker has a copy of the guard's pipe. */
static void a_worker_that_lives_keeps_the_proxy(void **state)
{
    (void)state;
    struct plan plan = {guarded(FIXTURE("serve"), 200), .ready = true, .forks = true};
    struct host host = start_host(&plan);
    kill_host(&host);
    sleep_ms(200);
    assert_true(process_lives(host.proxy));
    kill(host.worker, SIGKILL);
    assert_nothing_is_left();
}

static void without_a_guard_the_proxy_lives_on(void **state)
{
    (void)state;
    struct plan plan = {guarded(FIXTURE("serve"), 200), .ready = true};
    plan.spec.flags = KP_SPEC_NO_GUARD;
    struct host host = start_host(&plan);
    kill_host(&host);
    sleep_ms(200);
    bool lived = process_lives(host.proxy);
    kill(host.proxy, SIGKILL);
    assert_nothing_is_left();
    assert_true(lived);
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
    pid_t pid = fork();
    if (pid == 0)
        start_over_and_over(spec);
    nanosleep(&rest, NULL);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

enum { BUSY_HOSTS = 60 };

static void hosts_that_are_killed_at_any_moment(void **state)
{
    (void)state;
    kp_spec spec = guarded(FIXTURE("never"), 200);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int i = 0; i < BUSY_HOSTS; i++)
        kill_a_busy_host(&spec, 100 + 97 * i);
    assert_nothing_is_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_GUARDED_WAY(a_missing_shell_is_told),
        TEST(without_a_guard_no_shell_is_needed),
        TEST(a_restart_may_miss_it_too),
        TEST(it_holds_nothing_of_the_hosts),
        TEST(a_nice_worker_keeps_the_guard),
        TEST(the_proxy_keeps_its_priority),
        EACH_GUARDED_WAY(its_death_after_ready_harms_nothing),
        EACH_GUARDED_WAY(nor_does_it_cost_workers_their_end),
        EACH_GUARDED_WAY(its_death_before_ready_is_a_failure),
        TEST(polite_signals_do_not_end_it),
        TEST(a_host_is_killed_with_a_ready_proxy),
        TEST(a_host_is_killed_with_a_starting_proxy),
        TEST(a_host_is_killed_with_a_deaf_proxy),
        TEST(a_host_is_killed_with_deaf_workers),
        TEST(the_proxy_has_its_grace),
        TEST(a_stopped_proxy_ends_too),
        TEST(a_host_that_exits_without_freeing),
        TEST(a_host_that_becomes_another_program),
        TEST(a_host_is_killed_while_it_stops),
        TEST(a_worker_that_lives_keeps_the_proxy),
        TEST(without_a_guard_the_proxy_lives_on),
        TEST(hosts_that_are_killed_at_any_moment),
    };
    return RUN(tests);
}
