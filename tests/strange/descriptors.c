/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts with few descriptors, with very many, with none to spare, and without standard streams. */
#include "life.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- Limits ---------------------------------------------------------------------- */

static bool limit_descriptors(struct scene *scene, int number)
{
    struct rlimit limit;
    (void)scene;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    limit.rlim_cur = (rlim_t)number;
    return limit.rlim_cur <= limit.rlim_max && setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

enum { MILLION = 1000000 };

/* As many as can be had, where a million can't: to raise the limit needs CAP_SYS_RESOURCE. */
static bool lift_limit(struct scene *scene, int unused)
{
    struct rlimit million = {MILLION, MILLION}, limit;
    (void)scene, (void)unused;
    if (setrlimit(RLIMIT_NOFILE, &million) == 0)
        return true;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* ---- Without standard streams -------------------------------------------------------- */

enum { INPUT = 1, OUTPUT = 2, ERROR = 4, ALL = INPUT | OUTPUT | ERROR };

static int closed_streams; /* as set up */

static bool close_streams(struct scene *scene, int which)
{
    (void)scene;
    closed_streams = which;
    for (int fd = 0; fd < 3; fd++)
        if ((which & 1 << fd) != 0)
            close(fd);
    return true;
}

static bool close_streams_and_limit(struct scene *scene, int number)
{
    return close_streams(scene, ALL) && limit_descriptors(scene, number);
}

/* None of the library's became a standard stream, and none stayed one. */
static void they_are_still_closed(struct scene *scene)
{
    (void)scene;
    for (int fd = 0; fd < 3; fd++)
        if ((closed_streams & 1 << fd) != 0)
            CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
}

static void check_line(const char *report, const char *line)
{
    if (strstr(report, line) == NULL) {
        dprintf(check_output, "no \"%s\" in\n%s", line, report);
        CHECK(strstr(report, line) != NULL);
    }
}

/* The host's file and connection are the lowest that are free when the streams are closed: what
 * is made for the proxy must not be mistaken for them, or they for its log. */
static void print_without_standard_error(struct scene *scene)
{
    char report[4096];
    struct stat info;
    int pair[2];
    kp_spec spec = marked(scene, FIXTURE("fds", scene_path(scene, "report")));
    int file = open(scene_path(scene, "own"), O_RDWR | O_CREAT, 0600);
    CHECK(file > 2 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    close_streams(scene, ERROR);
    be_ready(scene, spec);
    file_read(scene_path(scene, "report"), report, sizeof report);
    check_line(report, "0 /dev/null\n");
    check_line(report, "1 /dev/null\n");
    check_line(report, "2 /dev/null\n");
    end_it(scene, -1);
    free_proxy(scene);
    CHECK(begin(scene, marked(scene, FIXTURE("print-exit", "1", "words"))) == KP_ERR_EXITED);
    CHECK(fstat(file, &info) == 0 && info.st_size == 0);
    char byte;
    CHECK(recv(pair[1], &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    they_are_still_closed(scene);
}

static void a_proxys_words_go_nowhere(void **state)
{
    run_host(print_without_standard_error, *state, __func__);
}

/* A file that the host opens once its standard error is closed gets that number. */
static void open_as_number_two(struct scene *scene, int flags, const char *expected)
{
    char text[64];
    const char *path = scene_path(scene, "own");
    close_streams(scene, ERROR);
    CHECK(open(path, O_RDWR | O_CREAT | flags, 0600) == 2);
    CHECK_RESULT(KP_ERR_EXITED, begin(scene, marked(scene, FIXTURE("print-exit", "1", "words"))));
    file_read(path, text, sizeof text);
    CHECK(strcmp(text, expected) == 0);
}

/* As careful hosts open theirs. */
static void print_beside_a_close_on_exec_file(struct scene *scene)
{
    open_as_number_two(scene, O_CLOEXEC, "");
}

static void print_to_what_is_inherited(struct scene *scene)
{
    open_as_number_two(scene, 0, "words\n");
}

static void what_is_close_on_exec_is_no_standard_error(void **state)
{
    run_host(print_beside_a_close_on_exec_file, *state, __func__);
}

static void what_is_inherited_as_number_two_is(void **state)
{
    run_host(print_to_what_is_inherited, *state, __func__);
}

/* ---- Very many descriptors --------------------------------------------------------------- */

/* Closing a million takes a hundred milliseconds, and a start less than one. */
static void start_with_a_million(struct scene *scene)
{
    CHECK(limit_descriptors(scene, 100));
    int64_t few = least_start_ns(scene);
    CHECK(lift_limit(scene, 0));
    int64_t many = least_start_ns(scene);
    check_no_slower(few, many);
}

static void a_million_descriptors_cost_no_time(void **state)
{
    if (!left_out_under_valgrind(__func__))
        run_host(start_with_a_million, *state, __func__);
}

/* ---- None to spare ------------------------------------------------------------------------- */

enum { MOST = 64, SPARE = 16 };

static int taken[MOST];
static size_t taken_count;
static struct rlimit usual;

/* Leaves the host so many descriptors that it can open. */
static void leave(size_t spare)
{
    getrlimit(RLIMIT_NOFILE, &usual);
    struct rlimit few = {.rlim_cur = MOST, .rlim_max = usual.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    for (taken_count = 0; (taken[taken_count] = dup(STDERR_FILENO)) >= 0; taken_count++)
        ;
    CHECK(errno == EMFILE && taken_count >= spare);
    for (; spare > 0; spare--)
        close(taken[--taken_count]);
}

static void give_back(void)
{
    while (taken_count > 0)
        close(taken[--taken_count]);
    CHECK(setrlimit(RLIMIT_NOFILE, &usual) == 0);
}

static void is_a_shortage(const struct scene *scene, kp_result result)
{
    CHECK_RESULT(KP_ERR_SYSTEM, result);
    CHECK(scene->error.code == KP_ERR_SYSTEM);
    CHECK(scene->error.sys_errno == EMFILE);
    CHECK(strstr(scene->error.message, strerror(EMFILE)) != NULL);
}

/* A start that can't be has left nothing, whatever it was that was missing; with enough it can.
 * Nothing is said of how many that is. */
static void start_with_few(struct scene *scene)
{
    size_t spare = 0;
    kp_result result = KP_ERR_SYSTEM;
    kp_spec spec = marked(scene, FIXTURE("serve"));
    spec.flags = scene->way->flags;
    spec.stop_grace_ms = 50; /* of which all is used where nobody can be looked for */
    witness(scene);
    for (; result != KP_OK; spare++) {
        CHECK(spare < SPARE);
        leave(spare);
        result = kp_spawn(&spec, &scene->proxy, &scene->error);
        give_back();
        if (result != KP_OK) {
            is_a_shortage(scene, result);
            check_witness(scene);
        }
    }
    CHECK(spare > 1); /* one at least was too few */
    end_it(scene, -1);
    free_proxy(scene);
    check_witness(scene);
}

static void a_start_without_descriptors(void **state)
{
    run_host(start_with_few, *state, __func__);
}

/* The probe, and the look at the listener's owner, need some. */
static void become_ready_with(struct scene *scene, size_t spare, bool watched)
{
    CHECK_RESULT(KP_OK, start(scene, marked(scene, FIXTURE("late", "20"))));
    CHECK(!watched || kp_handle_fd(scene->proxy) >= 0);
    pid_t group = getpgid(kp_handle_pid(scene->proxy));
    leave(spare);
    kp_result result = kp_handle_wait(scene->proxy, KP_STATE_READY, PATIENCE_MS, &scene->error);
    give_back();
    if (result != KP_OK) {
        is_a_shortage(scene, result);
        CHECK(kp_handle_state(scene->proxy) == KP_STATE_STOPPING);
        CHECK_RESULT(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL));
        CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
        CHECK_RESULT(KP_OK,
                     kp_handle_wait(scene->proxy, KP_STATE_READY, PATIENCE_MS, &scene->error));
    }
    free_proxy(scene);
    CHECK(group_size(group) == 0);
}

static void run_out_while_starting(struct scene *scene)
{
    witness(scene);
    for (size_t spare = 0; spare < 6; spare++) {
        become_ready_with(scene, spare, false);
        become_ready_with(scene, spare, true);
        check_witness(scene);
    }
}

static void none_are_left_while_starting(void **state)
{
    run_host(run_out_while_starting, *state, __func__);
}

/* Its descriptor can't be made, and can be later. */
static void look_without_descriptors(struct scene *scene, size_t spare)
{
    kp_spec spec = marked(scene, FIXTURE("serve"));
    spec.flags = scene->way->flags;
    CHECK_RESULT(KP_OK, kp_spawn(&spec, &scene->proxy, &scene->error));
    leave(spare);
    CHECK(kp_handle_fd(scene->proxy) == -1);
    CHECK(kp_handle_step(scene->proxy, &scene->error) == KP_OK);
    CHECK(kp_handle_timeout_ns(scene->proxy) >= 0);
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    kp_error told;
    kp_result result = KP_OK;
    while (result == KP_OK)
        result = kp_handle_step(scene->proxy, &told);
    CHECK(result == KP_ERR_EXITED && told.term_signal == SIGKILL);
    CHECK_RESULT(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL));
    give_back();
    CHECK(kp_handle_fd(scene->proxy) >= 0);
}

/* Once it has one, that tells the exit. */
static void watch_without_descriptors(struct scene *scene, size_t spare)
{
    be_ready(scene, marked(scene, FIXTURE("serve")));
    CHECK(kp_handle_fd(scene->proxy) >= 0);
    leave(spare);
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    CHECK(ways[1].pause(scene->proxy));
    CHECK(kp_handle_step(scene->proxy, &scene->error) == KP_ERR_EXITED);
    CHECK(scene->error.term_signal == SIGKILL);
    while (kp_handle_state(scene->proxy) != KP_STATE_EXITED) {
        CHECK(ways[1].pause(scene->proxy));
        CHECK(kp_handle_step(scene->proxy, &scene->error) >= 0);
    }
    give_back();
}

/* A restart that can't be is told, and can be tried again. */
static void restart_without_descriptors(struct scene *scene)
{
    kp_result result = KP_ERR_SYSTEM;
    int tries = 0;
    for (size_t spare = 0; result != KP_OK && spare < SPARE; spare++) {
        leave(spare);
        error_fill(&scene->error);
        result = kp_handle_restart(scene->proxy, &scene->error);
        give_back();
        if (result != KP_OK) {
            is_a_shortage(scene, result);
            CHECK(kp_handle_state(scene->proxy) == KP_STATE_EXITED);
            tries++;
        }
    }
    CHECK_RESULT(KP_OK, result);
    CHECK(tries > 0 || scene->way->flags == KP_SPEC_NO_GUARD); /* whose start needs none */
    CHECK_RESULT(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_READY, PATIENCE_MS, &scene->error));
}

static void run_out_while_ready(struct scene *scene)
{
    witness(scene);
    for (size_t spare = 0; spare < 2; spare++) {
        look_without_descriptors(scene, spare);
        restart_without_descriptors(scene);
        free_proxy(scene);
        watch_without_descriptors(scene, spare);
        restart_without_descriptors(scene);
        free_proxy(scene);
        check_witness(scene);
    }
}

static void none_are_left_while_ready(void **state)
{
    run_host(run_out_while_ready, *state, __func__);
}

/* Who would be looked for in /proc can't be: nobody is taken for gone, and all are gone. */
static void stop_without_descriptors(struct scene *scene, char *const *argv, bool watched,
                                     size_t spare)
{
    be_ready(scene, marked(scene, argv));
    CHECK(!watched || kp_handle_fd(scene->proxy) >= 0);
    pid_t group = getpgid(kp_handle_pid(scene->proxy));
    leave(spare);
    CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, 50));
    kp_handle_free(scene->proxy);
    give_back();
    scene->proxy = NULL;
    CHECK(group_size(group) == 0);
}

static void run_out_before_the_stop(struct scene *scene)
{
    witness(scene);
    for (size_t spare = 0; spare < 4; spare++) {
        stop_without_descriptors(scene, FIXTURE("serve"), spare % 2 != 0, spare);
        stop_without_descriptors(scene, FIXTURE("deaf"), spare % 2 != 0, spare);
        stop_without_descriptors(scene, SHELL("\"$0\" deaf-workers 2 & wait"), spare % 2 == 0,
                                 spare);
        stop_without_descriptors(scene, SHELL("exec setsid -w \"$0\" deaf-workers 2"),
                                 spare % 2 == 0, spare);
        check_witness(scene);
    }
}

static void none_are_left_before_the_stop(void **state)
{
    run_host(run_out_before_the_stop, *state, __func__);
}

/* More are watched than the host may poll by now: what no call waits for is looked at by the clock,
 * and not without a pause. */
static void wait_below_the_limit(struct scene *scene)
{
    struct timespec spent;
    be_ready(scene, marked(scene, FIXTURE("serve")));
    getrlimit(RLIMIT_NOFILE, &usual);
    CHECK(limit_descriptors(scene, 0));
    CHECK_RESULT(KP_AGAIN, kp_handle_wait(scene->proxy, KP_STATE_EXITED, 500, NULL));
    CHECK(setrlimit(RLIMIT_NOFILE, &usual) == 0);
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent) == 0);
    CHECK(spent.tv_sec == 0 && spent.tv_nsec < 250 * 1000 * 1000);
    free_proxy(scene);
}

