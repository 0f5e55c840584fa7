/* SPDX-License-Identifier: Apache-2.0 */
/* KP_SPEC_ATTACH: a proxy that runs already is probed, and left alone. */
#include "process.h"
#include "support.h"
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static kp_spec attach_spec(uint16_t port, uint32_t flags)
{
    kp_spec spec = {.size = sizeof spec, .flags = KP_SPEC_ATTACH | flags, .port = port};
    return spec;
}

/* The proxy that runs already is the scene's second. */
static uint16_t run(struct scene *scene, char *const *argv)
{
    kp_spec spec = spec_for(argv);
    spec.port = free_port();
    assert_result(KP_OK, kp_start(&spec, &scene->second, &scene->error));
    return (uint16_t)spec.port;
}

static void assert_all_is_well(struct scene *scene)
{
    assert_result(KP_AGAIN, kp_handle_wait(scene->second, KP_STATE_EXITED, 50, &scene->error));
    assert_true(process_lives(kp_handle_pid(scene->second)));
    assert_true(port_answers(kp_handle_port(scene->second)));
}

static void it_is_ready_and_left_alone(void **state)
{
    struct scene *scene = *state;
    char url[64];
    uint16_t port = run(scene, FIXTURE("serve"));
    get_ready(scene, attach_spec(port, 0));
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    assert_int_equal(kp_handle_port(scene->proxy), port);
    assert_string_equal(kp_handle_url(scene->proxy), url);
    assert_int_equal(kp_handle_pid(scene->proxy), 0);
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, NULL), 0);
    assert_result(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    assert_all_is_well(scene);
}

static void it_is_waited_for(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, attach_spec(run(scene, FIXTURE("late", "200")), 0));
}

static void a_stop_ends_it_at_once(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, attach_spec(run(scene, FIXTURE("serve")), 0));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
    assert_result(KP_OK, kp_handle_step(scene->proxy, &scene->error));
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, &scene->error));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, NULL), 0);
    assert_all_is_well(scene);
}

static void a_stop_while_it_is_waited_for(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, attach_spec(free_port(), 0)));
    assert_result(KP_AGAIN, kp_handle_step(scene->proxy, &scene->error));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
}

static void nobody_listens(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = attach_spec(free_port(), 0);
    spec.startup_timeout_ms = 100;
    assert_result(KP_OK, start(scene, spec));
    assert_result(KP_ERR_TIMED_OUT, reach(scene, KP_STATE_READY));
    assert_starts_with(scene->error.message, "no proxy to attach to on 127.0.0.1:");
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, &scene->error));
}

static void a_spawn_that_fails(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = attach_spec(free_port(), 0);
    spec.startup_timeout_ms = 100;
    assert_result(KP_ERR_TIMED_OUT, kp_spawn(&spec, &scene->proxy, &scene->error));
    assert_null(scene->proxy);
}

static void a_restart_probes_again(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = attach_spec(run(scene, FIXTURE("serve")), 0);
    spec.startup_timeout_ms = under_valgrind() ? 5000 : 1000;
    get_ready(scene, spec);
    assert_result(KP_ERR_STATE, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    kp_handle_free(scene->second);
    scene->second = NULL;
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_ERR_TIMED_OUT, reach(scene, KP_STATE_READY));
}

static void the_environment_is_the_same(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, attach_spec(run(scene, FIXTURE("serve")), 0));
    char **own = kp_env_new(scene->proxy, NULL), **other = kp_env_new(scene->second, NULL);
    assert_true(own != NULL && other != NULL);
    for (size_t i = 0; own[i] != NULL || other[i] != NULL; i++) {
        assert_true(own[i] != NULL && other[i] != NULL);
        assert_string_equal(own[i], other[i]);
    }
    kp_env_free(own);
    kp_env_free(other);
}

static void it_has_to_speak_http(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, attach_spec(run(scene, FIXTURE("serve")), KP_SPEC_PROBE_HTTP));
    kp_handle_free(scene->proxy);
    kp_handle_free(scene->second);
    scene->proxy = scene->second = NULL;
    uint16_t port = run(scene, FIXTURE("say", "220 ready\\r\\n"));
    assert_result(KP_OK, start(scene, attach_spec(port, KP_SPEC_PROBE_HTTP)));
    assert_result(KP_ERR_NOT_HTTP, reach(scene, KP_STATE_READY));
    assert_contains(scene->error.message, "\"220 ready");
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
}

