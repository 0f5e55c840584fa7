/* SPDX-License-Identifier: Apache-2.0 */
/* Errors help the person who reads them, and are written whole or not at all. */
#include "process.h"
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- Programs that can't be executed ------------------------------------- */

static void assert_not_spawned(struct scene *scene, const kp_spec *spec, int expected_errno)
{
    error_fill(&scene->error);
    assert_result(KP_ERR_SPAWN, kp_spawn(spec, &scene->proxy, &scene->error));
    assert_null(scene->proxy);
    assert_int_equal(scene->error.sys_errno, expected_errno);
    assert_int_equal(scene->error.exit_code, -1);
    assert_int_equal(scene->error.term_signal, 0);
}

/* valgrind's clone() is a fork, after which a failed exec is an exit with 127. */
static void a_missing_program_is_named(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return;
    kp_spec spec = spec_for(WORDS("no-such-proxy", "--port"));
    assert_not_spawned(scene, &spec, ENOENT);
    assert_string_equal(scene->error.message,
                        "spawn external proxy \"no-such-proxy\": No such file or directory");
}

static void a_program_that_is_not_executable(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    const char *path = scene_path(scene, "plain");
    file_write(path, "#!/bin/sh\n", 0644);
    kp_spec spec = spec_for(WORDS(path));
    assert_not_spawned(scene, &spec, EACCES);
    assert_contains(scene->error.message, path);
    assert_contains(scene->error.message, "Permission denied");
}

static void a_missing_folder(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.cwd = scene_path(scene, "no-such-folder");
    assert_not_spawned(scene, &spec, ENOENT);
    assert_contains(scene->error.message, spec.cwd);
}

static void a_folder_that_is_none(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.cwd = fixture();
    assert_not_spawned(scene, &spec, ENOTDIR);
    assert_contains(scene->error.message, "cwd");
}

static void spawn_in_a_closed_folder(struct scene *scene)
{
    CHECK(become_somebody());
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.cwd = scene_path(scene, "closed");
    CHECK(kp_spawn(&spec, &scene->proxy, &scene->error) == KP_ERR_SPAWN);
    CHECK(scene->error.sys_errno == EACCES);
    CHECK(strstr(scene->error.message, spec.cwd) != NULL);
}

static void a_folder_that_may_not_be_entered(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    assert_int_equal(chmod(scene->dir, 0755), 0);
    assert_int_equal(mkdir(scene_path(scene, "closed"), 0700), 0);
    assert_int_equal(in_child(spawn_in_a_closed_folder, scene), 0);
}

/* It is not to blame. */
static void a_missing_program_in_a_folder(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    kp_spec spec = spec_for(WORDS("./no-such-proxy"));
    spec.cwd = scene->dir;
    assert_not_spawned(scene, &spec, ENOENT);
    assert_contains(scene->error.message, "no-such-proxy");
    assert_null(strstr(scene->error.message, "cwd"));
}

/* A program that somebody still has open for writing. */
static int open_program(char *path)
{
    static const char script[] = "#!/bin/sh\nexec \"$KP_FIXTURE\" serve\n";
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0777);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, script, sizeof script - 1), sizeof script - 1);
    pid_t pid;
    assert_int_equal(posix_spawn(&pid, path, NULL, NULL, WORDS(path), environ), ETXTBSY);
    return fd;
}

static void a_program_that_is_being_written(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    char *path = scene_path(scene, "proxy");
    kp_spec spec = spec_for(WORDS(path));
    int fd = open_program(path);
    assert_not_spawned(scene, &spec, ETXTBSY);
    close(fd);
}

/* As a child of another thread does, which had it from the fork on. */
static void *close_soon(void *fd)
{
    nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    close(*(int *)fd);
    return NULL;
}

static kp_result start_while_closing(struct scene *scene, const kp_spec *spec)
{
    pthread_t thread;
    int fd = open_program(spec->argv[0]);
    assert_int_equal(pthread_create(&thread, NULL, close_soon, &fd), 0);
    kp_result result = kp_spawn(spec, &scene->proxy, &scene->error);
    pthread_join(thread, NULL);
    return result;
}

