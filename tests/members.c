/* SPDX-License-Identifier: Apache-2.0 */
/* The members of the proxy's group, whoever they are: a stop waits for all of them and ends them
 * all, and for nobody else. */
#include "stopping.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SHORT_GRACE = 300, HEIRS_GRACE = 1000 /* for many forks on a busy machine */ };

/* ---- What the library asks of the system ----------------------------------- */

static size_t sleeps, searches;
static bool refuses_group_signals;

static void *libcs(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

/* The library calls these four: they come before libc's. */
int ppoll(struct pollfd *list, nfds_t count, const struct timespec *limit, const sigset_t *mask)
{
    union {
        void *object;
        int (*function)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    } real = {.object = libcs("ppoll")};
    sleeps++;
    return real.function(list, count, limit, mask);
}

int poll(struct pollfd *list, nfds_t count, int limit)
{
    union {
        void *object;
        int (*function)(struct pollfd *, nfds_t, int);
    } real = {.object = libcs("poll")};
    sleeps += limit != 0;
    return real.function(list, count, limit);
}

int open(const char *path, int flags, ...)
{
    union {
        void *object;
        int (*function)(const char *, int, ...);
    } real = {.object = libcs("open")};
    va_list arguments;
    va_start(arguments, flags);
    int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
    va_end(arguments);
    searches += strcmp(path, "/proc") == 0;
    return real.function(path, flags, mode);
}

/* As Linux before 6.9, if it is to be. */
long syscall(long number, ...)
{
    union {
        void *object;
        long (*function)(long, long, long, long, long, long, long);
    } real = {.object = libcs("syscall")};
    va_list arguments;
    va_start(arguments, number);
    long each[6];
    for (size_t i = 0; i < 6; i++)
        each[i] = va_arg(arguments, long);
    va_end(arguments);
    if (refuses_group_signals && number == SYS_pidfd_send_signal && each[3] != 0) {
        errno = EINVAL;
        return -1;
    }
    return real.function(number, each[0], each[1], each[2], each[3], each[4], each[5]);
}

/* ---- A search that is not needed --------------------------------------------- */

static void a_proxy_without_children_costs_no_search(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    searches = 0;
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    assert_int_equal(searches, 0);
}

/* Without a guard there is nobody in the group who could be told apart. */
static void nor_before_linux_6_9_with_a_guard(void **state)
{
    struct scene *scene = *state;
    refuses_group_signals = true;
    a_proxy_without_children_costs_no_search(state);
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "2"), SHORT_GRACE));
    int64_t took = stop(scene, -1);
    refuses_group_signals = false;
    assert_in_range(took, SHORT_GRACE, PATIENCE_MS);
}

/* So the tests above can see one. */
static void one_with_workers_does(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "2"), SHORT_GRACE));
    searches = 0;
    stop(scene, -1);
    assert_int_not_equal(searches, 0);
}

/* ---- Those who fork while they are stopped ----------------------------------- */

/* Of the fixture's: how many forks are left to those who go on with them. /proc does not show for
 * certain who lives for so short a time. */
static int *map_forks(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *memory = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(fd >= 0 && memory != MAP_FAILED);
    close(fd);
    return memory;
}

/* The argv is to know the file by the name "forks". */
static void end_forks(struct scene *scene, char *const *argv, int grace_ms)
{
    get_ready(scene, with_grace(argv, SHORT_GRACE));
    const char *path = scene_path(scene, "forks");
    int *forks = map_forks(path), before = __atomic_load_n(forks, __ATOMIC_SEQ_CST);
    kp_handle_stop(scene->proxy, grace_ms);
    kp_result result = reach(scene, KP_STATE_EXITED);
    int at_the_end = __atomic_load_n(forks, __ATOMIC_SEQ_CST);
    sleep_ms(100);
    int after = __atomic_exchange_n(forks, 0, __ATOMIC_SEQ_CST); /* ends them at any rate */
    munmap(forks, sizeof *forks);
    assert_result(KP_OK, result);
    assert_true(before > 0 && at_the_end > 0);
    assert_int_equal(at_the_end, after);
}

static void a_chain_of_forks(void **state)
{
    end_forks(*state, FIXTURE("chain", scene_path(*state, "forks")), -1);
}

static void a_chain_of_forks_without_grace(void **state)
{
    end_forks(*state, FIXTURE("chain", scene_path(*state, "forks")), 0);
}

