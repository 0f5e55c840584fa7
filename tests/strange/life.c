/* SPDX-License-Identifier: Apache-2.0 */
#include "life.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_CANNOT = 77, EXIT_SIGNALLED = 99, EXIT_OVER = 42, GRACE_MS = 100 };

/* ---- Checks ---------------------------------------------------------------------- */

void check_result_at(const struct scene *scene, kp_result expected, kp_result result,
                     const char *file, int line)
{
    if (result == expected)
        return;
    dprintf(check_output, "%s, expected %s: %s\n", kp_result_name(result), kp_result_name(expected),
            scene->error.code == result ? scene->error.message : "");
    check_failed(file, line, "the result");
}

bool statuses_may_be_lost;

void check_exit(const struct scene *scene, int exit_code, int signal_number)
{
    int code = 77, signo = 77;
    CHECK(kp_handle_exit_status(scene->proxy, &code, &signo) == 1);
    if (statuses_may_be_lost && code == -1 && signo == 0)
        return;
    CHECK(code == exit_code);
    CHECK(signo == signal_number);
}

_Noreturn void cannot(const char *why)
{
    dprintf(check_output, "# %s\n", why);
    _exit(EXIT_CANNOT);
}

/* ---- What is the host's own -------------------------------------------------------- */

/* Dies of any signal that it can see. */
static _Noreturn void mind_signals(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        pause();
}

static void die_of_it(int signal_number)
{
    (void)signal_number;
    _exit(EXIT_SIGNALLED);
}

/* Handlers first: a signal that comes early is seen, too. */
static pid_t fork_minder(void)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 1; i < SIGRTMIN; i++)
            signal(i, die_of_it);
        sigemptyset(&before);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid == 0)
        mind_signals();
    CHECK(pid > 0);
    return pid;
}

static pid_t fork_one_that_ends(void)
{
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0)
        _exit(EXIT_OVER);
    CHECK(pid > 0);
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        CHECK(errno == EINTR);
    return pid;
}

static struct {
    pid_t minder, ended; /* other children; `ended`: 0 in a host that reaps */
    struct sigaction actions[NSIG];
    sigset_t mask;
    mode_t umask;
    pid_t group;
    int nice;
    struct census census;
    struct stat files[MAX_FDS];
    int fd_flags[MAX_FDS], file_flags[MAX_FDS];
} own;

static void look_at_files(const struct census *census, struct stat *files, int *fd_flags,
                          int *file_flags)
{
    for (size_t i = 0; i < census->fds; i++) {
        CHECK(fstat(census->fd[i], &files[i]) == 0);
        fd_flags[i] = fcntl(census->fd[i], F_GETFD);
        file_flags[i] = fcntl(census->fd[i], F_GETFL);
    }
}

static mode_t current_umask(void)
{
    mode_t mask = umask(0);
    umask(mask);
    return mask;
}

void witness(struct scene *scene)
{
    for (int i = 1; i < NSIG; i++)
        sigaction(i, NULL, &own.actions[i]);
    sigprocmask(SIG_SETMASK, NULL, &own.mask);
    own.umask = current_umask();
    own.group = getpgrp();
    own.nice = getpriority(PRIO_PROCESS, 0);
    own.census = census_take();
    strcpy(own.census.mark, scene->before.mark);
    look_at_files(&own.census, own.files, own.fd_flags, own.file_flags);
}

static bool equal_sets(const sigset_t *a, const sigset_t *b)
{
    for (int i = 1; i < NSIG; i++)
        if (sigismember(a, i) != sigismember(b, i))
            return false;
    return true;
}

static void check_signals(void)
{
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    CHECK(equal_sets(&mask, &own.mask));
    for (int i = 1; i < NSIG; i++) {
        struct sigaction now;
        if (sigaction(i, NULL, &now) != 0)
            continue; /* one of libc's own */
        CHECK(now.sa_handler == own.actions[i].sa_handler);
        CHECK(now.sa_flags == own.actions[i].sa_flags);
        CHECK(equal_sets(&now.sa_mask, &own.actions[i].sa_mask));
    }
}

static void check_files(void)
{
    static struct stat files[MAX_FDS];
    static int fd_flags[MAX_FDS], file_flags[MAX_FDS];
    look_at_files(&own.census, files, fd_flags, file_flags);
    for (size_t i = 0; i < own.census.fds; i++) {
        CHECK(files[i].st_dev == own.files[i].st_dev && files[i].st_ino == own.files[i].st_ino);
        CHECK(fd_flags[i] == own.fd_flags[i]);
        CHECK(file_flags[i] == own.file_flags[i]);
    }
}

static bool was_open(int fd)
{
    for (size_t i = 0; i < own.census.fds; i++)
        if (own.census.fd[i] == fd)
            return true;
    return own.census.fds == 0; /* nobody has looked */
}