static void a_program_that_was_just_written(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    kp_spec spec = spec_for(WORDS(scene_path(scene, "proxy")));
    kp_result result = KP_ERR_SPAWN;
    for (int i = 0; i < 5 && result != KP_OK; i++) /* on a busy machine the thread comes late */
        result = start_while_closing(scene, &spec);
    assert_result(KP_OK, result);
}

/* A message is one line that fits, whatever the program is called. */
static void a_program_with_a_name_of_any_kind(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    char name[3000];
    memset(name, 'n', sizeof name - 1);
    name[0] = '/';
    name[5] = '\n';
    name[6] = 0x7f;
    name[sizeof name - 1] = '\0';
    kp_spec spec = spec_for(WORDS(name));
    assert_result(KP_ERR_SPAWN, kp_spawn(&spec, &scene->proxy, &scene->error));
    assert_non_null(memchr(scene->error.message, '\0', sizeof scene->error.message));
    assert_null(strchr(scene->error.message, '\n'));
    assert_contains(scene->error.message, "/nnnn??nnn");
    assert_contains(scene->error.message, strerror(scene->error.sys_errno));
}

/* ---- Proxies that do not bind -------------------------------------------- */

/* "external proxy did not bind 127.0.0.1:PORT: " and this. */
static const char *reason_of(const kp_error *error)
{
    unsigned port = 0;
    int end = 0;
    sscanf(error->message, "external proxy did not bind 127.0.0.1:%u: %n", &port, &end);
    assert_in_range(port, 1, 65535);
    assert_true(end > 0);
    return error->message + end;
}

static void a_time_out_says_how_long(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 200;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    int ms = 0, end = 0;
    sscanf(reason_of(&scene->error), "timed out after %d ms%n", &ms, &end);
    assert_true(end > 0);
    assert_in_range(ms, 200, 999); /* what it took on a busy machine */
    assert_int_equal(scene->error.exit_code, -1);
    assert_int_equal(scene->error.term_signal, 0);
}

static void an_exit_says_its_status_and_when(void **state)
{
    struct scene *scene = *state;
    int status = 0, ms = -1, end = 0;
    assert_result(KP_ERR_EXITED, spawn(scene, spec_for(FIXTURE("exit", "7"))));
    sscanf(reason_of(&scene->error), "exited with status %d after %d ms%n", &status, &ms, &end);
    assert_true(end > 0);
    assert_int_equal(status, 7);
    assert_true(ms >= 0);
    assert_int_equal(scene->error.exit_code, 7);
    assert_int_equal(scene->error.term_signal, 0);
}

static void status_zero_has_a_hint(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_EXITED, spawn(scene, spec_for(WORDS("true"))));
    assert_starts_with(reason_of(&scene->error), "exited with status 0 after ");
    assert_contains(scene->error.message, "foreground");
    assert_contains(scene->error.message, "its standard input is empty");
    assert_int_equal(scene->error.exit_code, 0);
}

static void status_127_has_a_hint(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_EXITED, spawn(scene, spec_for(SHELL("exec no-such-proxy 2>&-"))));
    assert_starts_with(reason_of(&scene->error), "exited with status 127 after ");
    assert_contains(scene->error.message, "not found");
}

/* One that binds without SO_REUSEADDR may exit so. Where it has said why, that is known better. */
static const struct {
    const char *script; /* the log is its output */
    bool may_be_in_use;
} last_words[] = {
    {"exit 1", true},
    {"exit 98", true},
    {"exit 2", false},
    {"exit 126", false},
    {"exit 127", false},
    {"exit 255", false},
    {"kill -9 $$", false},
    {"echo no licence >&2; exit 1", false},
    {"echo 'bind: Address already in use' >&2; exit 1", true},
    {"echo 'listen EADDRINUSE: 127.0.0.1' >&2; exit 1", true},
    {"echo 'port is In Use' >&2; exit 2", false},
};

