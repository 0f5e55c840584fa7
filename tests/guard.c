/* SPDX-License-Identifier: Apache-2.0 */
/* The guard itself: what it has, what it outlives, and what its own end is worth. */
#include "mortal.h"
#include "process.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <termios.h>
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

static bool is_there(const void *path)
{
    return file_exists(path);
}

/* A nice worker is somebody too: while it has its grace, alone, the guard is there. */
static void a_nice_worker_keeps_the_guard(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    const char *trace = scene_path(scene, "ignores");
    setenv("KP_TRACE", trace, 1);
    kp_spec spec = spec_for(SHELL("nice -n 10 sh -c 'trap \"\" TERM; : > $KP_TRACE; sleep 0.5; "
                                  "sleep 60' & exec \"$0\" serve"));
    spec.stop_grace_ms = 2000;
    get_ready(scene, spec);
    unsetenv("KP_TRACE");
    pid_t guard = guard_of(scene);
    assert_true(eventually(is_there, trace));
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

/* ---- Signals -------------------------------------------------------------------------- */

/* What is sent to a group, by a terminal, by a supervisor or by a member. */
static const int usual[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN,
                            SIGTTOU, SIGALRM, SIGPIPE, SIGUSR1, SIGUSR2};
#define IGNORE_THE_USUAL "trap '' HUP INT QUIT TERM TSTP TTIN TTOU ALRM PIPE USR1 USR2; "

static void send_the_usual(pid_t to)
{
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        kill(to, usual[i]);
}

/* Whatever a process can do something about. */
static void send_everything(pid_t to)
{
    for (int signo = 1; signo < SIGSYS; signo++)
        if (signo != SIGKILL && signo != SIGSTOP)
            kill(to, signo);
    kill(to, SIGRTMIN);
    kill(to, SIGRTMAX);
}

/* To the guard alone: its proxy has had no time to ignore anything. */
static void storm_the_guard(kp_handle *proxy)
{
    send_everything(getpgid(kp_handle_pid(proxy)));
}

enum { STORMED_HOSTS = 200, STORM_GRACE_MS = 50 };

/* Neither before it can set a trap nor later; and once the host is dead it does its work. */
static void signals_do_not_end_it_from_its_first_instruction_on(void **state)
{
    (void)state;
    struct plan plan = {.spec = guarded(FIXTURE("deaf"), STORM_GRACE_MS),
                        .at_once = storm_the_guard,
                        .ready = true,
                        .later = storm_the_guard};
    for (int i = 0; i < (under_valgrind() ? 5 : STORMED_HOSTS); i++) {
        struct host host = host_start(&plan);
        host_kill(&host);
    }
    assert_nobody_is_left();
}

static bool storm_helper(const struct process *process, void *data)
{
    const struct host *host = data;
    if (process->group == host->group && process->pid != host->proxy)
        send_everything(process->pid);
    return true;
}

/* Nor does its sleep end before the grace is over. */
static void signals_in_the_grace_do_not_end_it(void **state)
{
    (void)state;
    enum { GRACE_MS = 600 };
    struct plan plan = {.spec = guarded(SHELL(IGNORE_THE_USUAL "exec \"$0\" deaf"), GRACE_MS),
                        .ready = true};
    struct host host = host_start(&plan);
    int64_t killed_at = now_ms();
    host_kill(&host);
    for (int i = 0; i < 4; i++) {
        sleep_ms(50);
        send_the_usual(-host.group);
        process_each(storm_helper, &host); /* what the proxy would die of */
    }
    assert_true(eventually_gone(host.proxy));
    assert_true(now_ms() - killed_at >= GRACE_MS);
    assert_nobody_is_left();
}

/* ---- The terminal ------------------------------------------------------------------------ */

static char terminal[64]; /* the host's side of it */

static int open_terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    assert_int_equal(ptsname_r(master, terminal, sizeof terminal), 0);
    return master;
}

/* As a host that nohup started in a shell whose terminal stops who writes in the background. */
static void sit_at_the_terminal(void)
{
    struct termios settings;
    static const int from_there[] = {SIGHUP, SIGINT, SIGQUIT, SIGTSTP};
    CHECK(setsid() == getpid());
    int fd = open(terminal, O_RDWR);
    CHECK(fd >= 0 && ioctl(fd, TIOCSCTTY, 0) == 0);
    CHECK(tcgetattr(fd, &settings) == 0);
    settings.c_lflag |= TOSTOP | ISIG;
    CHECK(tcsetattr(fd, TCSANOW, &settings) == 0);
    for (size_t i = 0; i < sizeof from_there / sizeof *from_there; i++)
        signal(from_there[i], SIG_IGN);
    CHECK(dup2(fd, 0) == 0 && dup2(fd, 1) == 1 && dup2(fd, 2) == 2);
}