static void it_may_let_nobody_else_in(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, attach_spec(run(scene, FIXTURE("choosy")), KP_SPEC_PROBE_HTTP));
}

static void it_listens_elsewhere(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    char elsewhere[64];
    kp_spec spec = attach_spec(free_port(), 0);
    spec.startup_timeout_ms = 100;
    int fd = bind_socket("127.0.0.2", (uint16_t)spec.port, BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    assert_result(KP_OK, start(scene, spec));
    assert_result(KP_ERR_TIMED_OUT, reach(scene, KP_STATE_READY));
    snprintf(elsewhere, sizeof elsewhere, "it listens on 127.0.0.2:%u instead", spec.port);
    assert_contains(scene->error.message, elsewhere);
    close(fd);
}

static void it_does_not_answer(void **state)
{
    struct scene *scene = *state;
    kp_spec mute = spec_for(FIXTURE("mute", "60000"));
    mute.port = free_port();
    assert_result(KP_OK, kp_start(&mute, &scene->second, &scene->error));
    kp_spec spec = attach_spec((uint16_t)mute.port, 0);
    spec.startup_timeout_ms = 500;
    assert_result(KP_OK, start(scene, spec));
    assert_result(KP_ERR_TIMED_OUT, reach(scene, KP_STATE_READY));
    assert_null(strstr(scene->error.message, "instead"));
}

/* ---- Whose it is ---------------------------------------------------------------------- */

enum { NOBODY = 65534, UNABLE = 3 };

static uint16_t somebodys_port;

/* Until it is killed. */
static void listen_as_somebody(int told)
{
    bool fine = become_somebody() &&
                bind_socket("127.0.0.1", somebodys_port, BIND_REUSEADDR | BIND_LISTEN) >= 0;
    if (write(told, fine ? "1" : "0", 1) == 1 && fine)
        pause();
    _exit(0);
}

static pid_t start_somebody(void)
{
    int ends[2];
    char fine = '0';
    assert_return_code(pipe(ends), 0);
    somebodys_port = free_port();
    pid_t pid = fork();
    if (pid == 0) {
        alarm(PATIENCE_MS / 1000);
        listen_as_somebody(ends[1]);
    }
    assert_true(read(ends[0], &fine, 1) == 1 && fine == '1');
    close(ends[0]);
    close(ends[1]);
    return pid;
}

static void end_somebody(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void another_users(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    pid_t pid = start_somebody();
    kp_result result = start(scene, attach_spec(somebodys_port, 0));
    if (result == KP_OK)
        result = reach(scene, KP_STATE_READY);
    end_somebody(pid);
    assert_result(KP_ERR_FOREIGN_LISTENER, result);
    assert_contains(scene->error.message, "of uid 54321");
    assert_contains(scene->error.message, "KP_SPEC_ANY_LISTENER");
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
}

static void another_users_where_any_will_do(void **state)
{
    struct scene *scene = *state;
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    pid_t pid = start_somebody();
    kp_result result = start(scene, attach_spec(somebodys_port, KP_SPEC_ANY_LISTENER));
    if (result == KP_OK)
        result = reach(scene, KP_STATE_READY);
    end_somebody(pid);
    assert_result(KP_OK, result);
}

static void attach_as_somebody(struct scene *scene)
{
    CHECK(become_somebody());
    kp_spec spec = attach_spec(kp_handle_port(scene->second), 0);
    CHECK(kp_spawn(&spec, &scene->proxy, &scene->error) == KP_OK);
    kp_handle_free(scene->proxy);
}

static void roots(void **state)
{
    struct scene *scene = *state;
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    run(scene, FIXTURE("serve"));
    assert_int_equal(in_child(attach_as_somebody, scene), 0);
}

/* The number is that of all who have none, but where everybody has one. */
static void attach_as_nobody(struct scene *scene)
{
    uint16_t port = free_port();
    CHECK(become_user(NOBODY));
    int fd = bind_socket("127.0.0.1", port, BIND_REUSEADDR | BIND_LISTEN);
    kp_spec spec = attach_spec(port, 0);
    CHECK(fd >= 0 && kp_spawn(&spec, &scene->proxy, &scene->error) == KP_OK);
    kp_handle_free(scene->proxy);
}

static bool all_users_have_numbers(void)
{
    unsigned inside = 1, outside = 1, count = 0;
    char text[128];
    file_read("/proc/self/uid_map", text, sizeof text);
    return sscanf(text, "%u %u %u", &inside, &outside, &count) == 3 && inside == 0 &&
           outside == 0 && count == UINT32_MAX;
}

static void nobodys(void **state)
{
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    if (!on_posix() && !all_users_have_numbers() && left_out(__func__, "in a user namespace"))
        return;
    assert_int_equal(in_child(attach_as_nobody, *state), 0);
}

/* Nobody can be told from who has no number where there is no /proc, and none is assumed. */
static void attach_as_nobody_without_proc(struct scene *scene)
{
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("none", "/proc", "tmpfs", 0, NULL) == 0);
    attach_as_nobody(scene);
}

static void nobodys_without_proc(void **state)
{
    if (left_out_on_posix(__func__) || left_out_under_valgrind(__func__))
        return; /* which needs /proc itself */
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    if (!all_users_have_numbers() && left_out(__func__, "in a user namespace"))
        return;
    assert_int_equal(in_child(attach_as_nobody_without_proc, *state), 0);
}

/* A host that is two users trusts both; the listener is the effective one's. */
static void attach_as_two(struct scene *scene)
{
    uint16_t port = free_port();
    CHECK(setresuid(SOMEBODY + 1, SOMEBODY, SOMEBODY) == 0);
    int fd = bind_socket("127.0.0.1", port, BIND_REUSEADDR | BIND_LISTEN);
    CHECK(fd >= 0);
    for (int i = 0; i < 2; i++) {
        kp_spec spec = attach_spec(port, 0);
        CHECK(kp_spawn(&spec, &scene->proxy, &scene->error) == KP_OK);
        kp_handle_free(scene->proxy);
        CHECK(setresuid(SOMEBODY, SOMEBODY + 1, SOMEBODY + 1) == 0);
    }
}

static void its_own_as_real_and_effective_user(void **state)
{
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    assert_int_equal(in_child(attach_as_two, *state), 0);
}

/* "INSIDE OUTSIDE COUNT" of a user namespace in which the listener's user has no number. */
static const char *map;

static bool enter_namespace(void)
{
    int fd = -1;
    bool fine = unshare(CLONE_NEWUSER) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0 &&
                (fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC)) >= 0 &&
                write(fd, map, strlen(map)) == (ssize_t)strlen(map);
    close(fd);
    return fine;
}