static void an_exit_has_a_hint_where_the_address_may_be_the_reason(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof last_words / sizeof *last_words; i++) {
        kp_spec spec = spec_for(SHELL(last_words[i].script));
        spec.log_fd = open(scene_path(scene, "log"), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        kp_result result = spawn(scene, spec);
        close(spec.log_fd);
        assert_result(KP_ERR_EXITED, result);
        assert_int_equal(strstr(scene->error.message, "KP_SPEC_NO_RESERVE") != NULL,
                         last_words[i].may_be_in_use);
    }
}

static kp_spec soon(char *const *argv)
{
    kp_spec spec = spec_for(argv);
    spec.startup_timeout_ms = 200;
    return spec;
}

/* It has gone on without its listener. */
static void a_time_out_has_that_hint_too(void **state)
{
    struct scene *scene = *state;
    char *const *argv = SHELL("\"$0\" noreuse; exec \"$0\" never");
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, soon(argv)));
    assert_contains(scene->error.message, "KP_SPEC_NO_RESERVE");
    kp_spec spec = soon(FIXTURE("never"));
    spec.flags = KP_SPEC_NO_RESERVE;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    assert_null(strstr(scene->error.message, "KP_SPEC_NO_RESERVE"));
}

/* In a child of its own, and in those that it starts one after the other. */
static void a_busy_proxy_may_need_longer(void **state)
{
    struct scene *scene = *state;
    static const char *const scripts[] = {
        "while :; do :; done",
        "(while :; do :; done) & wait",
        "while :; do /bin/true; done",
    };
    if (left_out_on_posix(__func__))
        return;
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        kp_spec spec = soon(SHELL(scripts[i]));
        spec.startup_timeout_ms = 600;
        assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
        assert_contains(scene->error.message, "still busy");
        assert_contains(scene->error.message, "longer start-up time");
        assert_null(strstr(scene->error.message, "KP_SPEC_NO_RESERVE"));
    }
}

static void a_killing_signal_is_told(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_EXITED, spawn(scene, spec_for(FIXTURE("kill-self", "9"))));
    assert_starts_with(reason_of(&scene->error), "killed by signal 9");
    assert_int_equal(scene->error.exit_code, -1);
    assert_int_equal(scene->error.term_signal, 9);
}

static void the_fixed_port_is_named(void **state)
{
    struct scene *scene = *state;
    char start_of_it[64];
    kp_spec spec = spec_for(FIXTURE("exit", "1"));
    spec.port = free_port();
    assert_result(KP_ERR_EXITED, spawn(scene, spec));
    snprintf(start_of_it, sizeof start_of_it,
             "external proxy did not bind 127.0.0.1:%u: ", spec.port);
    assert_starts_with(scene->error.message, start_of_it);
}

/* ---- What the proxy printed ---------------------------------------------- */

/* Starts `argv` with its output in the file, opened this way; the start fails. */
static void fail_into_log(struct scene *scene, char *const *argv, int open_flags)
{
    kp_spec spec = spec_for(argv);
    spec.log_fd = open(scene_path(scene, "log"), open_flags | O_CREAT | O_CLOEXEC, 0600);
    assert_true(spec.log_fd > 0);
    kp_result result = spawn(scene, spec);
    close(spec.log_fd);
    assert_result(KP_ERR_EXITED, result);
}

/* These lines and no others; whether the last newline is quoted does not matter. */
static void assert_output(struct scene *scene, const char *lines)
{
    char *output = scene->error.output;
    size_t size = strlen(output);
    if (size > 0 && output[size - 1] == '\n')
        output[size - 1] = '\0';
    assert_string_equal(output, lines);
}

static void the_output_comes_with_the_error(void **state)
{
    struct scene *scene = *state;
    fail_into_log(scene, FIXTURE("print-exit", "1", "bad certificate"), O_RDWR);
    assert_contains(scene->error.output, "bad certificate");
}