/* What the library holds now is not where a host has its standard streams. */
static void check_streams(void)
{
    for (int fd = 0; fd < 3; fd++)
        CHECK(was_open(fd) || fcntl(fd, F_GETFD) == -1);
}

/* What the kernel or a thread of the host's reaps may be seen for a moment longer. */
static bool nothing_leaks(const void *before)
{
    return census_leaks(before)[0] == '\0';
}

void check_witness(struct scene *scene)
{
    (void)scene;
    if (!eventually(nothing_leaks, &own.census)) {
        dprintf(check_output, "%s\n", census_leaks(&own.census));
        CHECK(nothing_leaks(&own.census));
    }
    check_signals();
    check_files();
    CHECK(current_umask() == own.umask);
    CHECK(getpgrp() == own.group);
    CHECK(getpriority(PRIO_PROCESS, 0) == own.nice);
}

static void make_bystanders(bool reaps)
{
    own.minder = fork_minder();
    own.ended = reaps ? 0 : fork_one_that_ends();
}

bool is_bystander(pid_t pid)
{
    return pid == own.minder || pid == own.ended;
}

/* Nobody has signalled the one or reaped the other. */
static void check_bystanders(void)
{
    struct process minder;
    siginfo_t info = {0};
    CHECK(process_read(own.minder, &minder) && (minder.state == 'S' || minder.state == 'R'));
    kill(own.minder, SIGKILL);
    while (waitpid(own.minder, NULL, 0) < 0 && errno == EINTR)
        ;
    if (own.ended == 0)
        return;
    CHECK(waitid(P_PID, (id_t)own.ended, &info, WEXITED | WNOHANG) == 0);
    CHECK(info.si_pid == own.ended && info.si_status == EXIT_OVER);
}

/* ---- The parts of a life ----------------------------------------------------------- */

kp_spec marked(const struct scene *scene, char *const *argv)
{
    static _Thread_local char mark[MARK_SIZE], *env[2];
    kp_spec spec = spec_for(argv);
    strcpy(mark, scene->before.mark);
    env[0] = mark;
    spec.env = env;
    spec.stop_grace_ms = PATIENCE_MS; /* none is killed who would go by itself */
    return spec;
}

kp_result go_on(struct scene *scene, kp_state until)
{
    int64_t end = now_ms() + PATIENCE_MS;
    kp_result result;
    do
        result = reach(scene, until);
    while (result == KP_AGAIN && now_ms() < end);
    return result;
}

/* As spawn() does it, but in a host whose signal handlers run all the time. */
kp_result begin(struct scene *scene, kp_spec spec)
{
    spec.flags |= scene->way->flags;
    if (scene->way->blocks)
        return kp_spawn(&spec, &scene->proxy, &scene->error);
    kp_result result = start(scene, spec);
    if (result != KP_OK)
        return result;
    result = go_on(scene, KP_STATE_READY);
    if (result != KP_OK) {
        CHECK(go_on(scene, KP_STATE_EXITED) == KP_OK);
        free_proxy(scene);
    }
    return result;
}

/* A handler of the host's would interrupt the test's own connect. */
bool answers(uint16_t port)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    bool result = port_answers(port);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return result;
}

void free_proxy(struct scene *scene)
{
    pid_t pid = kp_handle_pid(scene->proxy);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    CHECK(pid > 0 && !process_lives(pid));
}

void be_ready(struct scene *scene, kp_spec spec)
{
    CHECK_RESULT(KP_OK, begin(scene, spec));
    CHECK(kp_handle_state(scene->proxy) == KP_STATE_READY);
    CHECK(answers(kp_handle_port(scene->proxy)));
    check_streams();
}

void be_exited(struct scene *scene)
{
    CHECK_RESULT(KP_OK, go_on(scene, KP_STATE_EXITED));
    CHECK(kp_handle_state(scene->proxy) == KP_STATE_EXITED);
    CHECK(!process_lives(kp_handle_pid(scene->proxy)));
    CHECK(!answers(kp_handle_port(scene->proxy)));
}

int64_t end_it(struct scene *scene, int grace_ms)
{
    int64_t start = now_ms();
    pid_t group = getpgid(kp_handle_pid(scene->proxy));
    CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, grace_ms));
    be_exited(scene);
    CHECK(group > 0 && group_size(group) == 0);
    return now_ms() - start;
}

/* Goes on until a failure was told. */
static kp_result go_on_until_told(struct scene *scene)
{
    kp_result result = KP_OK;
    int64_t end = now_ms() + PATIENCE_MS;
    while (result >= 0 && now_ms() < end) {
        scene->way->pause(scene->proxy);
        result = kp_handle_step(scene->proxy, &scene->error);
    }
    return result;
}

/* ---- What a start costs -------------------------------------------------------------- */

