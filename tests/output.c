/* SPDX-License-Identifier: Apache-2.0 */
/* Where the proxy's output goes, and that what the proxy does to it is not done to the host's. */
#include "process.h"
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/* ---- Places for it ------------------------------------------------------------------ */

/* What is written to `out` is read from `in`. */
struct place {
    int in, out;
};

static struct place make_pipe(const struct scene *scene)
{
    int ends[2];
    (void)scene;
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    return (struct place){ends[0], ends[1]};
}

static struct place make_fifo(const struct scene *scene)
{
    const char *path = scene_path(scene, "fifo");
    CHECK(mkfifo(path, 0600) == 0);
    int in = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    fcntl(in, F_SETFL, 0);
    return (struct place){in, open(path, O_WRONLY | O_CLOEXEC)};
}

/* Nothing is echoed or changed on its way. */
static void open_terminal(int *master, int *slave)
{
    struct termios raw = {0};
    cfmakeraw(&raw);
    CHECK(openpty(master, slave, NULL, &raw, NULL) == 0);
    fcntl(*master, F_SETFD, FD_CLOEXEC);
    fcntl(*slave, F_SETFD, FD_CLOEXEC);
}

static struct place make_terminal(const struct scene *scene)
{
    struct place place;
    (void)scene;
    open_terminal(&place.in, &place.out);
    return place;
}

static struct place make_master(const struct scene *scene)
{
    struct place place;
    (void)scene;
    open_terminal(&place.out, &place.in);
    return place;
}

static struct place make_socket(const struct scene *scene)
{
    int ends[2];
    (void)scene;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    return (struct place){ends[0], ends[1]};
}

static struct place (*const with_status_of_its_own[])(const struct scene *) = {make_pipe, make_fifo,
                                                                               make_terminal};
enum { PLACES = sizeof with_status_of_its_own / sizeof *with_status_of_its_own };

static void close_place(const struct place *place)
{
    close(place->in);
    close(place->out);
}

static bool blocks(int fd)
{
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
}

/* The next line, as far as it comes. */
static const char *read_line(int in)
{
    static char line[64];
    struct pollfd wanted = {.fd = in, .events = POLLIN};
    size_t size = 0;
    while (size < sizeof line - 1 && poll(&wanted, 1, PATIENCE_MS) == 1 &&
           read(in, line + size, 1) == 1 && line[size] != '\n')
        size++;
    line[size] = '\0';
    return line;
}

/* ---- The proxy makes its output non-blocking ------------------------------------------ */

/* Each life of the proxy begins with one that blocks, whatever the last one has done to its own. */
static void live_twice(struct scene *scene, kp_spec spec, const struct place *place)
{
    CHECK(kp_spawn(&spec, &scene->proxy, NULL) == KP_OK);
    CHECK(strcmp(read_line(place->in), "blocking") == 0);
    CHECK(blocks(place->out));
    CHECK(kp_handle_stop(scene->proxy, -1) == KP_OK);
    CHECK(kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, NULL) == KP_OK);
    CHECK(kp_handle_restart(scene->proxy, NULL) == KP_OK);
    CHECK(kp_handle_wait(scene->proxy, KP_STATE_READY, -1, NULL) == KP_OK);
    CHECK(strcmp(read_line(place->in), "blocking") == 0);
    CHECK(blocks(place->out));
    kp_handle_free(scene->proxy);
}

static void log_to_each_place(struct scene *scene)
{
    for (size_t i = 0; i < PLACES; i++) {
        struct place place = with_status_of_its_own[i](scene);
        kp_spec spec = spec_for(FIXTURE("nonblocking"));
        spec.log_fd = place.out;
        live_twice(scene, spec, &place);
        close_place(&place);
    }
}

static void the_hosts_log_goes_on_blocking(void **state)
{
    struct scene *scene = *state;
    if (!left_out_on_posix(__func__))
        assert_int_equal(in_child(log_to_each_place, scene), 0);
}

/* With the standard error that the test has in the end, for its words. */
static void print_to_each_place(struct scene *scene)
{
    check_output = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    for (size_t i = 0; i < PLACES; i++) {
        struct place place = with_status_of_its_own[i](scene);
        CHECK(dup2(place.out, STDERR_FILENO) == STDERR_FILENO);
        live_twice(scene, spec_for(FIXTURE("nonblocking")), &place);
        CHECK(blocks(STDERR_FILENO));
        unlink(scene_path(scene, "fifo"));
        close_place(&place);
    }
}

static void so_does_its_standard_error(void **state)
{
    struct scene *scene = *state;
    if (!left_out_on_posix(__func__))
        assert_int_equal(in_child(print_to_each_place, scene), 0);
}

/* A proxy that gets EAGAIN is no better off than a host. */
static void the_proxys_blocks_where_the_hosts_does_not(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    for (size_t i = 0; i < PLACES; i++) {
        struct place place = with_status_of_its_own[i](scene);
        fcntl(place.out, F_SETFL, fcntl(place.out, F_GETFL) | O_NONBLOCK);
        kp_spec spec = spec_for(FIXTURE("nonblocking"));
        spec.log_fd = place.out;
        get_ready(scene, spec);
        assert_string_equal(read_line(place.in), "blocking");
        assert_false(blocks(place.out));
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
        close_place(&place);
    }
}

/* ---- What is not opened again, or can't be ---------------------------------------------- */