static void also_from_a_log_that_can_only_be_written(void **state)
{
    struct scene *scene = *state;
    fail_into_log(scene, FIXTURE("print-exit", "1", "bad certificate"), O_WRONLY);
    assert_contains(scene->error.output, "bad certificate");
    fail_into_log(scene, FIXTURE("print-exit", "1", "bad key"), O_WRONLY | O_APPEND);
    assert_contains(scene->error.output, "bad key");
}

static void standard_output_is_logged_too(void **state)
{
    struct scene *scene = *state;
    fail_into_log(scene, SHELL("echo one; echo two >&2; exit 1"), O_RDWR);
    assert_output(scene, "one\ntwo");
}

static void what_was_in_the_log_before_is_not_quoted(void **state)
{
    struct scene *scene = *state;
    file_write(scene_path(scene, "log"), "from yesterday\n", 0600);
    fail_into_log(scene, FIXTURE("print-exit", "1", "from today"), O_WRONLY | O_APPEND);
    assert_output(scene, "from today");
}

static void a_silent_proxy_has_no_output(void **state)
{
    struct scene *scene = *state;
    file_write(scene_path(scene, "log"), "from yesterday\n", 0600);
    fail_into_log(scene, FIXTURE("exit", "1"), O_WRONLY | O_APPEND);
    assert_string_equal(scene->error.output, "");
}

/* More than fits: the last lines, the first of them whole. */
static void the_last_lines_are_quoted(void **state)
{
    struct scene *scene = *state;
    const char *script = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; exit 1";
    fail_into_log(scene, SHELL(script), O_RDWR);
    const char *end = memchr(scene->error.output, '\0', sizeof scene->error.output);
    assert_non_null(end);
    assert_true(end - scene->error.output > 512);
    assert_contains(end - strlen("line 499\n"), "line 499");
    assert_starts_with(scene->error.output, "line ");
}

static void a_line_longer_than_the_room_is_quoted_in_part(void **state)
{
    struct scene *scene = *state;
    const char *script = "i=0; while [ $i -lt 500 ]; do printf 0123456789; i=$((i+1)); done; "
                         "echo end; exit 1";
    fail_into_log(scene, SHELL(script), O_RDWR);
    assert_non_null(memchr(scene->error.output, '\0', sizeof scene->error.output));
    assert_contains(scene->error.output, "end");
}

/* The room has an odd number of bytes, the character two. */
static void a_character_is_quoted_whole(void **state)
{
    struct scene *scene = *state;
    const char *script = "i=0; while [ $i -lt 1000 ]; do printf '\\303\\251'; i=$((i+1)); done; "
                         "exit 1";
    fail_into_log(scene, SHELL(script), O_RDWR);
    size_t size = strlen(scene->error.output);
    assert_int_equal(size, sizeof scene->error.output - 2);
    assert_starts_with(scene->error.output, "\303\251");
    assert_string_equal(scene->error.output + size - 2, "\303\251");
}

static void nothing_but_parts_of_characters(void **state)
{
    struct scene *scene = *state;
    const char *script = "i=0; while [ $i -lt 2000 ]; do printf '\\200'; i=$((i+1)); done; exit 1";
    fail_into_log(scene, SHELL(script), O_RDWR);
    assert_string_equal(scene->error.output, "");
}

static void empty_lines_are_not_quoted(void **state)
{
    struct scene *scene = *state;
    fail_into_log(scene, SHELL("echo; echo; echo; exit 1"), O_RDWR);
    assert_string_equal(scene->error.output, "");
}

static void a_null_byte_does_not_end_the_output(void **state)
{
    struct scene *scene = *state;
    fail_into_log(scene, SHELL("printf 'before\\0after\\n'; exit 1"), O_RDWR);
    assert_output(scene, "before?after");
}