enum { STARTS = 31 };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t least_start_ns(struct scene *scene)
{
    int64_t least = INT64_MAX;
    kp_spec spec = marked(scene, FIXTURE("never"));
    spec.flags = scene->way->flags;
    for (int i = 0; i < STARTS; i++) {
        int64_t begin_ns = now_ns();
        CHECK_RESULT(KP_OK, kp_start(&spec, &scene->proxy, &scene->error));
        int64_t took = now_ns() - begin_ns;
        least = took < least ? took : least;
        kp_handle_stop(scene->proxy, 0);
        free_proxy(scene);
    }
    return least;
}

void check_no_slower(int64_t usual_ns, int64_t strange_ns)
{
    if (strange_ns <= 10 * usual_ns)
        return;
    dprintf(check_output, "%lld ns, usually %lld ns\n", (long long)strange_ns, (long long)usual_ns);
    CHECK(strange_ns <= 10 * usual_ns);
}

/* ---- The lives --------------------------------------------------------------------- */

static void a_proxy_is_started_and_stopped(struct scene *scene)
{
    be_ready(scene, marked(scene, FIXTURE("serve")));
    CHECK(end_it(scene, -1) < PATIENCE_MS);
    check_exit(scene, -1, SIGTERM);
    free_proxy(scene);
}

/* A wrapper that leaves its proxy behind, which is ended then. */
static void an_exit_is_seen(struct scene *scene)
{
    be_ready(scene, marked(scene, SHELL("trap 'exit 3' USR1; \"$0\" serve & wait")));
    kill(kp_handle_pid(scene->proxy), SIGUSR1);
    CHECK_RESULT(KP_ERR_EXITED, go_on_until_told(scene));
    be_exited(scene);
    check_exit(scene, 3, 0);
    free_proxy(scene);
}

static void a_failed_start_is_told(struct scene *scene)
{
    CHECK_RESULT(KP_ERR_EXITED, begin(scene, marked(scene, FIXTURE("exit", "4"))));
    CHECK(scene->proxy == NULL);
    bool lost = statuses_may_be_lost && scene->error.exit_code == -1;
    CHECK(lost || scene->error.exit_code == 4);
    CHECK(scene->error.term_signal == 0);
    CHECK(!lost || strstr(scene->error.message, "unknown status") != NULL);
}

static void a_start_that_takes_too_long_is_told(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("never"));
    spec.startup_timeout_ms = 100;
    CHECK_RESULT(KP_ERR_TIMED_OUT, begin(scene, spec));
    CHECK(scene->proxy == NULL);
}

static bool valgrind; /* asked before the environment may be taken away */

static void a_program_that_is_not_there_is_told(struct scene *scene)
{
    kp_result result = begin(scene, marked(scene, WORDS("/no/such/proxy")));
    CHECK(scene->proxy == NULL);
    if (valgrind && result == KP_ERR_EXITED)
        return; /* a failed exec is an exit there */
    CHECK_RESULT(KP_ERR_SPAWN, result);
    CHECK(scene->error.sys_errno == ENOENT);
}

static void a_killed_proxy_is_restarted(struct scene *scene)
{
    be_ready(scene, marked(scene, FIXTURE("serve")));
    pid_t pid = kp_handle_pid(scene->proxy);
    kill(pid, SIGKILL);
    CHECK_RESULT(KP_ERR_EXITED, go_on_until_told(scene));
    be_exited(scene);
    check_exit(scene, -1, SIGKILL);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK(kp_handle_pid(scene->proxy) != pid);
    CHECK_RESULT(KP_OK, go_on(scene, KP_STATE_READY));
    CHECK(answers(kp_handle_port(scene->proxy)));
    free_proxy(scene);
}

static void a_wrapper_and_its_workers_are_stopped(struct scene *scene)
{
    be_ready(scene, marked(scene, SHELL("\"$0\" workers 2 & wait")));
    CHECK(group_size(getpgid(kp_handle_pid(scene->proxy))) >= 4);
    CHECK(end_it(scene, -1) < PATIENCE_MS);
    free_proxy(scene);
}

/* They are alone in the group while they have their grace. */
static void workers_that_ignore_sigterm_are_killed(struct scene *scene)
{
    be_ready(scene, marked(scene, FIXTURE("deaf-workers", "2")));
    CHECK(end_it(scene, GRACE_MS) >= GRACE_MS);
    check_exit(scene, -1, SIGTERM);
    free_proxy(scene);
}

static void a_proxy_that_ignores_sigterm_is_killed(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("deaf"));
    spec.stop_grace_ms = GRACE_MS;
    be_ready(scene, spec);
    CHECK(end_it(scene, -1) >= GRACE_MS);
    check_exit(scene, -1, SIGKILL);
    free_proxy(scene);
}