static void attach_in_a_namespace(struct scene *scene)
{
    CHECK(strstr(map, "54321") == NULL || become_somebody());
    if (!enter_namespace())
        _exit(UNABLE);
    kp_spec spec = attach_spec(somebodys_port, 0);
    CHECK(kp_spawn(&spec, &scene->proxy, &scene->error) == KP_ERR_FOREIGN_LISTENER);
}

/* All of them share one there. */
static void who_has_no_number(void **state)
{
    struct scene *scene = *state;
    static const char *const maps[] = {"0 0 1", "5 0 1", "0 54321 1"};
    if (left_out_on_posix(__func__))
        return;
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        map = maps[i];
        pid_t pid = i == 2 ? 0 : start_somebody();
        somebodys_port = i == 2 ? run(scene, FIXTURE("serve")) : somebodys_port;
        int status = in_child(attach_in_a_namespace, scene);
        if (pid != 0)
            end_somebody(pid);
        if (status == UNABLE && left_out(__func__, "without user namespaces"))
            return;
        assert_int_equal(status, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_GUARDED_WAY(it_is_ready_and_left_alone),
        EACH_GUARDED_WAY(it_is_waited_for),
        EACH_GUARDED_WAY(a_stop_ends_it_at_once),
        TEST(a_stop_while_it_is_waited_for),
        EACH_GUARDED_WAY(nobody_listens),
        TEST(a_spawn_that_fails),
        EACH_GUARDED_WAY(a_restart_probes_again),
        TEST(the_environment_is_the_same),
        EACH_GUARDED_WAY(it_has_to_speak_http),
        EACH_GUARDED_WAY(it_may_let_nobody_else_in),
        TEST(it_listens_elsewhere),
        TEST_WAY(it_does_not_answer, "blocking", &ways[0]),
        EACH_GUARDED_WAY(another_users),
        TEST(another_users_where_any_will_do),
        TEST(roots),
        TEST(nobodys),
        TEST(nobodys_without_proc),
        TEST(its_own_as_real_and_effective_user),
        TEST(who_has_no_number),
    };
    return RUN(tests);
}