static void a_pipe_is_written_but_not_quoted(void **state)
{
    struct scene *scene = *state;
    int ends[2];
    char text[64] = "";
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    kp_spec spec = spec_for(FIXTURE("print-exit", "1", "into the pipe"));
    spec.log_fd = ends[1];
    kp_result result = spawn(scene, spec);
    close(ends[1]);
    ssize_t size = read(ends[0], text, sizeof text - 1);
    ssize_t after = read(ends[0], text + sizeof text - 1, 1);
    close(ends[0]);
    assert_result(KP_ERR_EXITED, result);
    assert_string_equal(text, "into the pipe\n");
    assert_int_equal(size, strlen(text));
    assert_int_equal(after, 0); /* the failed start has closed its duplicate */
    assert_string_equal(scene->error.output, "");
}

/* The standard output of a host is somebody's JSON. */
static void print_to_a_hosts_streams(struct scene *scene)
{
    kp_spec spec = spec_for(SHELL("echo out; echo err >&2; exit 1"));
    int out = open(scene_path(scene, "out"), O_WRONLY | O_CREAT, 0600);
    int err = open(scene_path(scene, "err"), O_WRONLY | O_CREAT, 0600);
    CHECK(dup2(out, 1) == 1 && dup2(err, 2) == 2);
    CHECK(kp_spawn(&spec, &scene->proxy, &scene->error) == KP_ERR_EXITED);
}

static void without_a_log_all_goes_to_standard_error(void **state)
{
    struct scene *scene = *state;
    char text[64];
    assert_int_equal(in_child(print_to_a_hosts_streams, scene), 0);
    file_read(scene_path(scene, "out"), text, sizeof text);
    assert_string_equal(text, "");
    file_read(scene_path(scene, "err"), text, sizeof text);
    assert_string_equal(text, "out\nerr\n");
}

/* ---- Written whole, or not at all ---------------------------------------- */

static bool all_zero(const uint32_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (numbers[i] != 0)
            return false;
    return true;
}

static void a_failure_writes_the_error_whole(void **state)
{
    struct scene *scene = *state;
    const kp_error *error = &scene->error;
    error_fill(&scene->error);
    assert_result(KP_ERR_EXITED, spawn(scene, spec_for(FIXTURE("exit", "1"))));
    assert_int_equal(error->code, KP_ERR_EXITED);
    assert_int_equal(error->sys_errno, 0);
    assert_non_null(memchr(error->message, '\0', sizeof error->message));
    assert_string_equal(error->output, "");
    assert_true(all_zero(error->reserved, 4));
    assert_null(memchr(error, 0xA5, sizeof *error)); /* nothing of before, also behind the NULs */
}

static void a_success_leaves_the_error_alone(void **state)
{
    struct scene *scene = *state;
    error_fill(&scene->error);
    get_ready(scene, spec_for(FIXTURE("late", "20")));
    assert_int_equal(kp_handle_step(scene->proxy, &scene->error), KP_OK);
    assert_int_equal(kp_handle_stop(scene->proxy, -1), KP_OK);
    get_exited(scene);
    assert_int_equal(kp_handle_restart(scene->proxy, &scene->error), KP_OK);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_true(error_untouched(&scene->error));
}

static void no_error_is_asked_for(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("exit", "1"));
    assert_result(KP_ERR_EXITED, kp_spawn(&spec, &scene->proxy, NULL));
    assert_null(scene->proxy);
}

static void no_error_is_asked_for_by_a_step(void **state)
{
    struct scene *scene = *state;
    kp_result told = KP_AGAIN;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("exit", "1"))));
    for (int64_t end = now_ms() + PATIENCE_MS; told == KP_AGAIN && now_ms() < end; sleep_ms(1))
        told = kp_handle_step(scene->proxy, NULL);
    assert_result(KP_ERR_EXITED, told);
    get_exited(scene);
}

static void a_failed_start_gives_no_handle(void **state)
{
    struct scene *scene = *state;
    char unset;
    kp_handle *handle = (kp_handle *)(void *)&unset;
    kp_spec spec = spec_for(FIXTURE("exit", "1"));
    assert_result(KP_ERR_EXITED, kp_spawn(&spec, &handle, &scene->error));
    assert_null(handle);
}

