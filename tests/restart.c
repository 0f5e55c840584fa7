/* SPDX-License-Identifier: Apache-2.0 */
/* Restarting: the same spec on the same port, which nobody else got meanwhile. */
#include "process.h"
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(struct scene *scene)
{
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    get_exited(scene);
}

static void restart(struct scene *scene)
{
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_STARTING);
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, NULL), 0);
}

static void what_stays_and_what_is_new(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    pid_t pid = kp_handle_pid(scene->proxy);
    uint16_t port = kp_handle_port(scene->proxy);
    const char *url = kp_handle_url(scene->proxy);
    stop(scene);
    restart(scene);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_int_not_equal(kp_handle_pid(scene->proxy), pid);
    assert_int_equal(kp_handle_port(scene->proxy), port);
    assert_ptr_equal(kp_handle_url(scene->proxy), url);
    assert_true(port_answers(port));
}

static void the_descriptor_stays(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    get_ready(scene, spec_for(FIXTURE("serve")));
    int fd = kp_handle_fd(scene->proxy);
    assert_true(fd > 2);
    stop(scene);
    assert_int_equal(kp_handle_fd(scene->proxy), fd);
    restart(scene);
    assert_int_equal(kp_handle_fd(scene->proxy), fd);
}

static void several_times(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    for (int i = 0; i < 5; i++) {
        stop(scene);
        restart(scene);
        assert_result(KP_OK, reach(scene, KP_STATE_READY));
        assert_true(port_answers(kp_handle_port(scene->proxy)));
    }
}

static void after_an_exit_of_its_own(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("exit-when-asked", "3")));
    for (int i = 0; i < 2; i++) {
        int exit_code = 0;
        assert_true(ask_to_exit(kp_handle_port(scene->proxy)));
        get_exited(scene);
        assert_int_equal(kp_handle_exit_status(scene->proxy, &exit_code, NULL), 1);
        assert_int_equal(exit_code, 3);
        restart(scene);
        assert_result(KP_OK, reach(scene, KP_STATE_READY));
    }
}

static void after_a_failed_start(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("exit", "4"))));
    for (int i = 0; i < 3; i++) {
        assert_result(KP_ERR_EXITED, reach(scene, KP_STATE_READY));
        assert_int_equal(scene->error.exit_code, 4);
        get_exited(scene);
        restart(scene);
    }
}

