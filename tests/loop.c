/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor is all that an event loop needs: it tells of every step that is due, by
 * time too, and a step leaves it unreadable, so that no loop spins and none that is
 * edge-triggered falls asleep. None of these hosts has a timer of its own, but the last,
 * which has nothing else.
 */
#include "support.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

/* A loop of a host's. Its `wait` says whether the handle is to be stepped. */
struct host {
    const char *name;
    int (*open)(int fd);
    bool (*wait)(int loop, kp_handle *handle);
};

static int open_nothing(int fd)
{
    return fd;
}

static bool wait_by_poll(int fd, kp_handle *handle)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    (void)handle;
    return poll(&watched, 1, PATIENCE_MS) == 1 && watched.revents == POLLIN;
}

static bool wait_by_select(int fd, kp_handle *handle)
{
    fd_set set;
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    (void)handle;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    return select(fd + 1, &set, NULL, NULL, &patience) == 1;
}

static int open_epoll(int fd, uint32_t events)
{
    int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = events, .data.fd = fd};
    assert_true(loop >= 0);
    assert_int_equal(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event), 0);
    return loop;
}

static int open_level(int fd)
{
    return open_epoll(fd, EPOLLIN);
}

static int open_edge(int fd)
{
    return open_epoll(fd, EPOLLIN | EPOLLET);
}

static bool wait_by_epoll(int loop, kp_handle *handle)
{
    struct epoll_event event;
    (void)handle;
    return epoll_wait(loop, &event, 1, PATIENCE_MS) == 1;
}

static bool wait_by_clock(int loop, kp_handle *handle)
{
    int64_t ns = kp_handle_timeout_ns(handle);
    (void)loop;
    if (ns < 0)
        return false;
    struct timespec rest = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&rest, NULL);
    return true;
}

static struct host hosts[] = {
    {"poll", open_nothing, wait_by_poll},   {"select", open_nothing, wait_by_select},
    {"epoll", open_level, wait_by_epoll},   {"edge-triggered epoll", open_edge, wait_by_epoll},
    {"clock", open_nothing, wait_by_clock},
};
enum { CLOCK = 4 };

/* ---- One host, one proxy -------------------------------------------------------- */

struct run {
    struct scene *scene;
    struct host *host;
    int loop, wakeups;
    kp_result told; /* the last failure */
};

static struct run begin(struct scene *scene, struct host *host, kp_spec spec)
{
    assert_result(KP_OK, kp_start(&spec, &scene->proxy, &scene->error));
    int fd = host == &hosts[CLOCK] ? -1 : kp_handle_fd(scene->proxy);
    return (struct run){.scene = scene, .host = host, .loop = host->open(fd)};
}

static void end(struct run *run)
{
    if (run->host->wait == wait_by_epoll)
        close(run->loop);
}

/* Steps exactly when the loop says so, until the state is reached; the wakeups. */
static int run_to(struct run *run, kp_state state)
{
    kp_handle *proxy = run->scene->proxy;
    run->wakeups = 0;
    while (kp_handle_state(proxy) != state) {
        if (!run->host->wait(run->loop, proxy))
            fail_msg("%s: state %d: nothing more comes", run->host->name, kp_handle_state(proxy));
        run->wakeups++;
        kp_result result = kp_handle_step(proxy, &run->scene->error);
        run->told = result < 0 ? result : run->told;
    }
    return run->wakeups;
}

static bool is_readable(const struct run *run)
{
    struct pollfd watched = {.fd = kp_handle_fd(run->scene->proxy), .events = POLLIN};
    return poll(&watched, 1, 0) == 1;
}

/* Once nothing is due, nothing wakes the loop. */
static void assert_quiet(const struct run *run, int ms)
{
    struct pollfd watched = {.fd = kp_handle_fd(run->scene->proxy), .events = POLLIN};
    for (int i = 0; i < 3 && is_readable(run); i++)
        kp_handle_step(run->scene->proxy, NULL);
    assert_int_equal(poll(&watched, 1, ms), 0);
}

/*
 * Bounds on wakeups. Probing 200 ms with pauses of a fixed fraction of the time waited and
 * some floor takes a few hundred steps; a loop that spins makes some ten thousand of them.
 */
enum { MAX_STARTING = 2500, MAX_STOPPING = 200 };

