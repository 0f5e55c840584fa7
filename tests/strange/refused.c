/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts whose kernel refuses system calls, as strict containers, valgrind and old kernels do: each
 * by itself, with each of the answers that there are, and all together. Through whole lives: none
 * may hang, leave somebody behind, or take a grace that nobody needs.
 */
#include "../process.h"
#include "filter.h"
#include "forked.h"
#include "namespace.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALL_BITS = -1, BY_PIDFD = 3, GROUP_FLAG = 1 << 2, PIDFD_IOCTLS = 0xFF00 };

/* What is known too late without it: that nobody is left but the guard, or not even that. */
enum doubt { NO_DOUBT, DOUBT_UNGUARDED, DOUBT };

struct filter {
    const char *name;
    enum doubt doubt;
    bool no_fd; /* kp_handle_fd() can't make one */
    int errors[2];
    struct refusal calls[2];
};

#define CALL(name)                                                                                 \
    {                                                                                              \
        .call = SYS_##name                                                                         \
    }
#define CALL_WITH(name, number, want)                                                              \
    {                                                                                              \
        SYS_##name, 0, (uint32_t)ALL_BITS, want, number                                            \
    }

static const struct filter filters[] = {
    {"pidfd_open", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(pidfd_open)}},
    {"pidfd_send_signal", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(pidfd_send_signal)}},
    {"PIDFD_SIGNAL_PROCESS_GROUP",
     NO_DOUBT,
     false,
     {EINVAL, EPERM},
     {{SYS_pidfd_send_signal, 0, GROUP_FLAG, GROUP_FLAG, 3}}},
    {"P_PIDFD", NO_DOUBT, false, {EINVAL, EPERM}, {CALL_WITH(waitid, 0, BY_PIDFD)}},
    {"PIDFD_GET_INFO",
     NO_DOUBT,
     false,
     {ENOTTY, EPERM},
     {{SYS_ioctl, 0, PIDFD_IOCTLS, PIDFD_IOCTLS, 1}}},
    {"epoll_create1", NO_DOUBT, true, {ENOSYS, EPERM}, {CALL(epoll_create1)}},
    {"epoll_ctl", NO_DOUBT, true, {ENOSYS, EPERM}, {CALL(epoll_ctl)}},
    {"timerfd_create", NO_DOUBT, true, {ENOSYS, EPERM}, {CALL(timerfd_create)}},
    {"netlink", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL_WITH(socket, 0, AF_NETLINK)}},
    {"close_range", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(close_range)}},
    {"getpriority", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(getpriority)}},
    {"setpriority", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(setpriority)}},
    {"ioprio_set", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(ioprio_set)}},
    {"ioprio_get", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(ioprio_get)}},
    {"faccessat2", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(faccessat2)}},
    {"getdents64", NO_DOUBT, false, {ENOSYS, EPERM}, {CALL(getdents64)}},
    {"MADV_WIPEONFORK", NO_DOUBT, false, {EINVAL, EPERM}, {CALL_WITH(madvise, 2, MADV_WIPEONFORK)}},
    {"F_SETPIPE_SZ", NO_DOUBT, false, {EINVAL, EPERM}, {CALL_WITH(fcntl, 1, F_SETPIPE_SZ)}},
};
enum { FILTERS = sizeof filters / sizeof *filters, WAYS = 4, ERRORS = 2, SUMS = 3 };

/* A way, and what is refused there. */
struct place {
    struct way way; /* first: the scene's way is one of these */
    enum doubt doubt;
    bool no_fd;
    size_t count;
    struct refusal list[FILTERS * 2];
    char name[96];
};

static const struct place *place_of(const struct scene *scene)
{
    return (const struct place *)(const void *)scene->way;
}

/* ---- The host ------------------------------------------------------------- */

static bool is_doubtful(const struct place *place)
{
    bool guarded = (place->way.flags & KP_SPEC_NO_GUARD) == 0;
    return place->doubt == DOUBT || (place->doubt == DOUBT_UNGUARDED && !guarded);
}

/* Of what does not need it: where the library can't know, the grace may pass. */
static uint32_t unneeded_grace(const struct place *place)
{
    return is_doubtful(place) ? 300 : LONG_GRACE;
}

static int64_t prompt(const struct place *place)
{
    return is_doubtful(place) ? 300 + KILL_TIME + SLACK : PROMPT;
}

static void check_prompt(const struct place *place, int64_t since, const char *what)
{
    int64_t took = now_ms() - since;
    if (took >= prompt(place))
        dprintf(STDERR_FILENO, "%s took %lld ms\n", what, (long long)took);
    CHECK(took < prompt(place));
}

static size_t count_descriptors(void)
{
    size_t count = 0;
    for (int fd = 0; fd < MAX_FDS; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static bool has_no_child(void)
{
    return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
}

static void check_nothing_left(struct scene *scene, size_t descriptors)
{
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    CHECK(has_no_child());
    CHECK(count_descriptors() == descriptors);
}

/* Its status is seen, it is started again, and stops when it is asked. */
static void live_and_restart(struct scene *scene, const struct place *place)
{
    int code = 0;
    check_ready(scene, with_grace(FIXTURE("exit-when-asked", "3"), unneeded_grace(place)));
    if (scene->way->pause == ways[1].pause)
        CHECK((kp_handle_fd(scene->proxy) < 0) == place->no_fd);
    CHECK(ask_to_exit(kp_handle_port(scene->proxy)));
    CHECK_RESULT(KP_ERR_EXITED, told_somehow(scene));
    CHECK(scene->error.exit_code == 3);
    int64_t begin = now_ms();
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    check_prompt(place, begin, "an end");
    CHECK(kp_handle_exit_status(scene->proxy, &code, NULL) == 1 && code == 3);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_READY));
}