static void workers_that_are_replaced(void **state)
{
    int64_t begin = now_ms();
    end_forks(*state, FIXTURE("brood", scene_path(*state, "forks"), "5"), -1);
    assert_true(now_ms() - begin >= SHORT_GRACE);
}

/* valgrind has no descriptors for processes, without which those outside the group can't be held.
 */
static void a_chain_of_forks_outside_the_group(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    setenv("KP_TRACE", scene_path(scene, "forks"), 1);
    end_forks(scene, SHELL("setsid \"$0\" chain \"$KP_TRACE\" & wait"), -1);
    unsetenv("KP_TRACE");
}

static void workers_that_are_born_at_the_end(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("heirs", "20"), HEIRS_GRACE));
    assert_true(stop(scene, -1) >= HEIRS_GRACE);
    assert_exit(scene, 0, 0);
}

/* ---- Those who need their time ------------------------------------------------ */

/* Both shells die of the SIGTERM at once. */
static void two_wrappers_that_leave_first(void **state)
{
    struct scene *scene = *state;
    setenv("KP_TRACE", scene_path(scene, "cleaned-up"), 1);
    get_ready(scene, with_grace(SHELL("sh -c '(trap \"sleep 0.5; echo > $KP_TRACE; exit\" TERM;"
                                      " \"$0\" serve & wait) & wait' \"$0\" & wait"),
                                LONG_GRACE));
    unsetenv("KP_TRACE");
    int64_t took = stop(scene, -1);
    assert_in_range(took, 500, PATIENCE_MS);
    assert_true(file_exists(scene_path(scene, "cleaned-up")));
    assert_exit(scene, -1, SIGTERM);
}

/* Looking by the clock would take a hundred times as many. */
static void workers_are_waited_for_without_looking(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, with_grace(FIXTURE("slow-workers", "4", "400"), LONG_GRACE));
    sleeps = 0;
    int64_t took = stop(scene, -1);
    assert_in_range(took, 1600, PATIENCE_MS);
    assert_in_range(sleeps, 1, 16);
}

/* More than are watched at a time. */
static void a_hundred_workers_end_one_by_one(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("slow-workers", "100", "5"), LONG_GRACE));
    int64_t took = stop(scene, -1);
    assert_in_range(took, 500, PATIENCE_MS);
}

static void a_hundred_deaf_workers(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "100"), SHORT_GRACE));
    assert_true(stop(scene, -1) >= SHORT_GRACE);
}

/* ---- Zombies ------------------------------------------------------------------ */

static void a_zombie_of_the_proxys(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("zombie"), LONG_GRACE));
    assert_true(stop(scene, -1) < PATIENCE_MS);
}

static pid_t read_number(const char *path)
{
    char text[32];
    file_read(path, text, sizeof text);
    return (pid_t)strtol(text, NULL, 10);
}

/* It stays: nobody but its parent could have an end made of it. Without a search it can't be told
 * from who lives, and costs the grace and a second. */
static void a_zombie_of_somebody_outside(void **state)
{
    struct scene *scene = *state;
    const char *path = scene_path(scene, "parent");
    uint32_t grace = on_posix() ? SHORT_GRACE : LONG_GRACE;
    get_ready(scene, with_grace(FIXTURE("left-zombie", path), grace));
    pid_t parent = read_number(path);
    bool was_there = process_lives(parent);
    kp_handle_stop(scene->proxy, -1);
    kp_result result = reach(scene, KP_STATE_EXITED);
    bool is_there = process_lives(parent);
    kill(parent, SIGKILL);
    assert_true(eventually_gone(parent));
    assert_true(was_there && is_there);
    assert_result(KP_OK, result);
}

/* ---- Processes whose main thread has ended: they look like zombies ------------- */

static void without_a_main_thread(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("headless"), LONG_GRACE));
    assert_true(stop(scene, -1) < PATIENCE_MS);
    assert_exit(scene, -1, SIGTERM);
}

static void without_a_main_thread_behind_a_wrapper(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(SHELL("\"$0\" headless & wait"), LONG_GRACE));
    assert_true(stop(scene, -1) < PATIENCE_MS);
}

static void deaf_without_a_main_thread(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(SHELL("(trap '' TERM; exec \"$0\" headless) & wait"), SHORT_GRACE));
    assert_true(stop(scene, -1) >= SHORT_GRACE);
}