/* A whole life: late start, ready, death, restart, stop of a deaf proxy. */
static void live(struct scene *scene, struct host *host)
{
    kp_spec spec = spec_for(SHELL("trap '' TERM; sleep 0.1; exec \"$0\" exit-when-asked 3"));
    spec.stop_grace_ms = 200;
    struct run run = begin(scene, host, spec);
    assert_in_range(run_to(&run, KP_STATE_READY), 1, MAX_STARTING);
    assert_true(ask_to_exit(kp_handle_port(scene->proxy)));
    assert_in_range(run_to(&run, KP_STATE_EXITED), 1, MAX_STOPPING);
    assert_result(KP_ERR_EXITED, run.told);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_in_range(run_to(&run, KP_STATE_READY), 1, MAX_STARTING);
    run.told = KP_OK;
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_in_range(run_to(&run, KP_STATE_EXITED), 1, MAX_STOPPING);
    assert_result(KP_OK, run.told);
    end(&run);
}

#define LIVES(name, number)                                                                        \
    static void name(void **state)                                                                 \
    {                                                                                              \
        if (!left_out_on_posix(__func__))                                                          \
            live(*state, &hosts[number]);                                                          \
    }
LIVES(a_life_in_a_poll_loop, 0)
LIVES(a_life_in_a_select_loop, 1)
LIVES(a_life_in_an_epoll_loop, 2)
LIVES(a_life_in_an_edge_triggered_loop, 3)

/* Without the descriptor an exit can only be looked for: more wakeups, but no spinning. */
static void a_life_by_the_clock(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(SHELL("trap '' TERM; sleep 0.1; exec \"$0\" exit-when-asked 3"));
    spec.stop_grace_ms = 200;
    struct run run = begin(scene, &hosts[CLOCK], spec);
    assert_in_range(run_to(&run, KP_STATE_READY), 1, MAX_STARTING);
    assert_true(ask_to_exit(kp_handle_port(scene->proxy)));
    assert_in_range(run_to(&run, KP_STATE_EXITED), 1, MAX_STARTING);
    assert_result(KP_ERR_EXITED, run.told);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    run_to(&run, KP_STATE_READY);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_in_range(run_to(&run, KP_STATE_EXITED), 1, MAX_STARTING);
    end(&run);
}

/* ---- Failures in each loop --------------------------------------------------------- */

static void fail_in_each(struct scene *scene, kp_spec spec, kp_result expected)
{
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        struct run run = begin(scene, &hosts[i], spec);
        assert_in_range(run_to(&run, KP_STATE_EXITED), 1, MAX_STARTING);
        assert_result(expected, run.told);
        end(&run);
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
    }
}

/* Its time-out comes through the descriptor. */
static void a_time_out_wakes_each_loop(void **state)
{
    if (left_out_on_posix(__func__))
        return;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 150;
    fail_in_each(*state, spec, KP_ERR_TIMED_OUT);
}

static void an_early_exit_wakes_each_loop(void **state)
{
    if (left_out_on_posix(__func__))
        return;
    fail_in_each(*state, spec_for(FIXTURE("exit", "1")), KP_ERR_EXITED);
}

static void a_stop_while_starting_wakes_each_loop(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        struct run run = begin(scene, &hosts[i], spec_for(FIXTURE("never")));
        assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
        assert_in_range(run_to(&run, KP_STATE_EXITED), 1, MAX_STOPPING);
        end(&run);
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
    }
}

/* A second stop brings the next step nearer: the descriptor must know. */
static void a_nearer_kill_wakes_each_loop(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        kp_spec spec = spec_for(FIXTURE("deaf"));
        spec.stop_grace_ms = 5 * PATIENCE_MS;
        struct run run = begin(scene, &hosts[i], spec);
        run_to(&run, KP_STATE_READY);
        assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
        run.host->wait(run.loop, scene->proxy);
        assert_result(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
        assert_result(KP_OK, kp_handle_stop(scene->proxy, 50));
        run_to(&run, KP_STATE_EXITED);
        end(&run);
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
    }
}

/* What has ended stays readable until it is let go of: here one member ends while another does not.
 */
static void members_that_end_one_by_one_do_not_spin(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    for (size_t i = 0; i < CLOCK; i++) {
        kp_spec spec = spec_for(SHELL("trap '' TERM; sleep 60 & sleep 0.3 & exec \"$0\" serve"));
        spec.stop_grace_ms = 600;
        struct run run = begin(scene, &hosts[i], spec);
        run_to(&run, KP_STATE_READY);
        kill(kp_handle_pid(scene->proxy), SIGKILL);
        /* Under valgrind no descriptor tells of the members: they are looked for by the clock. */
        assert_in_range(run_to(&run, KP_STATE_EXITED), 1,
                        under_valgrind() ? MAX_STARTING : MAX_STOPPING);
        end(&run);
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
    }
}