/* The proxy needs something that is not there at first. */
static void what_failed_once_may_succeed(void **state)
{
    struct scene *scene = *state;
    setenv("KP_NEEDED", scene_path(scene, "needed"), 1);
    kp_result result = start(scene, spec_for(SHELL("test -e $KP_NEEDED && exec \"$0\" serve")));
    assert_result(KP_OK, result);
    assert_result(KP_ERR_EXITED, reach(scene, KP_STATE_READY));
    get_exited(scene);
    file_write(scene_path(scene, "needed"), "", 0600);
    restart(scene);
    unsetenv("KP_NEEDED");
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

static void the_time_out_begins_anew(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 150;
    assert_result(KP_OK, start(scene, spec));
    assert_result(KP_ERR_TIMED_OUT, reach(scene, KP_STATE_READY));
    get_exited(scene);
    int64_t begin = now_ms();
    restart(scene);
    assert_result(KP_ERR_TIMED_OUT, reach(scene, KP_STATE_READY));
    assert_true(now_ms() - begin >= 150);
}

/* ---- A restart that fails -------------------------------------------------------- */

/* A program in the scene's folder that can be taken away. */
static kp_spec movable_proxy(struct scene *scene, const char *path)
{
    assert_int_equal(symlink(fixture(), path), 0);
    kp_spec spec = spec_for(WORDS(path, "serve"));
    assert_result(KP_OK, start(scene, spec));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    return spec;
}

static void assert_restart_fails(struct scene *scene)
{
    error_fill(&scene->error);
    assert_result(KP_ERR_SPAWN, kp_handle_restart(scene->proxy, &scene->error));
    assert_int_equal(scene->error.code, KP_ERR_SPAWN);
    assert_int_equal(scene->error.sys_errno, ENOENT);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
}

static void a_restart_that_fails_stays_at_the_end(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* where a failed exec is an exit with 127 */
    const char *path = scene_path(scene, "proxy");
    movable_proxy(scene, path);
    stop(scene);
    unlink(path);
    assert_restart_fails(scene);
    assert_restart_fails(scene);
    assert_int_equal(symlink(fixture(), path), 0);
    restart(scene);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

/* Nothing may be left of a restart that failed: no guard, no descriptor. */
static void a_restart_that_fails_leaves_nothing(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    const char *path = scene_path(scene, "proxy");
    movable_proxy(scene, path);
    stop(scene);
    struct census before = census_take();
    strcpy(before.mark, scene->before.mark);
    unlink(path);
    assert_restart_fails(scene);
    assert_string_equal(census_leaks(&before), "");
}

/* ---- The port between two lives ----------------------------------------------------- */

static void assert_nobody_binds(uint16_t port)
{
    static const char *const addresses[] = {"127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"};
    static const int options[] = {BIND_PLAIN, BIND_REUSEADDR, BIND_REUSEPORT,
                                  BIND_REUSEADDR | BIND_REUSEPORT};
    for (size_t address = 0; address < 4; address++)
        for (size_t option = 0; option < 4; option++) {
            int fd = bind_socket(addresses[address], port, options[option] | BIND_LISTEN);
            if (fd >= 0)
                fail_msg("%s was bound with options %d", addresses[address], options[option]);
            assert_true(errno == EADDRINUSE || errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL);
        }
}

static void nobody_binds_the_port_meanwhile(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    stop(scene);
    assert_false(port_answers(kp_handle_port(scene->proxy)));
    assert_nobody_binds(kp_handle_port(scene->proxy));
    restart(scene);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

static void nor_after_a_failed_start(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("exit", "4"))));
    get_exited(scene);
    assert_nobody_binds(kp_handle_port(scene->proxy));
}

static void nor_after_a_failed_restart(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    const char *path = scene_path(scene, "proxy");
    movable_proxy(scene, path);
    stop(scene);
    unlink(path);
    assert_restart_fails(scene);
    assert_nobody_binds(kp_handle_port(scene->proxy));
}

