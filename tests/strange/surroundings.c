/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts whose folder, environment, limits or memory are unusual. */
#include "life.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- The folder ---------------------------------------------------------------------- */

static bool delete_folder(struct scene *scene, int unused)
{
    const char *path = scene_path(scene, "folder");
    (void)unused;
    return mkdir(path, 0700) == 0 && chdir(path) == 0 && rmdir(path) == 0;
}

static void name_a_folder_in_a_deleted_one(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("serve"));
    CHECK(delete_folder(scene, 0));
    spec.cwd = "some-folder";
    witness(scene);
    CHECK(begin(scene, spec) == KP_ERR_SPAWN);
    CHECK(scene->error.sys_errno == ENOENT);
    CHECK(strstr(scene->error.message, "cwd \"some-folder\"") != NULL);
    check_witness(scene);
    spec.cwd = "/";
    be_ready(scene, spec);
    free_proxy(scene);
}

static void a_relative_folder_in_a_deleted_one_is_named(void **state)
{
    if (!left_out_under_valgrind(__func__)) /* where a failed exec is an exit */
        run_host(name_a_folder_in_a_deleted_one, *state, __func__);
}

static bool clear_umask(struct scene *scene, int mask)
{
    (void)scene;
    umask((mode_t)mask);
    return true;
}

/* ---- PATH -------------------------------------------------------------------------------- */

enum { NO_PATH, EMPTY_PATH, USELESS_PATH, NO_ENVIRONMENT };

static bool take_path(struct scene *scene, int how)
{
    (void)scene;
    switch (how) {
    case NO_PATH:
        return unsetenv("PATH") == 0;
    case EMPTY_PATH:
        return setenv("PATH", "", 1) == 0;
    case USELESS_PATH:
        return setenv("PATH", "/no/such/folder", 1) == 0;
    default:
        return clearenv() == 0 && environ == NULL;
    }
}

/* The system's own search path, as for posix_spawnp. */
static void find_a_plain_name(struct scene *scene, int how, kp_result expected)
{
    kp_spec spec = marked(scene, WORDS("sh", "-c", "exec \"$0\" serve", fixture()));
    CHECK(take_path(scene, how));
    kp_result result = begin(scene, spec);
    CHECK_RESULT(expected, result);
    if (result == KP_OK)
        free_proxy(scene);
    else
        CHECK(scene->error.sys_errno == ENOENT);
}

static void find_without_path(struct scene *scene)
{
    find_a_plain_name(scene, NO_PATH, KP_OK);
}

static void find_without_environment(struct scene *scene)
{
    find_a_plain_name(scene, NO_ENVIRONMENT, KP_OK);
}

static void find_in_an_empty_path(struct scene *scene)
{
    find_a_plain_name(scene, EMPTY_PATH, KP_ERR_SPAWN);
}

static void a_plain_name_without_path_is_found(void **state)
{
    run_host(find_without_path, *state, __func__);
    run_host(find_without_environment, *state, __func__);
}

static void a_plain_name_in_an_empty_path_is_not(void **state)
{
    if (!left_out_under_valgrind(__func__))
        run_host(find_in_an_empty_path, *state, __func__);
}

/* ---- PATH and the guard -------------------------------------------------------------------- */

/* The proxy needs a moment to clean up, which it has from the guard's sleep alone. */
static _Noreturn void die_with_a_proxy(struct scene *scene, int how)
{
    static const char script[] =
        "trap '/bin/sleep 0.2; echo > \"$KP_TRACE\"; exit' TERM; \"$0\" serve & wait";
    kp_spec spec = spec_for(SHELL(script));
    char trace[160];
    snprintf(trace, sizeof trace, "KP_TRACE=%s", scene_path(scene, "cleaned-up"));
    spec.env = WORDS(trace);
    CHECK(take_path(scene, how));
    CHECK_RESULT(KP_OK, kp_spawn(&spec, &scene->proxy, &scene->error));
    kill(getpid(), SIGKILL);
    _exit(1);
}