/* ---- Time ------------------------------------------------------------------------------ */

static void sleep_ns(int64_t ns)
{
    struct timespec rest = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&rest, NULL);
}

/* A host that asks again and again, as one does that has many handles, sees the time pass. */
static void the_time_that_is_left_passes(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    int64_t left = kp_handle_timeout_ns(scene->proxy);
    assert_true(left > 0);
    sleep_ns(left / 2);
    assert_true(kp_handle_timeout_ns(scene->proxy) <= left - left / 2);
    sleep_ns(left);
    assert_int_equal(kp_handle_timeout_ns(scene->proxy), 0);
    assert_result(KP_OK, kp_handle_step(scene->proxy, NULL));
    assert_true(kp_handle_timeout_ns(scene->proxy) > 0);
}

/* ---- When it is readable ------------------------------------------------------------- */

static void it_is_readable_after_start_stop_and_restart(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    struct run run = begin(scene, &hosts[0], spec_for(FIXTURE("serve")));
    assert_true(is_readable(&run));
    run_to(&run, KP_STATE_READY);
    assert_quiet(&run, 0);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_true(is_readable(&run));
    run_to(&run, KP_STATE_EXITED);
    assert_quiet(&run, 0);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_true(is_readable(&run));
}

/* Under valgrind there are no pidfds, and an exit is looked for by the clock. */
static void it_is_quiet_while_nothing_is_due(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    if (left_out_under_valgrind(__func__))
        return;
    struct run run = begin(scene, &hosts[0], spec_for(FIXTURE("serve")));
    run_to(&run, KP_STATE_READY);
    assert_quiet(&run, 200);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    run_to(&run, KP_STATE_EXITED);
    assert_quiet(&run, 200);
}

/* The proxy's own connections are none of the handle's business. */
static void it_is_quiet_under_traffic(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    struct run run = begin(scene, &hosts[0], spec_for(FIXTURE("serve")));
    run_to(&run, KP_STATE_READY);
    assert_quiet(&run, 0);
    for (int i = 0; i < 10; i++)
        assert_true(port_answers(kp_handle_port(scene->proxy)));
    assert_quiet(&run, 20);
}

/* From step to step through a whole start: what a step leaves readable is due. In the first
 * milliseconds the next one may be due by the time that one has looked. */
static void a_step_leaves_it_unreadable(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    struct run run = begin(scene, &hosts[0], spec_for(FIXTURE("late", "100")));
    int wakeups = 0, in_a_row = 0;
    int64_t begun = now_ms();
    while (kp_handle_state(scene->proxy) == KP_STATE_STARTING) {
        assert_true(wait_by_poll(run.loop, scene->proxy));
        assert_true(kp_handle_step(scene->proxy, &scene->error) >= 0);
        in_a_row = is_readable(&run) && now_ms() - begun > 20 ? in_a_row + 1 : 0;
        assert_true(in_a_row < 20);
        assert_true(++wakeups < MAX_STARTING);
    }
}

static void it_is_made_at_the_first_call(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("serve"))));
    struct census before = census_take();
    int fd = kp_handle_fd(scene->proxy);
    assert_true(fd > 2);
    assert_true(census_take().fds > before.fds);
    assert_int_equal(kp_handle_fd(scene->proxy), fd);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

static void it_may_be_made_late(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    get_ready(scene, spec_for(FIXTURE("serve")));
    struct run run = {.scene = scene, .host = &hosts[3]};
    run.loop = open_edge(kp_handle_fd(scene->proxy));
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    run_to(&run, KP_STATE_EXITED);
    assert_result(KP_ERR_EXITED, run.told);
    end(&run);
}

/* Also when the proxy is dead already, or the handle is STOPPING or EXITED. */
static void it_may_be_made_too_late(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    get_ready(scene, spec_for(FIXTURE("serve")));
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    sleep_ms(50);
    struct run run = {.scene = scene, .host = &hosts[3]};
    run.loop = open_edge(kp_handle_fd(scene->proxy));
    run_to(&run, KP_STATE_EXITED);
    end(&run);
    assert_quiet(&run, 50);
}

