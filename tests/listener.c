/* SPDX-License-Identifier: Apache-2.0 */
/* Ready is the proxy's own listener, and nobody else's; else the message says what was there. */
#include "process.h"
#include "support.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static kp_spec soon(char *const *argv)
{
    kp_spec spec = spec_for(argv);
    spec.startup_timeout_ms = under_valgrind() ? 5000 : 1000;
    return spec;
}

/* ---- Where it listens ----------------------------------------------------------- */

static bool without_ipv6(const char *test)
{
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd < 0 && left_out(test, "without IPv6");
}

static void on_all_addresses(void **state)
{
    get_ready(*state, spec_for(FIXTURE("listen", "0.0.0.0")));
}

static void on_all_addresses_of_both_families(void **state)
{
    if (!without_ipv6(__func__))
        get_ready(*state, spec_for(FIXTURE("listen", "::")));
}

static void on_a_mapped_address(void **state)
{
    if (!without_ipv6(__func__))
        get_ready(*state, spec_for(FIXTURE("listen", "::ffff:127.0.0.1")));
}

static void in_a_worker_process(void **state)
{
    get_ready(*state, spec_for(SHELL("\"$0\" serve & wait")));
}

static void after_executing_itself_again(void **state)
{
    get_ready(*state, spec_for(SHELL("exec sh -c 'exec \"$0\" serve' \"$0\"")));
}

static void only_on_another_address(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    char elsewhere[64];
    if (without_ipv6(__func__))
        return;
    kp_spec spec = soon(FIXTURE("listen", "::1"));
    spec.port = free_port();
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    snprintf(elsewhere, sizeof elsewhere, "it listens on [::1]:%u instead", spec.port);
    assert_contains(scene->error.message, elsewhere);
}

static void only_on_another_port(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, soon(SHELL("\"$0\" beside & wait"))));
    assert_contains(scene->error.message, "it listens on 127.0.0.1:");
}

/* The proxy's port is the one to be told of, in whichever order the others are found. */
static void on_other_ports_and_another_address(void **state)
{
    struct scene *scene = *state;
    char elsewhere[64];
    if (left_out_on_posix(__func__) || without_ipv6(__func__))
        return;
    const char *script = "\"$0\" beside & \"$0\" listen ::1 & \"$0\" beside & wait";
    kp_spec spec = soon(SHELL(script));
    spec.startup_timeout_ms = 3000; /* for three of them, on a busy machine */
    spec.port = free_port();
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    snprintf(elsewhere, sizeof elsewhere, "it listens on [::1]:%u instead", spec.port);
    assert_contains(scene->error.message, elsewhere);
}

static void in_a_process_that_left_the_group(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    kp_spec spec = soon(SHELL("setsid \"$0\" beside & wait"));
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    assert_contains(scene->error.message, "it listens on 127.0.0.1:");
    while (census_end_strays(&scene->before) > 0) /* kp(7): it is out of reach */
        sleep_ms(1);
}

static void where_connections_are_closed_at_once(void **state)
{
    get_ready(*state, spec_for(FIXTURE("hang-up", "60000")));
}

/* ---- What it does instead ---------------------------------------------------------- */

static void it_is_stopped(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, soon(FIXTURE("stop"))));
    assert_contains(scene->error.message, "it is stopped");
}

/* On POSIX the proxy alone can be seen. */
static void a_worker_of_its_is_stopped(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, soon(SHELL("\"$0\" stop & wait"))));
    assert_contains(scene->error.message, "it is stopped");
}

/* The fixture has no other way to be asked in vain from the start. */
static bool without_filters(const char *test)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
    struct sock_fprog filter = {.len = 1, .filter = &all};
    bool possible = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0;
    close(fd);
    return !possible && left_out(test, "without socket filters");
}

static void connections_that_are_not_answered(void **state)
{
    struct scene *scene = *state;
    if (without_filters(__func__))
        return;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, soon(FIXTURE("mute", "60000"))));
    assert_contains(scene->error.message, "backlog");
    assert_int_equal(scene->error.sys_errno, 0);
}

/* The kernel would ask again after one second, and then after three. */
static void connections_that_are_answered_later(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("mute", "100"));
    spec.startup_timeout_ms = 900;
    if (!without_filters(__func__) && !left_out_under_valgrind(__func__))
        get_ready(scene, spec);
}

/* ---- Somebody else's ------------------------------------------------------------------ */