static void leave_a_proxy_to_its_guard(struct scene *scene, int how)
{
    int status;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    pid_t pid = fork();
    if (pid == 0)
        die_with_a_proxy(scene, how);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int64_t end = now_ms() + PATIENCE_MS;
    while (waitpid(-1, NULL, 0) > 0)
        CHECK(now_ms() < end);
    CHECK(file_exists(scene_path(scene, "cleaned-up")));
    unlink(scene_path(scene, "cleaned-up"));
}

static void leave_without_path(struct scene *scene)
{
    leave_a_proxy_to_its_guard(scene, NO_PATH);
}

static void leave_with_an_empty_path(struct scene *scene)
{
    leave_a_proxy_to_its_guard(scene, EMPTY_PATH);
}

static void leave_with_a_useless_path(struct scene *scene)
{
    leave_a_proxy_to_its_guard(scene, USELESS_PATH);
}

static void leave_without_environment(struct scene *scene)
{
    leave_a_proxy_to_its_guard(scene, NO_ENVIRONMENT);
}

static void the_guard_finds_its_sleep_without_path(void **state)
{
    run_host(leave_without_path, *state, __func__);
}

static void the_guard_finds_its_sleep_without_environment(void **state)
{
    run_host(leave_without_environment, *state, __func__);
}

static void the_guard_finds_its_sleep_with_an_empty_path(void **state)
{
    run_host(leave_with_an_empty_path, *state, __func__);
}

static void the_guard_finds_its_sleep_with_a_useless_path(void **state)
{
    run_host(leave_with_a_useless_path, *state, __func__);
}

/* ---- A large environment -------------------------------------------------------------------- */

enum { KIB = 1024, MIB = 1024 * KIB, VALUE = 100 * KIB };

/* In pieces, since one string may not be as long as this. */
static bool fill_environment(struct scene *scene, int size)
{
    static char value[VALUE];
    (void)scene;
    memset(value, 'x', sizeof value - 1);
    for (int i = 0; i < size / VALUE; i++) {
        char name[32];
        snprintf(name, sizeof name, "KP_LARGE_%d", i);
        if (setenv(name, value, 1) != 0)
            return false;
    }
    return true;
}

/* More than the kernel takes: a quarter of the stack's limit, 6 MiB at most. */
static void start_with_too_much(struct scene *scene)
{
    witness(scene);
    CHECK(fill_environment(scene, 8 * MIB));
    CHECK(begin(scene, marked(scene, FIXTURE("serve"))) == KP_ERR_SPAWN);
    CHECK(scene->error.sys_errno == E2BIG);
    CHECK(strstr(scene->error.message, strerror(E2BIG)) != NULL);
    CHECK(scene->proxy == NULL);
    check_witness(scene);
    CHECK(clearenv() == 0);
    be_ready(scene, marked(scene, FIXTURE("serve")));
    free_proxy(scene);
}

static void too_large_an_environment_is_told(void **state)
{
    if (!left_out_under_valgrind(__func__))
        run_host(start_with_too_much, *state, __func__);
}

/* ---- Limits ------------------------------------------------------------------------------------
 */

static bool limit(int resource, rlim_t to)
{
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)resource, &now) != 0)
        return false;
    now.rlim_cur = to;
    return setrlimit((__rlimit_resource_t)resource, &now) == 0;
}

static bool limit_files(struct scene *scene, int size)
{
    (void)scene;
    return limit(RLIMIT_FSIZE, (rlim_t)size);
}

static bool limit_stack(struct scene *scene, int size)
{
    (void)scene;
    return limit(RLIMIT_STACK, (rlim_t)size);
}

static bool become_nice(struct scene *scene, int value)
{
    (void)scene;
    return setpriority(PRIO_PROCESS, 0, value) == 0;
}

