/* SPDX-License-Identifier: Apache-2.0 */
/* The port is kept from everybody else, and one that is taken is an error at once. */
#include "support.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Kept ---------------------------------------------------------------------- */

static void assert_refused(const char *address, uint16_t port, int options)
{
    int fd = bind_socket(address, port, options);
    if (fd >= 0)
        close(fd);
    assert_int_equal(fd, -1);
    assert_int_equal(errno, EADDRINUSE);
}

static void it_is_kept_while_the_proxy_starts(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    assert_refused("127.0.0.1", kp_handle_port(scene->proxy), BIND_PLAIN);
    assert_refused("0.0.0.0", kp_handle_port(scene->proxy), BIND_PLAIN);
    assert_false(port_answers(kp_handle_port(scene->proxy)));
}

static void it_is_kept_while_the_proxy_runs(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_refused("127.0.0.1", kp_handle_port(scene->proxy), BIND_PLAIN);
    assert_refused("127.0.0.1", kp_handle_port(scene->proxy), BIND_REUSEPORT);
    assert_refused("0.0.0.0", kp_handle_port(scene->proxy), BIND_REUSEADDR | BIND_LISTEN);
}

static void it_is_free_afterwards(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    uint16_t port = kp_handle_port(scene->proxy);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    int fd = bind_socket("127.0.0.1", port, BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    close(fd);
}

static void a_fixed_port_is_used(void **state)
{
    struct scene *scene = *state;
    char url[64];
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.port = free_port();
    get_ready(scene, spec);
    assert_int_equal(kp_handle_port(scene->proxy), spec.port);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", spec.port);
    assert_string_equal(kp_handle_url(scene->proxy), url);
    assert_true(port_answers((uint16_t)spec.port));
}

/* ---- Taken ---------------------------------------------------------------------- */

/* The program would leave a file behind. */
static void assert_in_use(struct scene *scene, uint16_t port, uint32_t flags)
{
    char name[16];
    const char *trace = scene_path(scene, "started");
    kp_spec spec = spec_for(WORDS("touch", trace));
    spec.port = port;
    spec.flags = flags;
    error_fill(&scene->error);
    assert_result(KP_ERR_PORT_IN_USE, spawn(scene, spec));
    assert_null(scene->proxy);
    snprintf(name, sizeof name, "%u", port);
    assert_contains(scene->error.message, name);
    assert_int_equal(scene->error.code, KP_ERR_PORT_IN_USE);
    assert_int_equal(scene->error.exit_code, -1);
    sleep_ms(20);
    assert_false(file_exists(trace));
}

/* Takes a port in this way, and sees that a proxy can't have it. */
static void taken_by(struct scene *scene, const char *address, int options, uint32_t flags)
{
    uint16_t port = free_port();
    int fd = bind_socket(address, port, options);
    if (fd < 0 && errno == EAFNOSUPPORT && left_out(address, "without IPv6"))
        return;
    assert_true(fd >= 0);
    assert_in_use(scene, port, flags);
    close(fd);
}

static void a_listener_takes_it(void **state)
{
    struct scene *scene = *state;
    char who[64];
    taken_by(scene, "127.0.0.1", BIND_REUSEADDR | BIND_LISTEN, 0);
    snprintf(who, sizeof who, "by process %ld (", (long)getpid());
    if (!left_out_on_posix("who has the port"))
        assert_contains(scene->error.message, who);
}

static void a_listener_on_all_addresses_takes_it(void **state)
{
    taken_by(*state, "0.0.0.0", BIND_REUSEADDR | BIND_LISTEN, 0);
}

static void a_listener_of_both_families_takes_it(void **state)
{
    taken_by(*state, "::", BIND_REUSEADDR | BIND_LISTEN, 0);
}

static void a_socket_that_does_not_listen_yet_takes_it(void **state)
{
    taken_by(*state, "127.0.0.1", BIND_PLAIN, 0);
}

static void also_without_a_reservation(void **state)
{
    taken_by(*state, "127.0.0.1", BIND_REUSEADDR | BIND_LISTEN, KP_SPEC_NO_RESERVE);
}

static void another_proxy_takes_it(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.port = free_port();
    assert_result(KP_OK, kp_spawn(&spec, &scene->second, &scene->error));
    assert_in_use(scene, (uint16_t)spec.port, 0);
    assert_true(port_answers((uint16_t)spec.port));
}

static void a_listener_elsewhere_does_not_take_it(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.port = free_port();
    int fd = bind_socket("127.0.0.2", (uint16_t)spec.port, BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    kp_result result = spawn(scene, spec);
    close(fd);
    assert_result(KP_OK, result);
}

/* A connection that the server closed first: its port is in TIME_WAIT. (Had the server been
 * without SO_REUSEADDR the kernel would refuse the port to everybody for a minute.) */
static void leave_a_former_connection(uint16_t port)
{
    int server = bind_socket("127.0.0.1", port, BIND_REUSEADDR | BIND_LISTEN);
    assert_true(server >= 0);
    int client = connect_to(port), accepted = accept(server, NULL, NULL);
    assert_true(client >= 0 && accepted >= 0);
    close(accepted);
    close(client);
    close(server);
    errno = 0;
    assert_int_equal(bind_socket("127.0.0.1", port, BIND_PLAIN), -1);
    assert_int_equal(errno, EADDRINUSE);
}

static void former_connections_do_not_take_it(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.port = free_port();
    leave_a_former_connection((uint16_t)spec.port);
    get_ready(scene, spec);
}

/* ---- Without a reservation --------------------------------------------------------- */

static void a_proxy_without_reuseaddr_fails_beside_the_reservation(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_EXITED, spawn(scene, spec_for(FIXTURE("noreuse"))));
    assert_true(scene->error.exit_code > 0);
}

static void it_runs_without_one(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("noreuse"));
    spec.flags = KP_SPEC_NO_RESERVE;
    get_ready(scene, spec);
    assert_true(port_answers(kp_handle_port(scene->proxy)));
}

