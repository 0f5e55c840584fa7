/* SPDX-License-Identifier: Apache-2.0 */
/* KP_SPEC_PROBE_HTTP: ready is what answers a CONNECT as an HTTP proxy does. */
#include "support.h"
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static kp_spec http_spec(char *const *argv)
{
    kp_spec spec = spec_for(argv);
    spec.flags = KP_SPEC_PROBE_HTTP;
    return spec;
}

static kp_spec soon(char *const *argv)
{
    kp_spec spec = http_spec(argv);
    spec.startup_timeout_ms = under_valgrind() ? 5000 : 1000;
    return spec;
}

static void becomes_ready(struct scene *scene, const char *answer)
{
    get_ready(scene, http_spec(FIXTURE("say", answer)));
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
}

/* Told at once, and with what was said. */
static void is_refused(struct scene *scene, const char *answer, const char *quoted)
{
    kp_spec spec = http_spec(FIXTURE("say", answer));
    spec.startup_timeout_ms = 2 * PATIENCE_MS;
    assert_result(KP_ERR_NOT_HTTP, spawn(scene, spec));
    assert_contains(scene->error.message, "is not an HTTP proxy");
    assert_contains(scene->error.message, quoted);
}

static void fails_in_the_end(struct scene *scene, char *const *argv, const char *why)
{
    int64_t begin = now_ms();
    assert_result(KP_ERR_NOT_HTTP, spawn(scene, soon(argv)));
    assert_true(now_ms() - begin >= 1000);
    assert_int_equal(scene->error.code, KP_ERR_NOT_HTTP);
    assert_contains(scene->error.message, why);
}

static void a_proxy(void **state)
{
    struct scene *scene = *state;
    char log[4096];
    const char *path = scene_path(scene, "log");
    kp_spec spec = http_spec(FIXTURE("serve"));
    spec.log_fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    get_ready(scene, spec);
    close(spec.log_fd);
    file_read(path, log, sizeof log);
    assert_contains(log, "CONNECT 255.255.255.255:443 HTTP/1.1");
}

static void without_the_flag_it_is_not_asked(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("say", "SSH-2.0-OpenSSH\\r\\n")));
}

/* Probes come from another address then, for which some have no answer. */
static void also_without_a_reservation(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = http_spec(FIXTURE("choosy"));
    spec.flags |= KP_SPEC_NO_RESERVE;
    spec.port = free_port(); /* which the kernel gives to nobody meanwhile */
    get_ready(scene, spec);
}