/* The proxy closes first, so the port has a connection in TIME_WAIT. */
static void former_connections_do_no_harm(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    int client = connect_to(kp_handle_port(scene->proxy));
    assert_true(client >= 0);
    sleep_ms(20); /* so that it is accepted */
    stop(scene);
    close(client);
    restart(scene);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

/* The child has left the group, and outlives it. */
static void a_connection_that_a_child_holds_does_no_harm(void **state)
{
    struct scene *scene = *state;
    char word[4];
    get_ready(scene, spec_for(FIXTURE("hand-over")));
    int client = connect_to(kp_handle_port(scene->proxy));
    assert_int_equal(recv(client, word, sizeof word, MSG_WAITALL), 4);
    stop(scene);
    restart(scene);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_int_equal(recv(client, word, 1, MSG_DONTWAIT), -1); /* it is open */
    close(client);
    stop(scene);
    assert_true(census_end_strays(&scene->before) > 0);
    while (census_end_strays(&scene->before) > 0)
        sleep_ms(1);
}

/* ---- Children that run already ------------------------------------------------------- */

static bool gets_an_answer(uint16_t port)
{
    static const char question[] = "CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n";
    char answer[8] = "";
    int fd = connect_to(port);
    if (fd < 0)
        return false;
    bool fine = write(fd, question, sizeof question - 1) > 0 && read(fd, answer, 7) == 7;
    close(fd);
    return fine && strcmp(answer, "HTTP/1.") == 0;
}

/* Knows nothing but the environment that it was started with. */
static _Noreturn void be_a_client(char **env, int told)
{
    unsigned port = 0;
    for (; *env != NULL; env++)
        sscanf(*env, "HTTPS_PROXY=http://127.0.0.1:%u", &port);
    alarm(PATIENCE_MS / 1000);
    for (;;) {
        if (write(told, gets_an_answer((uint16_t)port) ? "+" : "-", 1) != 1)
            _exit(1);
        sleep_ms(2);
    }
}

/* Until the client tells this. */
static void await(int told, char what)
{
    char got = '\0';
    while (got != what)
        assert_int_equal(read(told, &got, 1), 1);
}

static void a_client_goes_on(void **state)
{
    struct scene *scene = *state;
    int ends[2];
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_return_code(pipe2(ends, O_CLOEXEC), 0);
    char **env = kp_env_new(scene->proxy, NULL);
    pid_t client = fork();
    if (client == 0)
        be_a_client(env, ends[1]);
    close(ends[1]);
    kp_env_free(env);
    await(ends[0], '+');
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    get_exited(scene);
    await(ends[0], '-');
    restart(scene);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    await(ends[0], '+');
    kill(client, SIGKILL);
    waitpid(client, NULL, 0);
    close(ends[0]);
}

/* ---- What is read anew, and what is kept ------------------------------------------- */

static void the_hosts_environment_is_read_anew(void **state)
{
    struct scene *scene = *state;
    setenv("KP_A", "first", 1);
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_true(process_has_variable(kp_handle_pid(scene->proxy), "KP_A=first"));
    stop(scene);
    setenv("KP_A", "second", 1);
    restart(scene);
    unsetenv("KP_A");
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_true(process_has_variable(kp_handle_pid(scene->proxy), "KP_A=second"));
}

static void the_hosts_path_is_read_anew(void **state)
{
    struct scene *scene = *state;
    if (left_out_under_valgrind(__func__))
        return; /* as above */
    char *kept = strdup(getenv("PATH"));
    assert_int_equal(symlink(fixture(), scene_path(scene, "kp-test-proxy")), 0);
    setenv("PATH", scene->dir, 1);
    kp_result result = start(scene, spec_for(WORDS("kp-test-proxy", "serve")));
    setenv("PATH", kept, 1);
    assert_result(KP_OK, result);
    stop(scene);
    assert_restart_fails(scene);
    setenv("PATH", scene->dir, 1);
    result = kp_handle_restart(scene->proxy, &scene->error);
    setenv("PATH", kept, 1);
    free(kept);
    assert_result(KP_OK, result);
}

/* The host has closed its own descriptor of the log long ago. */
static void the_log_stays(void **state)
{
    struct scene *scene = *state;
    char text[256];
    const char *path = scene_path(scene, "log");
    kp_spec spec = spec_for(FIXTURE("print-exit", "1", "a life"));
    spec.log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_result(KP_OK, start(scene, spec));
    close(spec.log_fd);
    get_exited(scene);
    restart(scene);
    get_exited(scene);
    file_read(path, text, sizeof text);
    assert_string_equal(text, "a life\na life\n");
}

static void only_the_last_life_is_quoted(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("print-exit", "1", "a life"));
    spec.log_fd = open(scene_path(scene, "log"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_result(KP_OK, start(scene, spec));
    close(spec.log_fd);
    get_exited(scene);
    restart(scene);
    assert_result(KP_ERR_EXITED, reach(scene, KP_STATE_READY));
    assert_contains(scene->error.output, "a life");
    assert_null(strstr(strstr(scene->error.output, "life") + 1, "life"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(what_stays_and_what_is_new),
        TEST(the_descriptor_stays),
        EACH_WAY(several_times),
        EACH_WAY(after_an_exit_of_its_own),
        EACH_WAY(after_a_failed_start),
        EACH_WAY(what_failed_once_may_succeed),
        EACH_WAY(the_time_out_begins_anew),
        EACH_WAY(a_restart_that_fails_stays_at_the_end),
        EACH_WAY(a_restart_that_fails_leaves_nothing),
        EACH_WAY(nobody_binds_the_port_meanwhile),
        TEST(nor_after_a_failed_start),
        TEST(nor_after_a_failed_restart),
        EACH_WAY(former_connections_do_no_harm),
        EACH_WAY(a_connection_that_a_child_holds_does_no_harm),
        EACH_WAY(a_client_goes_on),
        EACH_WAY(the_hosts_environment_is_read_anew),
        TEST(the_hosts_path_is_read_anew),
        TEST(the_log_stays),
        TEST(only_the_last_life_is_quoted),
    };
    return RUN(tests);
}