static void assert_no_terminal(pid_t pid)
{
    for (int fd = 0; fd <= 2; fd++) {
        char path[64], target[64] = "";
        snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)pid, fd);
        assert_true(readlink(path, target, sizeof target - 1) > 0);
        assert_starts_with(target, fd == 0 ? "pipe:" : "/dev/null");
    }
}

/* One that is stopped does not sleep; one that has just been started does not yet. */
static void assert_both_live(const struct host *host)
{
    assert_true(eventually_asleep(host->group));
    assert_true(process_lives(host->proxy));
}

/* Neither Ctrl-C nor its closing reaches anybody but the host. */
static void the_terminal_is_the_hosts_alone(void **state)
{
    (void)state;
    int master = open_terminal();
    struct plan plan = {
        .spec = guarded(FIXTURE("serve"), 200), .first = sit_at_the_terminal, .ready = true};
    struct host host = host_start(&plan);
    assert_no_terminal(host.group);
    assert_int_equal(write(master, "\003\034\032", 3), 3); /* INT, QUIT and SUSP */
    sleep_ms(50);
    assert_both_live(&host);
    close(master);
    sleep_ms(50);
    assert_both_live(&host);
    host_kill(&host);
    assert_nobody_is_left();
}

/* ---- Its silence ------------------------------------------------------------------------- */

static const char *journal; /* what is printed by a host, its guard and its proxy */

static void print_into_the_journal(void)
{
    int fd = open(journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && dup2(fd, 1) == 1 && dup2(fd, 2) == 2);
}

static void end_well(kp_handle *proxy)
{
    kp_handle_free(proxy);
    _exit(0);
}

static void assert_nothing_was_printed(void)
{
    char text[1024];
    assert_true(file_exists(journal));
    file_read(journal, text, sizeof text);
    assert_string_equal(text, "");
}

static void it_says_nothing_at_the_end(void **state)
{
    journal = scene_path(*state, "journal");
    struct plan plan = {.spec = guarded(FIXTURE("deaf-workers", "1"), 100),
                        .first = print_into_the_journal,
                        .ready = true};
    struct host host = host_start(&plan);
    host_kill(&host);
    assert_nobody_is_left();
    plan.then = end_well;
    host = host_start(&plan);
    assert_int_equal(host_status(&host), 0);
    assert_nobody_is_left();
    assert_nothing_was_printed();
}

/* ---- The process limit ------------------------------------------------------------------- */

enum { PROCESS_LIMIT = 8 };

/* Of nobody else, not even in a test that runs at the same time. */
static uid_t crowded_user(void)
{
    return 50000 + (uid_t)getpid() % 10000;
}

static uid_t crowded;

static void live_within_a_limit(void)
{
    const struct rlimit limit = {PROCESS_LIMIT, PROCESS_LIMIT};
    CHECK(become_user(crowded));
    CHECK(setrlimit(RLIMIT_NPROC, &limit) == 0);
}

static _Noreturn void be_one_of_a_crowd(int out)
{
    alarm(60);
    CHECK(become_user(crowded) && write(out, "", 1) == 1);
    for (;;)
        pause();
}

/* They are other processes of the host's user. */
static void reach_the_limit(pid_t crowd[PROCESS_LIMIT])
{
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    for (int i = 0; i < PROCESS_LIMIT; i++) {
        crowd[i] = fork();
        if (crowd[i] == 0)
            be_one_of_a_crowd(ends[1]);
        assert_int_equal(read(ends[0], &byte, 1), 1);
    }
    close(ends[0]);
    close(ends[1]);
}

static bool is_asleep(const void *pid)
{
    char name[32];
    process_file(*(const pid_t *)pid, "comm", name, sizeof name);
    return strcmp(name, "sleep\n") == 0;
}

/* Programs that every user may run: the fixture may be in a folder that is not everybody's. */
static void at_the_process_limit_it_does_its_work(void **state)
{
    (void)state;
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    pid_t crowd[PROCESS_LIMIT];
    crowded = crowded_user();
    struct plan plan = {.spec = guarded(WORDS("/bin/sh", "-c", "trap '' TERM; exec sleep 60"), 200),
                        .first = live_within_a_limit};
    struct host host = host_start(&plan);
    assert_true(eventually(is_asleep, &host.proxy));
    reach_the_limit(crowd);
    host_kill(&host);
    assert_true(eventually_empty(host.group));
    for (int i = 0; i < PROCESS_LIMIT; i++)
        kill(crowd[i], SIGKILL);
    assert_nobody_is_left();
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
        MORTAL(signals_do_not_end_it_from_its_first_instruction_on),
        MORTAL(signals_in_the_grace_do_not_end_it),
        MORTAL(the_terminal_is_the_hosts_alone),
        MORTAL(it_says_nothing_at_the_end),
        MORTAL(at_the_process_limit_it_does_its_work),
    };
    return RUN(tests);
}