/* ---- Names --------------------------------------------------------------- */

#define NAMED(code) assert_string_equal(kp_result_name(code), #code)

static void every_code_has_a_name(void **state)
{
    (void)state;
    NAMED(KP_OK);
    NAMED(KP_AGAIN);
    NAMED(KP_ERR_INVALID);
    NAMED(KP_ERR_NO_MEMORY);
    NAMED(KP_ERR_SYSTEM);
    NAMED(KP_ERR_PORT_IN_USE);
    NAMED(KP_ERR_SPAWN);
    NAMED(KP_ERR_GUARD);
    NAMED(KP_ERR_EXITED);
    NAMED(KP_ERR_TIMED_OUT);
    NAMED(KP_ERR_FOREIGN_LISTENER);
    NAMED(KP_ERR_NOT_HTTP);
    NAMED(KP_ERR_STATE);
    NAMED(KP_ERR_FORKED);
}

static void other_numbers_are_unknown(void **state)
{
    (void)state;
    assert_string_equal(kp_result_name(2), "unknown");
    assert_string_equal(kp_result_name(-13), "unknown");
    assert_string_equal(kp_result_name(INT32_MIN), "unknown");
    assert_string_equal(kp_result_name(INT32_MAX), "unknown");
}

static void the_version_has_three_numbers(void **state)
{
    (void)state;
    unsigned major, minor, patch;
    int end = 0;
    assert_int_equal(sscanf(kp_version(), "%u.%u.%u%n", &major, &minor, &patch, &end), 3);
    assert_int_equal(kp_version()[end], '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_missing_program_is_named),
        TEST(a_program_that_is_not_executable),
        TEST(a_missing_folder),
        TEST(a_folder_that_is_none),
        TEST(a_folder_that_may_not_be_entered),
        TEST(a_missing_program_in_a_folder),
        TEST(a_program_that_is_being_written),
        TEST(a_program_that_was_just_written),
        TEST(a_program_with_a_name_of_any_kind),
        EACH_WAY(a_time_out_says_how_long),
        EACH_WAY(an_exit_says_its_status_and_when),
        EACH_WAY(status_zero_has_a_hint),
        EACH_WAY(status_127_has_a_hint),
        EACH_WAY(an_exit_has_a_hint_where_the_address_may_be_the_reason),
        EACH_WAY(a_time_out_has_that_hint_too),
        TEST(a_busy_proxy_may_need_longer),
        TEST_WAY(a_busy_proxy_may_need_longer, "clock", &ways[2]),
        EACH_WAY(a_killing_signal_is_told),
        EACH_WAY(the_fixed_port_is_named),
        EACH_WAY(the_output_comes_with_the_error),
        EACH_WAY(also_from_a_log_that_can_only_be_written),
        TEST(standard_output_is_logged_too),
        TEST(what_was_in_the_log_before_is_not_quoted),
        TEST(a_silent_proxy_has_no_output),
        TEST(the_last_lines_are_quoted),
        TEST(a_line_longer_than_the_room_is_quoted_in_part),
        TEST(a_character_is_quoted_whole),
        TEST(nothing_but_parts_of_characters),
        TEST(empty_lines_are_not_quoted),
        TEST(a_null_byte_does_not_end_the_output),
        EACH_WAY(a_pipe_is_written_but_not_quoted),
        TEST(without_a_log_all_goes_to_standard_error),
        EACH_WAY(a_failure_writes_the_error_whole),
        EACH_WAY(a_success_leaves_the_error_alone),
        TEST(no_error_is_asked_for),
        TEST_WAY(no_error_is_asked_for_by_a_step, "clock", &ways[2]),
        TEST(a_failed_start_gives_no_handle),
        TEST(every_code_has_a_name),
        TEST(other_numbers_are_unknown),
        TEST(the_version_has_three_numbers),
    };
    return RUN(tests);
}