/* ---- Stopped and traced ones ----------------------------------------------------- */

/* The first member that is neither guard nor proxy. */
struct worker_search {
    pid_t group, proxy, found;
};

static bool visit_worker(const struct process *process, void *data)
{
    struct worker_search *search = data;
    if (process->group != search->group || process->pid == search->group ||
        process->pid == search->proxy)
        return true;
    search->found = process->pid;
    return false;
}

static pid_t find_worker(const struct scene *scene)
{
    struct worker_search search = {.group = group_of(scene), .proxy = kp_handle_pid(scene->proxy)};
    process_each(visit_worker, &search);
    assert_int_not_equal(search.found, 0);
    return search.found;
}

static void a_stopped_worker_is_continued(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("workers", "2"), LONG_GRACE));
    kill(find_worker(scene), SIGSTOP);
    assert_true(stop(scene, -1) < PATIENCE_MS);
}

/* Without a guard it may have a SIGHUP of the kernel's, as soon as nobody who leads is left. */
static void a_stopped_deaf_worker(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "2"), SHORT_GRACE));
    kill(find_worker(scene), SIGSTOP);
    stop(scene, -1);
}

static _Noreturn void be_a_tracer(pid_t traced, int out)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(60);
    bool done = ptrace(PTRACE_SEIZE, traced, 0, 0) == 0 &&
                ptrace(PTRACE_INTERRUPT, traced, 0, 0) == 0 && waitpid(traced, NULL, __WALL) > 0;
    if (write(out, &done, sizeof done) != sizeof done)
        _exit(1);
    for (;;)
        pause();
}

/* Stops it as a debugger does that then waits for its user: no signal but SIGKILL gets through, and
 * nobody is told of the end. The tracer, or 0 where tracing is refused. */
static pid_t trace(pid_t traced)
{
    int ends[2];
    bool done = false;
    assert_int_equal(pipe(ends), 0);
    pid_t tracer = fork();
    if (tracer == 0)
        be_a_tracer(traced, ends[1]);
    close(ends[1]);
    ssize_t size = read(ends[0], &done, sizeof done);
    close(ends[0]);
    assert_int_equal(size, sizeof done);
    if (done)
        return tracer;
    kill(tracer, SIGKILL);
    waitpid(tracer, NULL, 0);
    return 0;
}

static void stop_with_tracer(struct scene *scene, pid_t traced)
{
    pid_t group = group_of(scene), tracer = trace(traced);
    if (tracer == 0) {
        left_out("a traced process", "where tracing is refused");
        return;
    }
    sleeps = 0;
    kp_handle_stop(scene->proxy, SHORT_GRACE);
    kp_result result = reach(scene, KP_STATE_EXITED);
    size_t slept = sleeps, left = group_size(group);
    kill(tracer, SIGKILL);
    waitpid(tracer, NULL, 0);
    assert_result(KP_OK, result);
    assert_int_equal(left, 0);
    assert_true(under_valgrind() || on_posix() || slept < 100);
}

static void a_traced_worker(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, with_grace(FIXTURE("workers", "2"), LONG_GRACE));
    stop_with_tracer(scene, find_worker(scene));
}

/* Only a descriptor for the process tells that it has ended. */
static void a_traced_proxy(void **state)
{
    struct scene *scene = *state;
    if (left_out_without_pidfds(__func__))
        return;
    get_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    stop_with_tracer(scene, kp_handle_pid(scene->proxy));
}

/* Holds up the end of one that was sent SIGKILL, until it has joined the group itself. */
static _Noreturn void join_later(pid_t traced, pid_t group, int out)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(60);
    bool done = ptrace(PTRACE_SEIZE, traced, 0, PTRACE_O_TRACEEXIT) == 0;
    if (write(out, &done, sizeof done) != sizeof done || waitpid(traced, NULL, __WALL) != traced)
        _exit(1);
    if (setpgid(0, group) != 0)
        _exit(2);
    ptrace(PTRACE_DETACH, traced, 0, 0);
    for (;;)
        pause();
}