/* The limit is the proxy's too, and what it costs: nobody signals the host. */
static void print_where_nothing_may_be_written(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("print-exit", "3", "words"));
    spec.log_fd = open(scene_path(scene, "log"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(limit_files(scene, 0));
    CHECK_RESULT(KP_ERR_EXITED, begin(scene, spec));
    CHECK(scene->error.term_signal == SIGXFSZ);
}

static void a_proxy_that_may_write_nothing(void **state)
{
    run_host(print_where_nothing_may_be_written, *state, __func__);
}

/* ---- Too many processes
 * -------------------------------------------------------------------------- */

/* Processes of this user; the limit counts threads, of which the test has one. */
static bool is_ours(const struct process *process, void *count)
{
    char path[64];
    struct stat info;
    snprintf(path, sizeof path, "/proc/%ld", (long)process->pid);
    if (stat(path, &info) == 0 && info.st_uid == getuid())
        ++*(size_t *)count;
    return true;
}

/* The limit is the user's: of one that nobody else is, not even in a test that runs meanwhile. */
static void be_somebody(struct scene *scene)
{
    uid_t alone = 20000 + (uid_t)getpid() % 30000; /* a container may have no more than 65536 */
    CHECK(chown(scene->dir, alone, alone) == 0);
    if (!become_user(alone))
        cannot("another user needs root");
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the change of user has unset it */
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
}

/* With room for so many more processes. */
static kp_result start_with_room(struct scene *scene, size_t room)
{
    size_t count = 0;
    struct rlimit before;
    kp_spec spec = marked(scene, FIXTURE("serve"));
    spec.flags = scene->way->flags;
    process_each(is_ours, &count);
    CHECK(getrlimit(RLIMIT_NPROC, &before) == 0 && limit(RLIMIT_NPROC, count + room));
    kp_result result = kp_spawn(&spec, &scene->proxy, &scene->error);
    CHECK(setrlimit(RLIMIT_NPROC, &before) == 0);
    return result;
}

/* Without room for a guard, then without room for its proxy: a shortage is told as one, and the
 * guard that was there does not stay. */
static void start_at_the_limit(struct scene *scene)
{
    size_t needed = scene->way->flags == KP_SPEC_NO_GUARD ? 1 : 2;
    if (geteuid() != 0)
        cannot("another user needs root");
    be_somebody(scene);
    witness(scene);
    for (size_t room = 0; room < needed; room++) {
        CHECK_RESULT(KP_ERR_SYSTEM, start_with_room(scene, room));
        CHECK(scene->error.sys_errno == EAGAIN);
        CHECK(strstr(scene->error.message, strerror(EAGAIN)) != NULL);
        check_witness(scene);
    }
    CHECK_RESULT(KP_OK, start_with_room(scene, needed));
    end_it(scene, -1);
    free_proxy(scene);
    check_witness(scene);
}

static void too_many_processes_are_told(void **state)
{
    if (!left_out_under_valgrind(__func__))
        run_host(start_at_the_limit, *state, __func__);
}

/* ---- Little memory
 * --------------------------------------------------------------------------------- */

enum { STEP = 256 * KIB, STEPS = 80 };

/* Address space that is in use. */
static rlim_t space_in_use(void)
{
    char text[256];
    unsigned long pages = 0;
    file_read("/proc/self/statm", text, sizeof text);
    CHECK(sscanf(text, "%lu", &pages) == 1);
    return pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* The host may map so much more, and each of its children as much in all: at first there is not
 * enough for the library's own, then not for a spawn, then for a program. */
static kp_result start_with_space(struct scene *scene, rlim_t space)
{
    struct rlimit before;
    kp_spec spec = marked(scene, FIXTURE("serve"));
    spec.flags = scene->way->flags;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0 && limit(RLIMIT_AS, space));
    kp_result result = kp_spawn(&spec, &scene->proxy, &scene->error);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    return result;
}

static bool is_of_want(const struct scene *scene, kp_result result)
{
    if (result == KP_ERR_SYSTEM || result == KP_ERR_SPAWN)
        return scene->error.sys_errno == ENOMEM || scene->error.sys_errno == EAGAIN;
    return result == KP_ERR_NO_MEMORY || result == KP_ERR_EXITED || result == KP_ERR_GUARD;
}

static void start_with_little_memory(struct scene *scene)
{
    kp_result result = KP_AGAIN;
    bool was_short = false;
    witness(scene);
    rlim_t space = space_in_use();
    for (int i = 0; result != KP_OK && i < STEPS; i++, space += STEP) {
        result = start_with_space(scene, space);
        was_short = was_short || result != KP_OK;
        if (result != KP_OK && !is_of_want(scene, result))
            CHECK_RESULT(KP_OK, result);
        if (result == KP_OK)
            free_proxy(scene);
        check_witness(scene);
    }
    CHECK_RESULT(KP_OK, result);
    CHECK(was_short);
}

/* Under the sanitizers a program maps more than any limit. */
#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = true };
#else
enum { SANITIZED = false };
#endif

static void little_memory_is_told(void **state)
{
    if (SANITIZED && left_out(__func__, "under the sanitizers"))
        return;
    if (!left_out_under_valgrind(__func__))
        run_host(start_with_little_memory, *state, __func__);
}

/* ---- Much memory
 * ------------------------------------------------------------------------------------- */

enum { LARGE_MIB = 4096, MARGIN_MIB = 2048 };

static long available_mib(void)
{
    char text[4096];
    long kib = 0;
    file_read("/proc/meminfo", text, sizeof text);
    const char *line = strstr(text, "MemAvailable:");
    return line != NULL && sscanf(line, "MemAvailable: %ld", &kib) == 1 ? kib / KIB : 0;
}

/* In small pages: what would have to be copied is one entry for each of them. */
static void grow(void)
{
    size_t size = (size_t)LARGE_MIB * MIB;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED);
    madvise(memory, size, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < size; i += 4 * KIB)
        memory[i] = 1;
}