/* The proxy closes the connection first, and binds without SO_REUSEADDR. */
static void the_question_leaves_no_trace(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = http_spec(FIXTURE("noreuse"));
    spec.flags |= KP_SPEC_NO_RESERVE;
    spec.port = free_port(); /* as above */
    get_ready(scene, spec);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    get_exited(scene);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

/* As `docker run -p` has it: a daemon opens the port, and the command waits. */
static void of_another_process(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = http_spec(FIXTURE("never")), daemon = spec_for(FIXTURE("hang-up", "100"));
    spec.flags |= KP_SPEC_ANY_LISTENER;
    spec.port = daemon.port = free_port();
    assert_result(KP_OK, start(scene, spec));
    assert_result(KP_OK, kp_start(&daemon, &scene->second, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

static void any_status(void **state)
{
    becomes_ready(*state, "HTTP/1.1 407 Proxy Authentication Required\\r\\n");
    becomes_ready(*state, "HTTP/1.0 200 Connection established\\r\\n\\r\\n");
    becomes_ready(*state, "HTTP/1.1 503 \\n");
    becomes_ready(*state, "HTTP/1.1 400\\r\\n");
}

/* To close earlier would reset the connection, and proxies report that. */
static void the_answer_is_heard_to_its_end(void **state)
{
    struct scene *scene = *state;
    char text[16];
    char *path = scene_path(scene, "heard");
    get_ready(scene, http_spec(FIXTURE("in-parts", path)));
    file_read(path, text, sizeof text);
    assert_string_equal(text, "whole");
}

static void a_connection_that_is_kept_open(void **state)
{
    get_ready(*state, http_spec(FIXTURE("say", "HTTP/1.1 200 OK\\r\\n")));
}

static void an_answer_that_does_not_end(void **state)
{
    get_ready(*state, http_spec(FIXTURE("flood")));
}

static void another_protocol(void **state)
{
    is_refused(*state, "SSH-2.0-OpenSSH_9.2\\r\\n", "\"SSH-2.0-OpenSSH_9.2");
    is_refused(*state, "HTTP/2 200\\r\\n", "\"HTTP/2 200");
    is_refused(*state, "HTTP/1.1 OK\\r\\n", "\"HTTP/1.1 OK");
    is_refused(*state, "SSH-2.0-dropbear\\r\\nmore", "\"SSH-2.0-dropbear\"");
    is_refused(*state, "\x15\x03\x01", "\"???\"");
    is_refused(*state, "\\r\\n", "\"?\"");
    is_refused(*state,
               "a\x7f"
               "b\\r\\n",
               "\"a?b\"");
}

static void a_line_without_an_end(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = http_spec(FIXTURE("endless"));
    spec.startup_timeout_ms = 2 * PATIENCE_MS;
    assert_result(KP_ERR_NOT_HTTP, spawn(scene, spec));
    assert_contains(scene->error.message, "does not end");
}

static void silence(void **state)
{
    fails_in_the_end(*state, FIXTURE("say", ""), "did not answer");
}

static void half_a_line(void **state)
{
    fails_in_the_end(*state, FIXTURE("say", "HTTP/1.1 200 "), "in time: \"HTTP/1.1 200 \"");
}

static void a_connection_that_is_closed(void **state)
{
    fails_in_the_end(*state, FIXTURE("hang-up", "60000"), "closed the connection");
}

/* What listens there now is what counts in the end: nobody. */
static void a_listener_that_closes_connections_and_goes(void **state)
{
    struct scene *scene = *state;
    const char *script = "\"$0\" hang-up 60000 & sleep 0.3; kill $!; wait; exec sleep 60";
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, soon(SHELL(script))));
}

/* As a port forwarder whose own end is not there yet. */
static void connections_that_were_closed(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, http_spec(FIXTURE("hang-up", "200")));
}

/* It answered, but its listener is closed by then. */
static void a_listener_that_is_closed_again(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    int64_t begin = now_ms();
    get_ready(scene, http_spec(FIXTURE("blink", "200")));
    assert_true(now_ms() - begin >= 200);
    assert_true(port_answers(kp_handle_port(scene->proxy)));
}

static void an_exit_instead_of_an_answer(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = http_spec(FIXTURE("exit-when-asked", "5"));
    spec.startup_timeout_ms = 2 * PATIENCE_MS;
    assert_result(KP_ERR_EXITED, spawn(scene, spec));
    assert_int_equal(scene->error.exit_code, 5);
}

static void a_proxy_that_never_binds(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, soon(FIXTURE("never"))));
}

/* Nothing is sent to who merely sits on the port. */
static void another_processes_listener(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    char byte;
    kp_spec spec = http_spec(FIXTURE("never"));
    assert_result(KP_OK, start(scene, spec));
    int fd = bind_socket("127.0.0.1", kp_handle_port(scene->proxy), BIND_REUSEADDR | BIND_LISTEN);
    assert_true(fd >= 0);
    assert_result(KP_ERR_FOREIGN_LISTENER, reach(scene, KP_STATE_READY));
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(client >= 0);
    assert_true(read(client, &byte, 1) <= 0);
    close(client);
    get_exited(scene);
    close(fd);
}

static void again_after_a_restart(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, http_spec(FIXTURE("serve")));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    get_exited(scene);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(a_proxy),
        TEST(without_the_flag_it_is_not_asked),
        EACH_WAY(also_without_a_reservation),
        TEST(the_question_leaves_no_trace),
        EACH_WAY(of_another_process),
        TEST(any_status),
        EACH_WAY(the_answer_is_heard_to_its_end),
        EACH_WAY(a_connection_that_is_kept_open),
        EACH_WAY(an_answer_that_does_not_end),
        EACH_WAY(another_protocol),
        EACH_WAY(a_line_without_an_end),
        EACH_WAY(silence),
        TEST(half_a_line),
        TEST(a_connection_that_is_closed),
        TEST(a_listener_that_closes_connections_and_goes),
        EACH_WAY(connections_that_were_closed),
        EACH_WAY(a_listener_that_is_closed_again),
        EACH_WAY(an_exit_instead_of_an_answer),
        TEST(a_proxy_that_never_binds),
        EACH_WAY(another_processes_listener),
        EACH_WAY(again_after_a_restart),
    };
    return RUN(tests);
}