static void it_runs_on_a_fixed_port(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("noreuse"));
    spec.flags = KP_SPEC_NO_RESERVE;
    spec.port = free_port();
    get_ready(scene, spec);
    assert_int_equal(kp_handle_port(scene->proxy), spec.port);
}

static void it_starts_again_on_its_port(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("late", "20"));
    spec.flags = KP_SPEC_NO_RESERVE;
    spec.port = free_port(); /* which the kernel gives to nobody meanwhile */
    get_ready(scene, spec);
    uint16_t port = kp_handle_port(scene->proxy);
    kp_handle_stop(scene->proxy, 0);
    get_exited(scene);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_int_equal(kp_handle_port(scene->proxy), port);
    assert_true(port_answers(port));
}

/* What was not kept may be lost: the restart says so, and may be tried again. */
static void its_port_may_be_lost_meanwhile(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.flags = KP_SPEC_NO_RESERVE;
    spec.port = free_port(); /* as above */
    get_ready(scene, spec);
    kp_handle_stop(scene->proxy, 0);
    get_exited(scene);
    int fd = bind_socket("127.0.0.1", kp_handle_port(scene->proxy), BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    kp_result result = kp_handle_restart(scene->proxy, &scene->error);
    close(fd);
    assert_result(KP_ERR_PORT_IN_USE, result);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_kept_while_the_proxy_starts),
        TEST(it_is_kept_while_the_proxy_runs),
        TEST(it_is_free_afterwards),
        EACH_WAY(a_fixed_port_is_used),
        EACH_WAY(a_listener_takes_it),
        TEST(a_listener_on_all_addresses_takes_it),
        TEST(a_listener_of_both_families_takes_it),
        TEST(a_socket_that_does_not_listen_yet_takes_it),
        TEST(also_without_a_reservation),
        TEST(another_proxy_takes_it),
        TEST(a_listener_elsewhere_does_not_take_it),
        TEST(former_connections_do_not_take_it),
        EACH_WAY(a_proxy_without_reuseaddr_fails_beside_the_reservation),
        EACH_WAY(it_runs_without_one),
        TEST(it_runs_on_a_fixed_port),
        EACH_WAY(it_starts_again_on_its_port),
        EACH_WAY(its_port_may_be_lost_meanwhile),
    };
    return RUN(tests);
}