/* As the impostor who was quicker; the proxy never binds. */
static int take_its_port(struct scene *scene, const char *address, uint32_t flags)
{
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.flags = flags;
    assert_result(KP_OK, start(scene, spec));
    int fd = bind_socket(address, kp_handle_port(scene->proxy), BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    return fd;
}

static void another_process_listens(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    char who[64];
    int fd = take_its_port(scene, "127.0.0.1", 0);
    assert_result(KP_ERR_FOREIGN_LISTENER, reach(scene, KP_STATE_READY));
    snprintf(who, sizeof who, "process %ld (", (long)getpid());
    assert_contains(scene->error.message, who);
    assert_contains(scene->error.message, "KP_SPEC_ANY_LISTENER");
    assert_int_equal(scene->error.code, KP_ERR_FOREIGN_LISTENER);
    get_exited(scene);
    close(fd);
}

static _Noreturn void join_and_listen(pid_t group, uint16_t port, int told)
{
    alarm(PATIENCE_MS / 1000);
    bool fine = setpgid(0, group) == 0 && become_somebody() &&
                bind_socket("127.0.0.1", port, BIND_REUSEADDR | BIND_LISTEN) >= 0;
    if (write(told, fine ? "1" : "0", 1) == 1 && fine)
        pause();
    _exit(0);
}

/* Any process of the session may do so, whoever runs it. */
static void another_users_that_joined_the_group(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    int ends[2];
    char fine = '0';
    if (geteuid() != 0 && left_out(__func__, "without root"))
        return;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    assert_return_code(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0)
        join_and_listen(getpgid(kp_handle_pid(scene->proxy)), kp_handle_port(scene->proxy),
                        ends[1]);
    bool listens = read(ends[0], &fine, 1) == 1 && fine == '1';
    close(ends[0]);
    close(ends[1]);
    kp_result result = reach(scene, KP_STATE_READY);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_true(listens);
    assert_result(KP_ERR_FOREIGN_LISTENER, result);
}

static void another_process_without_a_reservation(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    int fd = take_its_port(scene, "127.0.0.1", KP_SPEC_NO_RESERVE);
    assert_result(KP_ERR_FOREIGN_LISTENER, reach(scene, KP_STATE_READY));
    get_exited(scene);
    close(fd);
}

static void any_listener_is_accepted(void **state)
{
    struct scene *scene = *state;
    int fd = take_its_port(scene, "127.0.0.1", KP_SPEC_ANY_LISTENER);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    close(fd);
}

static void any_listener_is_one_that_comes_later(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.port = free_port();
    spec.flags = KP_SPEC_ANY_LISTENER;
    int fd = bind_socket("127.0.0.1", (uint16_t)spec.port, BIND_REUSEADDR | BIND_LISTEN);
    assert_result(KP_ERR_PORT_IN_USE, spawn(scene, spec));
    close(fd);
}

static void another_process_on_all_addresses(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    int fd = take_its_port(scene, "0.0.0.0", 0);
    assert_result(KP_ERR_FOREIGN_LISTENER, reach(scene, KP_STATE_READY));
    get_exited(scene);
    close(fd);
}

static void a_strangers_listener_on_another_address(void **state)
{
    struct scene *scene = *state;
    if (without_ipv6(__func__))
        return;
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.port = free_port();
    int fd = bind_socket("::1", (uint16_t)spec.port, BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    get_ready(scene, spec);
    close(fd);
}

static void an_exit_because_of_another(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    kp_spec spec = spec_for(FIXTURE("exit", "98"));
    spec.port = free_port();
    assert_result(KP_OK, start(scene, spec));
    int fd = bind_socket("127.0.0.1", (uint16_t)spec.port, BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    assert_true(eventually_gone(kp_handle_pid(scene->proxy)));
    assert_result(KP_ERR_EXITED, reach(scene, KP_STATE_READY));
    assert_contains(scene->error.message, "exited with status 98");
    assert_contains(scene->error.message, "listens there");
    get_exited(scene);
    close(fd);
}

/* Who can't be in the proxy's way is not named. */
static void an_exit_beside_another(void **state)
{
    struct scene *scene = *state;
    if (without_ipv6(__func__))
        return;
    kp_spec spec = spec_for(FIXTURE("exit", "98"));
    spec.port = free_port();
    int fd = bind_socket("::1", (uint16_t)spec.port, BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    kp_result result = spawn(scene, spec);
    close(fd);
    assert_result(KP_ERR_EXITED, result);
    assert_null(strstr(scene->error.message, "listens there"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(on_all_addresses),
        EACH_WAY(on_all_addresses_of_both_families),
        TEST(on_a_mapped_address),
        EACH_WAY(in_a_worker_process),
        TEST(after_executing_itself_again),
        TEST(only_on_another_address),
        TEST(only_on_another_port),
        TEST(on_other_ports_and_another_address),
        TEST(in_a_process_that_left_the_group),
        TEST(where_connections_are_closed_at_once),
        TEST(it_is_stopped),
        TEST(a_worker_of_its_is_stopped),
        EACH_WAY(connections_that_are_not_answered),
        EACH_WAY(connections_that_are_answered_later),
        EACH_WAY(another_process_listens),
        EACH_WAY(another_users_that_joined_the_group),
        EACH_WAY(another_process_without_a_reservation),
        EACH_WAY(any_listener_is_accepted),
        TEST(any_listener_is_one_that_comes_later),
        TEST(another_process_on_all_addresses),
        TEST(a_strangers_listener_on_another_address),
        TEST(an_exit_because_of_another),
        TEST(an_exit_beside_another),
    };
    return RUN(tests);
}