static void who_joins_after_the_kill(void **state)
{
    struct scene *scene = *state;
    int ends[2], status = 0;
    bool done = false;
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "1"), LONG_GRACE));
    pid_t worker = find_worker(scene), group = group_of(scene);
    assert_int_equal(pipe(ends), 0);
    pid_t joiner = fork();
    if (joiner == 0)
        join_later(worker, group, ends[1]);
    close(ends[1]);
    ssize_t size = read(ends[0], &done, sizeof done);
    close(ends[0]);
    kp_handle_stop(scene->proxy, 0);
    kp_result result = reach(scene, KP_STATE_EXITED);
    kill(joiner, SIGTERM);
    waitpid(joiner, &status, 0);
    if (size == sizeof done && !done) {
        left_out(__func__, "where tracing is refused");
        return;
    }
    assert_result(KP_OK, result);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* ---- Those who look like the guard ------------------------------------------------- */

/* While it has its grace, alone, the guard is there: else a host that is killed would leave it.
 * Without a search who is nice can't be told from the guard, and ends with it. */
static void stop_with_humble_worker(struct scene *scene, const char *wrapper)
{
    bool told_apart = !on_posix() || strncmp(wrapper, "nice ", 5) != 0;
    char script[256];
    snprintf(script, sizeof script,
             "trap '' TERM; %s \"$0\" never & trap - TERM; exec \"$0\" serve", wrapper);
    get_ready(scene, with_grace(SHELL(script), SHORT_GRACE));
    pid_t group = group_of(scene);
    bool guarded = group != kp_handle_pid(scene->proxy);
    sleep_ms(100); /* until the worker is what it is to be */
    int64_t begin = now_ms();
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    kp_handle_wait(scene->proxy, KP_STATE_EXITED, SHORT_GRACE / 2, NULL);
    bool guard_lives = process_lives(group);
    bool in_time = now_ms() - begin < SHORT_GRACE;
    get_exited(scene);
    assert_true(!told_apart || now_ms() - begin >= SHORT_GRACE);
    assert_int_equal(group_size(group), 0);
    assert_true(!guarded || !in_time || !told_apart || under_valgrind() || guard_lives);
}

static void a_worker_that_is_nice(void **state)
{
    stop_with_humble_worker(*state, "nice -n 10");
}

static void a_worker_as_nice_as_can_be(void **state)
{
    stop_with_humble_worker(*state, "nice -n 19");
}

static void an_idle_worker(void **state)
{
    stop_with_humble_worker(*state, "ionice -c 3");
}

static void a_worker_that_is_nice_and_idle(void **state)
{
    stop_with_humble_worker(*state, "nice -n 19 ionice -c 3");
}

/* ---- Later calls, with workers left -------------------------------------------------- */

/* The proxy has ended, its deaf workers have not. */
static void stop_until_workers_are_left(struct scene *scene, int grace_ms)
{
    int64_t end = now_ms() + PATIENCE_MS;
    get_ready(scene, with_grace(FIXTURE("deaf-workers", "2"), LONG_GRACE));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, grace_ms));
    while (now_ms() < end && !kp_handle_exit_status(scene->proxy, NULL, NULL))
        kp_handle_wait(scene->proxy, KP_STATE_EXITED, 5, NULL);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_STOPPING);
}

/* The group without the proxy, whose number nobody can ask for any more. */
static void assert_nobody_left(struct scene *scene)
{
    get_exited(scene);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    assert_string_equal(census_leaks(&scene->before), "");
}

static void a_second_stop_with_workers_left(void **state)
{
    struct scene *scene = *state;
    stop_until_workers_are_left(scene, -1);
    int64_t begin = now_ms();
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 100));
    get_exited(scene);
    assert_in_range(now_ms() - begin, 100, PATIENCE_MS);
    assert_nobody_left(scene);
}

static void a_longer_second_stop_with_workers_left(void **state)
{
    struct scene *scene = *state;
    int64_t begin = now_ms();
    stop_until_workers_are_left(scene, 1000);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, LONG_GRACE));
    assert_nobody_left(scene);
    assert_in_range(now_ms() - begin, 1000, PATIENCE_MS);
}

static void an_impatient_stop_with_workers_left(void **state)
{
    struct scene *scene = *state;
    stop_until_workers_are_left(scene, -1);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    assert_nobody_left(scene);
}

static void free_with_workers_left(void **state)
{
    struct scene *scene = *state;
    stop_until_workers_are_left(scene, 1000);
    assert_true(free_now(scene) < PATIENCE_MS);
}

static void free_after_an_impatient_stop_with_workers_left(void **state)
{
    struct scene *scene = *state;
    stop_until_workers_are_left(scene, -1);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    assert_true(free_now(scene) < PATIENCE_MS);
}

