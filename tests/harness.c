/* SPDX-License-Identifier: Apache-2.0 */
/* The checks that follow each test can fail: a harness that can't is worth nothing. */
#include "process.h"
#include "support.h"
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void a_new_descriptor_is_a_leak(void **state)
{
    struct scene *scene = *state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_contains(census_leaks(&scene->before), "/dev/null");
    close(fd);
    assert_string_equal(census_leaks(&scene->before), "");
}

static void a_lost_descriptor_is_told(void **state)
{
    struct scene *scene = *state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct census with = census_take();
    strcpy(with.mark, scene->before.mark);
    close(fd);
    assert_contains(census_leaks(&with), "is gone");
}

static void a_zombie_is_a_leak(void **state)
{
    struct scene *scene = *state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    assert_true(eventually_gone(pid));
    assert_contains(census_leaks(&scene->before), "children");
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_string_equal(census_leaks(&scene->before), "");
}

/* A shell that leaves a sleeper behind in a session of its own: no child of ours. */
static pid_t leave_orphan(void)
{
    pid_t pid;
    char *const *argv = WORDS("/bin/sh", "-c", "setsid sleep 60 & exit 0");
    assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ), 0);
    return pid;
}

/* While a process executes its program its environment can't be seen. */
static bool has_leaked(const void *before)
{
    return strstr(census_leaks(before), "lives") != NULL;
}

static bool was_ended(const void *before)
{
    return census_end_strays(before) == 1;
}

static bool is_clean(const void *before)
{
    return !has_leaked(before);
}

static void an_orphan_is_a_leak(void **state)
{
    struct scene *scene = *state;
    pid_t shell = leave_orphan();
    assert_int_equal(waitpid(shell, NULL, 0), shell);
    assert_true(eventually(has_leaked, &scene->before));
    assert_true(eventually(was_ended, &scene->before));
    assert_true(eventually(is_clean, &scene->before)); /* a SIGKILL takes its time */
}

/* ---- This program as a test that leaks ---------------------------------- */

static void leaks_a_descriptor(void **state)
{
    (void)state;
    assert_true(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

static int run_the_leaking_test(void)
{
    const struct CMUnitTest tests[] = {TEST(leaks_a_descriptor)};
    return RUN(tests);
}

static void silence(posix_spawn_file_actions_t *actions)
{
    posix_spawn_file_actions_init(actions);
    posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_WRONLY, 0);
}

static void a_test_that_leaks_fails(void **state)
{
    (void)state;
    pid_t pid;
    int status;
    posix_spawn_file_actions_t actions;
    silence(&actions);
    char *const *argv = WORDS("harness", "leak");
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
}

static void fails_in_the_child(struct scene *scene)
{
    CHECK(scene == NULL);
}

static void dies_in_the_child(struct scene *scene)
{
    (void)scene;
    kill(getpid(), SIGKILL);
}

static void silent_check(struct scene *scene)
{
    CHECK(freopen("/dev/null", "w", stderr) != NULL);
    fails_in_the_child(scene);
}

static void a_child_tells_its_end(void **state)
{
    assert_int_equal(in_child(silent_check, *state), 1);
    assert_int_equal(in_child(dies_in_the_child, *state), 128 + SIGKILL);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "leak") == 0)
        return run_the_leaking_test();
    const struct CMUnitTest tests[] = {
        TEST(a_new_descriptor_is_a_leak), TEST(a_lost_descriptor_is_told),
        TEST(a_zombie_is_a_leak),         TEST(an_orphan_is_a_leak),
        TEST(a_test_that_leaks_fails),    TEST(a_child_tells_its_end),
    };
    return RUN(tests);
}