static void stop_a_prompt_one(struct scene *scene, const struct place *place)
{
    int signal_number = 0;
    int64_t begin = now_ms();
    check_ready(scene, with_grace(FIXTURE("serve"), unneeded_grace(place)));
    check_stop(scene, -1);
    check_prompt(place, begin, "a prompt stop");
    CHECK(kp_handle_exit_status(scene->proxy, NULL, &signal_number) == 1);
    CHECK(signal_number == SIGTERM);
}

static void stop_a_deaf_one(struct scene *scene)
{
    check_ready(scene, with_grace(DEAF_BEHIND_A_WRAPPER, 300));
    int64_t took = check_stop(scene, -1);
    CHECK(took >= 300 && took < 300 + KILL_TIME + SLACK);
    CHECK(!port_answers(kp_handle_port(scene->proxy)));
}

static void fail_to_start(struct scene *scene, const struct place *place)
{
    int64_t begin = now_ms();
    CHECK_RESULT(KP_OK, start(scene, with_grace(FIXTURE("exit", "5"), unneeded_grace(place))));
    CHECK_RESULT(KP_ERR_EXITED, reach_somehow(scene, KP_STATE_READY));
    CHECK(scene->error.exit_code == 5);
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    check_free(scene);
    check_prompt(place, begin, "a failed start");
    kp_spec missing = spec_for(WORDS("/no/such/proxy"));
    missing.cwd = "/";
    CHECK_RESULT(KP_ERR_SPAWN, start(scene, missing));
    CHECK(strstr(scene->error.message, "cwd") == NULL);
}

static void fail_to_bind(struct scene *scene, const struct place *place)
{
    kp_spec spec = with_grace(FIXTURE("never"), unneeded_grace(place));
    spec.startup_timeout_ms = 100;
    int64_t begin = now_ms();
    CHECK_RESULT(KP_OK, start(scene, spec));
    CHECK_RESULT(KP_ERR_TIMED_OUT, reach_somehow(scene, KP_STATE_READY));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    check_prompt(place, begin, "a start that timed out");
}

static void free_a_ready_one(struct scene *scene, const struct place *place)
{
    check_ready(scene, with_grace(FIXTURE("serve"), unneeded_grace(place)));
    int64_t begin = now_ms();
    check_free(scene);
    check_prompt(place, begin, "free");
}

/* For good, so it comes last. */
static void start_between_namespaces(struct scene *scene)
{
    if (unshare(CLONE_NEWPID) == 0) /* else it takes more rights */
        CHECK_RESULT(KP_ERR_STATE, start(scene, spec_for(FIXTURE("serve"))));
}

static void live(struct scene *scene)
{
    const struct place *place = place_of(scene);
    size_t before = count_descriptors();
    refuse(place->list, place->count);
    live_and_restart(scene, place);
    check_nothing_left(scene, before);
    stop_a_prompt_one(scene, place);
    check_nothing_left(scene, before);
    stop_a_deaf_one(scene);
    check_nothing_left(scene, before);
    fail_to_start(scene, place);
    check_nothing_left(scene, before);
    fail_to_bind(scene, place);
    check_nothing_left(scene, before);
    free_a_ready_one(scene, place);
    check_nothing_left(scene, before);
    start_between_namespaces(scene);
}

static void whole_lives(void **state)
{
    assert_int_equal(in_child(live, *state), 0);
}

/* ---- The places ------------------------------------------------------------ */

static const char *const way_names[WAYS] = {"blocking", "descriptor", "clock", "no guard"};

static void add_filter(struct place *place, const struct filter *filter, size_t error)
{
    for (size_t i = 0; i < 2 && filter->calls[i].call != 0; i++) {
        place->list[place->count] = filter->calls[i];
        place->list[place->count++].error = filter->errors[error];
    }
    place->no_fd = place->no_fd || filter->no_fd;
    if (place->doubt < filter->doubt)
        place->doubt = filter->doubt;
}

static struct CMUnitTest test_of(struct place *place, const char *what, size_t way,
                                 const char *error)
{
    place->way = ways[way];
    snprintf(place->name, sizeof place->name, "without %s: %s [%s]", what, error, way_names[way]);
    return (struct CMUnitTest){place->name, whole_lives, scene_open, scene_close, place};
}

int main(void)
{
    static struct place places[(FILTERS + SUMS) * ERRORS * WAYS];
    struct CMUnitTest tests[sizeof places / sizeof *places];
    size_t count = 0;
    for (size_t i = 0; i < FILTERS * ERRORS * WAYS; i++) {
        const struct filter *filter = &filters[i / WAYS / ERRORS];
        size_t error = i / WAYS % ERRORS;
        add_filter(&places[count], filter, error);
        tests[count] =
            test_of(&places[count], filter->name, i % WAYS, strerrorname_np(filter->errors[error]));
        count++;
    }
    return _cmocka_run_group_tests("refused", tests, count, NULL, NULL);
}