static volatile sig_atomic_t alarms;

static void count_alarm(int signal_number)
{
    (void)signal_number;
    alarms++;
}

/* A Ctrl-C of the host's; then the second one. */
static void a_handler_runs_with_workers_left(void **state)
{
    struct scene *scene = *state;
    struct sigaction old, counting = {.sa_handler = count_alarm, .sa_flags = SA_RESTART};
    struct itimerval soon = {.it_value = {0, 50000}}, off = {{0, 0}, {0, 0}};
    stop_until_workers_are_left(scene, -1);
    alarms = 0;
    sigaction(SIGALRM, &counting, &old);
    setitimer(ITIMER_REAL, &soon, NULL);
    kp_result result = kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL);
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &old, NULL);
    alarm(60);
    assert_result(KP_AGAIN, result);
    assert_int_equal(alarms, 1);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_STOPPING);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    assert_nobody_left(scene);
}

/* ---- Those whom an exit leaves ----------------------------------------------------------- */

/* The failure is told while they clean up, and they are given the time for it. */
static void what_an_exit_leaves_has_its_grace(void **state)
{
    struct scene *scene = *state;
    const char *go = scene_path(scene, "go"), *trace = scene_path(scene, "cleaned-up");
    setenv("KP_GO", go, 1);
    setenv("KP_TRACE", trace, 1);
    get_ready(scene,
              with_grace(SHELL("trap 'exit 5' USR1;"
                               " (trap 'until [ -e $KP_GO ]; do sleep 0.01; done; echo > $KP_TRACE;"
                               " exit' TERM; \"$0\" serve & wait) & wait"),
                         LONG_GRACE));
    unsetenv("KP_GO");
    unsetenv("KP_TRACE");
    kill(kp_handle_pid(scene->proxy), SIGUSR1);
    assert_result(KP_ERR_EXITED, step_until_told(scene, &scene->error));
    assert_int_equal(scene->error.exit_code, 5);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_STOPPING);
    assert_false(file_exists(trace));
    file_write(go, "", 0600);
    get_exited(scene);
    assert_true(file_exists(trace));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(a_proxy_without_children_costs_no_search),
        EACH_GUARDED_WAY(nor_before_linux_6_9_with_a_guard),
        EACH_WAY(one_with_workers_does),
        EACH_WAY(a_chain_of_forks),
        EACH_WAY(a_chain_of_forks_without_grace),
        EACH_WAY(workers_that_are_replaced),
        EACH_WAY(a_chain_of_forks_outside_the_group),
        EACH_WAY(workers_that_are_born_at_the_end),
        EACH_WAY(two_wrappers_that_leave_first),
        TEST_WAY(workers_are_waited_for_without_looking, "blocking", &ways[0]),
        TEST_WAY(workers_are_waited_for_without_looking, "descriptor", &ways[1]),
        TEST_WAY(workers_are_waited_for_without_looking, "no guard", &ways[3]),
        EACH_WAY(a_hundred_workers_end_one_by_one),
        EACH_WAY(a_hundred_deaf_workers),
        EACH_WAY(a_zombie_of_the_proxys),
        EACH_WAY(a_zombie_of_somebody_outside),
        EACH_WAY(without_a_main_thread),
        EACH_WAY(without_a_main_thread_behind_a_wrapper),
        EACH_WAY(deaf_without_a_main_thread),
        EACH_WAY(a_stopped_worker_is_continued),
        EACH_WAY(a_stopped_deaf_worker),
        EACH_WAY(a_traced_worker),
        EACH_WAY(a_traced_proxy),
        EACH_WAY(who_joins_after_the_kill),
        EACH_WAY(a_worker_that_is_nice),
        EACH_WAY(a_worker_as_nice_as_can_be),
        EACH_WAY(an_idle_worker),
        EACH_WAY(a_worker_that_is_nice_and_idle),
        EACH_WAY(a_second_stop_with_workers_left),
        EACH_WAY(a_longer_second_stop_with_workers_left),
        EACH_WAY(an_impatient_stop_with_workers_left),
        EACH_WAY(free_with_workers_left),
        EACH_WAY(free_after_an_impatient_stop_with_workers_left),
        EACH_WAY(a_handler_runs_with_workers_left),
        EACH_WAY(what_an_exit_leaves_has_its_grace),
    };
    return RUN(tests);
}