static void none_may_be_polled(void **state)
{
    if (!left_out_under_valgrind(__func__))
        run_host(wait_below_the_limit, *state, __func__);
}

int main(void)
{
    static const struct circumstance list[] = {
        {"descriptor 0 is closed", close_streams, INPUT, they_are_still_closed, .reaps = false},
        {"descriptor 1 is closed", close_streams, OUTPUT, they_are_still_closed, .reaps = false},
        {"descriptor 2 is closed", close_streams, ERROR, they_are_still_closed, .reaps = false},
        {"0 and 1 are closed", close_streams, INPUT | OUTPUT, they_are_still_closed,
         .reaps = false},
        {"0 and 2 are closed", close_streams, INPUT | ERROR, they_are_still_closed, .reaps = false},
        {"1 and 2 are closed", close_streams, OUTPUT | ERROR, they_are_still_closed,
         .reaps = false},
        {"0, 1 and 2 are closed", close_streams, ALL, they_are_still_closed, .reaps = false},
        {"a limit of twenty descriptors", limit_descriptors, .number = 20},
        {"a limit of twenty and no streams", close_streams_and_limit, 20, they_are_still_closed,
         .reaps = false},
        {"a limit of a million descriptors", lift_limit, .number = 0},
    };
    static const struct CMUnitTest own[] = {
        TEST_WAY(none_may_be_polled, "guard", &ways[0]),
        EACH_WAY(a_proxys_words_go_nowhere),
        TEST(what_is_close_on_exec_is_no_standard_error),
        TEST(what_is_inherited_as_number_two_is),
        TEST_WAY(a_million_descriptors_cost_no_time, "guard", &ways[0]),
        TEST_WAY(a_million_descriptors_cost_no_time, "no guard", &ways[3]),
        TEST_WAY(a_start_without_descriptors, "guard", &ways[0]),
        TEST_WAY(a_start_without_descriptors, "no guard", &ways[3]),
        TEST_WAY(none_are_left_while_starting, "guard", &ways[0]),
        TEST_WAY(none_are_left_while_starting, "no guard", &ways[3]),
        TEST_WAY(none_are_left_while_ready, "guard", &ways[0]),
        TEST_WAY(none_are_left_while_ready, "no guard", &ways[3]),
        TEST_WAY(none_are_left_before_the_stop, "guard", &ways[0]),
        TEST_WAY(none_are_left_before_the_stop, "no guard", &ways[3]),
    };
    return run_strange(list, sizeof list / sizeof *list, own, sizeof own / sizeof *own);
}