static void a_starting_proxy_is_freed(struct scene *scene)
{
    CHECK_RESULT(KP_OK, start(scene, marked(scene, FIXTURE("never"))));
    CHECK(kp_handle_step(scene->proxy, &scene->error) == KP_AGAIN);
    free_proxy(scene);
}

struct life {
    const char *name;
    void (*lead)(struct scene *);
};

static const struct life lives[] = {
    {"a proxy is started and stopped", a_proxy_is_started_and_stopped},
    {"an exit is seen", an_exit_is_seen},
    {"a failed start is told", a_failed_start_is_told},
    {"a start that takes too long is told", a_start_that_takes_too_long_is_told},
    {"a program that is not there is told", a_program_that_is_not_there_is_told},
    {"a killed proxy is restarted", a_killed_proxy_is_restarted},
    {"a wrapper and its workers are stopped", a_wrapper_and_its_workers_are_stopped},
    {"workers that ignore SIGTERM are killed", workers_that_ignore_sigterm_are_killed},
    {"a proxy that ignores SIGTERM is killed", a_proxy_that_ignores_sigterm_is_killed},
    {"a starting proxy is freed", a_starting_proxy_is_freed},
};
enum { LIVES = sizeof lives / sizeof *lives };

void lead_a_whole_life(struct scene *scene)
{
    a_proxy_is_started_and_stopped(scene);
}

void lead_every_life(struct scene *scene)
{
    for (size_t i = 0; i < LIVES; i++)
        lives[i].lead(scene);
}

/* ---- Each circumstance with each life and way ---------------------------------------- */

struct part {
    const struct circumstance *circumstance;
    const struct life *life;
    struct way *way;
    char name[160];
};

static const struct part *part; /* of the test that runs */

/* Its messages go where they went, whatever becomes of its descriptors. */
static void become_a_host(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    check_output = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
}

static void live_in_the_circumstance(struct scene *scene)
{
    statuses_may_be_lost = part->circumstance->reaps;
    make_bystanders(part->circumstance->reaps);
    if (!part->circumstance->set_up(scene, part->circumstance->number))
        cannot(part->circumstance->name);
    witness(scene);
    part->life->lead(scene);
    if (part->circumstance->after != NULL)
        part->circumstance->after(scene);
    check_witness(scene);
    check_bystanders();
}

static void (*body_of_host)(struct scene *);

static void be_a_host(struct scene *scene)
{
    become_a_host();
    body_of_host(scene);
}

bool run_host(void (*body)(struct scene *), struct scene *scene, const char *test)
{
    body_of_host = body;
    fixture(); /* while there is an environment to ask */
    int status = in_child(be_a_host, scene);
    if (status == EXIT_CANNOT) {
        const char *require = getenv("KP_TEST_REQUIRE");
        assert_false(require != NULL && strcmp(require, "1") == 0);
        left_out(test, "where its circumstance can't be had");
        return false;
    }
    assert_int_equal(status, 0);
    return true;
}

static void live_it(void **state)
{
    run_host(live_in_the_circumstance, *state, part->name);
}

static int part_open(void **state)
{
    part = *state;
    *state = part->way;
    return scene_open(state);
}

static int part_close(void **state)
{
    part = NULL;
    return scene_close(state);
}

void (*end_leftovers)(void);

static int own_close(void **state)
{
    if (end_leftovers != NULL)
        end_leftovers();
    return scene_close(state);
}

static const char *const labels[] = {"blocking", "descriptor", "clock", "no guard"};
enum { WAYS = sizeof ways / sizeof *ways };

static void fill_part(struct part *new_part, const struct circumstance *list, size_t number)
{
    new_part->circumstance = &list[number / WAYS / LIVES];
    new_part->life = &lives[number / WAYS % LIVES];
    new_part->way = &ways[number % WAYS];
    snprintf(new_part->name, sizeof new_part->name, "%s: %s [%s]", new_part->circumstance->name,
             new_part->life->name, labels[number % WAYS]);
}

int run_strange(const struct circumstance *list, size_t count, const struct CMUnitTest *own_tests,
                size_t own_count)
{
    size_t parts = count * LIVES * WAYS;
    valgrind = under_valgrind();
    struct part *all = calloc(parts + 1, sizeof *all);
    struct CMUnitTest *tests = calloc(own_count + parts, sizeof *tests);
    if (all == NULL || tests == NULL)
        return 1;
    for (size_t i = 0; i < own_count; i++) {
        tests[i] = own_tests[i];
        tests[i].teardown_func = own_close;
    }
    for (size_t i = 0; i < parts; i++) {
        fill_part(&all[i], list, i);
        tests[own_count + i] =
            (struct CMUnitTest){all[i].name, live_it, part_open, part_close, &all[i]};
    }
    int failed = _cmocka_run_group_tests("strange", tests, own_count + parts, NULL, NULL);
    free(tests);
    free(all);
    return failed;
}