static void it_may_be_made_while_stopping(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    kp_spec spec = spec_for(FIXTURE("deaf"));
    get_ready(scene, spec);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 100));
    struct run run = {.scene = scene, .host = &hosts[3]};
    run.loop = open_edge(kp_handle_fd(scene->proxy));
    assert_in_range(run_to(&run, KP_STATE_EXITED), 1, MAX_STOPPING);
    end(&run);
}

/* ---- The time-out for hosts that can't watch ------------------------------------------- */

static void the_clock_is_finite_until_the_end(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("slow-stop", "500"))));
    assert_true(kp_handle_timeout_ns(scene->proxy) == 0);
    kp_handle_step(scene->proxy, NULL);
    assert_true(kp_handle_timeout_ns(scene->proxy) >= 0);
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_READY, PATIENCE_MS, NULL));
    kp_handle_step(scene->proxy, NULL);
    assert_true(kp_handle_timeout_ns(scene->proxy) >= 0);
    kp_handle_stop(scene->proxy, -1);
    assert_true(kp_handle_timeout_ns(scene->proxy) == 0);
    kp_handle_step(scene->proxy, NULL);
    assert_true(kp_handle_timeout_ns(scene->proxy) >= 0);
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL));
    assert_true(kp_handle_timeout_ns(scene->proxy) == -1);
}

/* The descriptor tells: nothing has to be looked at in between. */
static void beside_the_descriptor_the_clock_has_little_to_tell(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__) || left_out_under_valgrind(__func__))
        return;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_true(kp_handle_timeout_ns(scene->proxy) >= 0);
    assert_true(kp_handle_fd(scene->proxy) >= 0);
    assert_true(kp_handle_timeout_ns(scene->proxy) == -1);
}

/* Nothing is lost by a host that steps for no reason. */
static void stepping_for_no_reason_is_harmless(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    struct run run = {.scene = scene, .host = &hosts[on_posix() ? CLOCK : 3]};
    run.loop = run.host->open(kp_handle_fd(scene->proxy));
    for (int i = 0; i < 1000; i++)
        assert_result(KP_OK, kp_handle_step(scene->proxy, NULL));
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    run_to(&run, KP_STATE_EXITED);
    end(&run);
}

static void two_handles_in_one_loop(void **state)
{
    struct scene *scene = *state;
    if (left_out_on_posix(__func__))
        return;
    kp_spec spec = spec_for(FIXTURE("late", "50"));
    assert_result(KP_OK, kp_start(&spec, &scene->proxy, NULL));
    assert_result(KP_OK, kp_start(&spec, &scene->second, NULL));
    kp_handle *both[] = {scene->proxy, scene->second};
    int ready = 0;
    for (int wakeups = 0; ready < 2; wakeups++) {
        struct pollfd watched[2] = {{kp_handle_fd(both[0]), POLLIN, 0},
                                    {kp_handle_fd(both[1]), POLLIN, 0}};
        assert_true(poll(watched, 2, PATIENCE_MS) > 0);
        assert_true(wakeups < 2 * MAX_STARTING);
        for (int i = 0; i < 2; i++)
            ready += watched[i].revents != 0 && kp_handle_state(both[i]) == KP_STATE_STARTING &&
                     kp_handle_step(both[i], NULL) == KP_OK;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_life_in_a_poll_loop),
        TEST(a_life_in_a_select_loop),
        TEST(a_life_in_an_epoll_loop),
        TEST(a_life_in_an_edge_triggered_loop),
        TEST(a_life_by_the_clock),
        TEST(a_time_out_wakes_each_loop),
        TEST(an_early_exit_wakes_each_loop),
        TEST(a_stop_while_starting_wakes_each_loop),
        TEST(members_that_end_one_by_one_do_not_spin),
        TEST(the_time_that_is_left_passes),
        TEST(a_nearer_kill_wakes_each_loop),
        TEST(it_is_readable_after_start_stop_and_restart),
        TEST(it_is_quiet_while_nothing_is_due),
        TEST(it_is_quiet_under_traffic),
        TEST(a_step_leaves_it_unreadable),
        TEST(it_is_made_at_the_first_call),
        TEST(it_may_be_made_late),
        TEST(it_may_be_made_too_late),
        TEST(it_may_be_made_while_stopping),
        TEST(the_clock_is_finite_until_the_end),
        TEST_WAY(beside_the_descriptor_the_clock_has_little_to_tell, "blocking", &ways[0]),
        TEST(stepping_for_no_reason_is_harmless),
        TEST(two_handles_in_one_loop),
    };
    return RUN(tests);
}