/* The output comes all the same. */
static void assert_output_comes(struct scene *scene, const struct place *place)
{
    kp_spec spec = spec_for(FIXTURE("nonblocking"));
    spec.log_fd = place->out;
    get_ready(scene, spec);
    assert_string_equal(read_line(place->in), "blocking");
    close_place(place);
}

static void a_socket_is_shared(void **state)
{
    struct scene *scene = *state;
    struct place place = make_socket(scene);
    assert_output_comes(scene, &place);
}

static void so_is_what_is_neither_pipe_nor_terminal(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    get_ready(scene, spec);
    close(spec.log_fd);
}

/* Opened again it would be another terminal's. */
static void so_is_a_terminals_master(void **state)
{
    struct scene *scene = *state;
    struct place place = make_master(scene);
    assert_output_comes(scene, &place);
}

/* Host and proxy write one behind the other, without O_APPEND. */
static void so_is_the_place_in_a_file(void **state)
{
    struct scene *scene = *state;
    char text[64];
    int log = open(scene_path(scene, "log"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    kp_spec spec = spec_for(FIXTURE("nonblocking"));
    spec.log_fd = log;
    assert_int_equal(write(log, "before\n", 7), 7);
    get_ready(scene, spec);
    assert_int_equal(write(log, "after\n", 6), 6);
    close(log);
    file_read(scene_path(scene, "log"), text, sizeof text);
    assert_string_equal(text, "before\nblocking\nafter\n");
}

static void log_to_anothers_pipe(struct scene *scene)
{
    struct place place = make_pipe(scene);
    CHECK(become_somebody());
    kp_spec spec = spec_for(FIXTURE("nonblocking"));
    spec.log_fd = place.out;
    CHECK(kp_spawn(&spec, &scene->proxy, &scene->error) == KP_OK);
    CHECK(strcmp(read_line(place.in), "blocking") == 0);
    kp_handle_free(scene->proxy);
}

static void so_is_a_pipe_of_another_users(void **state)
{
    struct scene *scene = *state;
    if (geteuid() == 0)
        assert_int_equal(in_child(log_to_anothers_pipe, scene), 0);
}

/* Nobody waits for a reader to come back. */
static void nobody_reads_any_more(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < PLACES; i++) {
        struct place place = with_status_of_its_own[i](scene);
        close(place.in);
        kp_spec spec = spec_for(FIXTURE("serve"));
        spec.log_fd = place.out;
        get_ready(scene, spec);
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
        close(place.out);
    }
}

static void log_to_a_terminal_without_having_one(struct scene *scene)
{
    CHECK(setsid() > 0);
    struct place place;
    CHECK((place.in = posix_openpt(O_RDWR | O_NOCTTY)) >= 0);
    CHECK(unlockpt(place.in) == 0);
    CHECK((place.out = open(ptsname(place.in), O_RDWR | O_NOCTTY)) >= 0);
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.log_fd = place.out;
    CHECK(kp_spawn(&spec, &scene->proxy, &scene->error) == KP_OK);
    CHECK(open("/dev/tty", O_RDWR) == -1 && errno == ENXIO);
    kp_handle_free(scene->proxy);
}

static void the_host_gets_no_terminal_by_it(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(in_child(log_to_a_terminal_without_having_one, scene), 0);
}

/* ---- What else is as it was --------------------------------------------------------------- */

static unsigned status_of_proxys_error(const struct scene *scene)
{
    char text[512];
    unsigned flags = 0;
    process_file(kp_handle_pid(scene->proxy), "fdinfo/2", text, sizeof text);
    const char *line = strstr(text, "flags:");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "flags: %o", &flags), 1);
    return flags;
}

static void a_pipe_of_packets_remains_one(void **state)
{
    struct scene *scene = *state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_DIRECT | O_NONBLOCK | O_CLOEXEC), 0);
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.log_fd = ends[1];
    get_ready(scene, spec);
    unsigned flags = status_of_proxys_error(scene);
    assert_true((flags & O_DIRECT) != 0);
    assert_true(on_posix() || (flags & O_NONBLOCK) == 0);
    close(ends[0]);
    close(ends[1]);
}

/* No more than the handle's own copy keeps a reader waiting. */
static void the_reader_sees_the_end(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < 2; i++) {
        struct place place = with_status_of_its_own[i](scene);
        struct pollfd wanted = {.fd = place.in, .events = POLLIN};
        kp_spec spec = spec_for(FIXTURE("serve"));
        spec.log_fd = place.out;
        get_ready(scene, spec);
        close(place.out);
        assert_int_equal(poll(&wanted, 1, 0), 0);
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
        assert_int_equal(poll(&wanted, 1, PATIENCE_MS), 1);
        assert_true((wanted.revents & POLLHUP) != 0);
        close(place.in);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_hosts_log_goes_on_blocking),
        TEST(so_does_its_standard_error),
        TEST(the_proxys_blocks_where_the_hosts_does_not),
        TEST(a_socket_is_shared),
        TEST(so_is_what_is_neither_pipe_nor_terminal),
        TEST(so_is_a_terminals_master),
        TEST(so_is_the_place_in_a_file),
        TEST(so_is_a_pipe_of_another_users),
        TEST(nobody_reads_any_more),
        TEST(the_host_gets_no_terminal_by_it),
        TEST(a_pipe_of_packets_remains_one),
        TEST(the_reader_sees_the_end),
    };
    return RUN(tests);
}