/* A fork would take tens of milliseconds, a spawn takes the tenth of one. */
static void start_in_a_large_host(struct scene *scene)
{
    int64_t small = least_start_ns(scene);
    grow();
    int64_t large = least_start_ns(scene);
    check_no_slower(small, large);
    lead_a_whole_life(scene);
}

static void four_gibibytes_cost_no_time(void **state)
{
    if (left_out_under_valgrind(__func__))
        return;
    if (available_mib() < LARGE_MIB + MARGIN_MIB && left_out(__func__, "for want of memory"))
        return;
    run_host(start_in_a_large_host, *state, __func__);
}

int main(void)
{
    static const struct circumstance list[] = {
        {"its folder is deleted", delete_folder, .number = 0},
        {"the umask is 0777", clear_umask, .number = 0777},
        {"PATH is not set", take_path, .number = NO_PATH},
        {"PATH is empty", take_path, .number = EMPTY_PATH},
        {"PATH leads nowhere", take_path, .number = USELESS_PATH},
        {"there is no environment", take_path, .number = NO_ENVIRONMENT},
        {"an environment of a mebibyte", fill_environment, .number = MIB},
        {"no file may be written", limit_files, .number = 0},
        {"a stack of 256 KiB", limit_stack, .number = 256 * KIB},
        {"it is as nice as can be", become_nice, .number = 19},
    };
    static const struct CMUnitTest own[] = {
        EACH_WAY(a_relative_folder_in_a_deleted_one_is_named),
        EACH_WAY(a_plain_name_without_path_is_found),
        EACH_WAY(a_plain_name_in_an_empty_path_is_not),
        TEST(the_guard_finds_its_sleep_without_path),
        TEST(the_guard_finds_its_sleep_without_environment),
        TEST(the_guard_finds_its_sleep_with_an_empty_path),
        TEST(the_guard_finds_its_sleep_with_a_useless_path),
        EACH_WAY(too_large_an_environment_is_told),
        TEST_WAY(a_proxy_that_may_write_nothing, "guard", &ways[0]),
        TEST_WAY(a_proxy_that_may_write_nothing, "no guard", &ways[3]),
        TEST_WAY(too_many_processes_are_told, "guard", &ways[0]),
        TEST_WAY(too_many_processes_are_told, "no guard", &ways[3]),
        TEST_WAY(little_memory_is_told, "guard", &ways[0]),
        TEST_WAY(little_memory_is_told, "no guard", &ways[3]),
        TEST_WAY(four_gibibytes_cost_no_time, "guard", &ways[0]),
        TEST_WAY(four_gibibytes_cost_no_time, "no guard", &ways[3]),
    };
    return run_strange(list, sizeof list / sizeof *list, own, sizeof own / sizeof *own);
}
