/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of stepping and waiting, state by state. */
#include "process.h"
#include "support.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

static void assert_state(const struct scene *scene, kp_state expected)
{
    assert_int_equal(kp_handle_state(scene->proxy), expected);
}

enum { OFTEN = 100 };

static void step_often(struct scene *scene, kp_result expected, kp_state stays)
{
    error_fill(&scene->error);
    for (int i = 0; i < OFTEN; i++) {
        assert_result(expected, kp_handle_step(scene->proxy, &scene->error));
        assert_state(scene, stays);
    }
    assert_true(error_untouched(&scene->error));
}

/* Long enough for all that is asserted meanwhile. */
static kp_spec with_a_long_grace(void)
{
    kp_spec spec = spec_for(NULL);
    spec.stop_grace_ms = PATIENCE_MS;
    return spec;
}

/* ---- Stepping -------------------------------------------------------------- */

static void a_step_says_again_while_starting(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    step_often(scene, KP_AGAIN, KP_STATE_STARTING);
}

static void a_step_says_ok_while_ready(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    step_often(scene, KP_OK, KP_STATE_READY);
}

static void a_step_says_again_while_stopping(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = with_a_long_grace();
    spec.argv = FIXTURE("deaf");
    get_ready(scene, spec);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_state(scene, KP_STATE_STOPPING);
    step_often(scene, KP_AGAIN, KP_STATE_STOPPING);
}

static void a_step_says_ok_after_the_end(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    kp_handle_stop(scene->proxy, -1);
    get_exited(scene);
    step_often(scene, KP_OK, KP_STATE_EXITED);
}

/* ---- Failures --------------------------------------------------------------- */

/* After a failure was told: no step tells it again, and EXITED comes. */
static void assert_told_once(struct scene *scene)
{
    kp_error again;
    assert_true(kp_handle_state(scene->proxy) >= KP_STATE_STOPPING);
    assert_result(KP_OK, step_until_told(scene, &again));
    assert_state(scene, KP_STATE_EXITED);
    step_often(scene, KP_OK, KP_STATE_EXITED);
}

static void a_failed_start_is_told_once(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("exit", "5"))));
    assert_result(KP_ERR_EXITED, step_until_told(scene, &scene->error));
    assert_int_equal(scene->error.code, KP_ERR_EXITED);
    assert_int_equal(scene->error.exit_code, 5);
    assert_told_once(scene);
}

static void a_time_out_is_told_once(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 50;
    assert_result(KP_OK, start(scene, spec));
    assert_result(KP_ERR_TIMED_OUT, step_until_told(scene, &scene->error));
    assert_state(scene, KP_STATE_STOPPING);
    assert_told_once(scene);
}

static void an_exit_while_ready_is_told_once(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("exit-when-asked", "3")));
    assert_true(ask_to_exit(kp_handle_port(scene->proxy)));
    assert_result(KP_ERR_EXITED, step_until_told(scene, &scene->error));
    assert_int_equal(scene->error.code, KP_ERR_EXITED);
    assert_int_equal(scene->error.exit_code, 3);
    assert_true(scene->error.message[0] != '\0');
    assert_told_once(scene);
}

/* Its "did not bind" would be a lie. */
static void a_proxy_that_was_ready_did_bind(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("exit-when-asked", "3")));
    assert_true(ask_to_exit(kp_handle_port(scene->proxy)));
    assert_result(KP_ERR_EXITED, step_until_told(scene, &scene->error));
    assert_null(strstr(scene->error.message, "did not bind"));
    assert_contains(scene->error.message, "exited with status 3");
}

/* Asked for, so no failure. */
static void a_stop_while_starting_is_no_failure(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_state(scene, KP_STATE_STOPPING);
    assert_result(KP_OK, step_until_told(scene, &scene->error));
    assert_state(scene, KP_STATE_EXITED);
}

static void a_stop_while_ready_is_no_failure(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_OK, step_until_told(scene, &scene->error));
    assert_state(scene, KP_STATE_EXITED);
}

/* The start's time-out does not go on while the proxy stops. */
static void a_start_that_is_being_stopped_does_not_time_out(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(SHELL("trap '' TERM; exec \"$0\" never"));
    spec.startup_timeout_ms = 300;
    assert_result(KP_OK, start(scene, spec));
    sleep_ms(100);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 500));
    assert_result(KP_OK, step_until_told(scene, &scene->error));
    assert_state(scene, KP_STATE_EXITED);
}

/* ---- Waiting ----------------------------------------------------------------- */

static void only_two_states_can_be_waited_for(void **state)
{
    struct scene *scene = *state;
    static const kp_state others[] = {KP_STATE_STARTING, KP_STATE_STOPPING, 0, 5, -1};
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        error_fill(&scene->error);
        assert_result(KP_ERR_INVALID, kp_handle_wait(scene->proxy, others[i], 0, &scene->error));
        assert_int_equal(scene->error.code, KP_ERR_INVALID);
        assert_true(scene->error.message[0] != '\0');
    }
    assert_state(scene, KP_STATE_STARTING);
}

static void times_that_make_no_sense(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    assert_result(KP_ERR_INVALID, kp_handle_wait(scene->proxy, KP_STATE_READY, -2, &scene->error));
    assert_contains(scene->error.message, "-2");
    assert_result(KP_ERR_INVALID, kp_handle_stop(scene->proxy, -2));
    assert_state(scene, KP_STATE_STARTING);
}

static void what_has_passed_can_not_be_waited_for(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = with_a_long_grace();
    spec.argv = FIXTURE("deaf");
    get_ready(scene, spec);
    kp_handle_stop(scene->proxy, -1);
    assert_result(KP_ERR_STATE, kp_handle_wait(scene->proxy, KP_STATE_READY, -1, &scene->error));
    assert_int_equal(scene->error.code, KP_ERR_STATE);
    assert_state(scene, KP_STATE_STOPPING);
    kp_handle_stop(scene->proxy, 0);
    get_exited(scene);
    assert_result(KP_ERR_STATE, kp_handle_wait(scene->proxy, KP_STATE_READY, -1, &scene->error));
    assert_state(scene, KP_STATE_EXITED);
}

static void what_is_reached_is_not_waited_for(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_READY, -1, &scene->error));
    kp_handle_stop(scene->proxy, -1);
    get_exited(scene);
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, &scene->error));
}

static void waiting_for_ready_returns_the_failure(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("exit", "5"))));
    assert_result(KP_ERR_EXITED, kp_handle_wait(scene->proxy, KP_STATE_READY, -1, &scene->error));
    assert_int_equal(scene->error.exit_code, 5);
    assert_told_once(scene);
}

static void waiting_for_the_end_goes_on_through_a_failure(void **state)
{
    struct scene *scene = *state;
    int exit_code = 0;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("exit", "5"))));
    error_fill(&scene->error);
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, &scene->error));
    assert_true(error_untouched(&scene->error));
    assert_int_equal(kp_handle_exit_status(scene->proxy, &exit_code, NULL), 1);
    assert_int_equal(exit_code, 5);
}

static void waiting_for_the_end_of_a_ready_proxy(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("exit-when-asked", "3")));
    assert_true(ask_to_exit(kp_handle_port(scene->proxy)));
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, NULL));
    assert_state(scene, KP_STATE_EXITED);
}

static void out_of_time(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("never"));
    assert_result(KP_OK, start(scene, spec));
    error_fill(&scene->error);
    int64_t begin = now_ms();
    assert_result(KP_AGAIN, kp_handle_wait(scene->proxy, KP_STATE_READY, 60, &scene->error));
    assert_true(now_ms() - begin >= 60);
    assert_result(KP_AGAIN, kp_handle_wait(scene->proxy, KP_STATE_EXITED, 60, &scene->error));
    assert_true(now_ms() - begin >= 120);
    assert_true(error_untouched(&scene->error));
    assert_state(scene, KP_STATE_STARTING);
}

/* Between steps the functions that look tell what the last one found. */
static void no_time_at_all_looks_afresh(void **state)
{
    struct scene *scene = *state;
    int signal_number = 0;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_result(KP_AGAIN, kp_handle_wait(scene->proxy, KP_STATE_EXITED, 0, NULL));
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    assert_true(eventually_gone(kp_handle_pid(scene->proxy)));
    assert_state(scene, KP_STATE_READY);
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, NULL), 0);
    assert_true(kp_handle_wait(scene->proxy, KP_STATE_EXITED, 0, NULL) >= KP_OK);
    assert_true(kp_handle_state(scene->proxy) > KP_STATE_READY);
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, &signal_number), 1);
    assert_int_equal(signal_number, SIGKILL);
}

/* A wait steps at least once, and so finds out that what it waits for is over. */
static void waiting_for_ready_finds_the_exit(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    assert_true(eventually_gone(kp_handle_pid(scene->proxy)));
    assert_result(KP_ERR_EXITED, kp_handle_wait(scene->proxy, KP_STATE_READY, 0, &scene->error));
    assert_int_equal(scene->error.term_signal, SIGKILL);
}

/* ---- Signals of the host's ---------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void count_alarm(int signal_number)
{
    (void)signal_number;
    alarms++;
}

static kp_result wait_with_an_alarm(struct scene *scene, kp_state until, int flags)
{
    struct sigaction old, counting = {.sa_handler = count_alarm, .sa_flags = flags};
    struct itimerval timer = {.it_value = {0, 60000}}, off = {{0, 0}, {0, 0}};
    alarms = 0;
    sigaction(SIGALRM, &counting, &old);
    setitimer(ITIMER_REAL, &timer, NULL);
    kp_result result = kp_handle_wait(scene->proxy, until, PATIENCE_MS, &scene->error);
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &old, NULL);
    alarm(60);
    return result;
}

static void assert_ended_by_an_alarm(struct scene *scene, kp_state until, int flags)
{
    int64_t begin = now_ms();
    error_fill(&scene->error);
    assert_result(KP_AGAIN, wait_with_an_alarm(scene, until, flags));
    assert_int_equal(alarms, 1);
    assert_true(now_ms() - begin < PATIENCE_MS);
    assert_true(error_untouched(&scene->error));
}

static void a_handler_ends_the_wait(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("late", "1000"));
    spec.startup_timeout_ms = 2 * PATIENCE_MS;
    assert_result(KP_OK, start(scene, spec));
    assert_ended_by_an_alarm(scene, KP_STATE_READY, 0);
    assert_state(scene, KP_STATE_STARTING);
    assert_ended_by_an_alarm(scene, KP_STATE_READY, SA_RESTART);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_ended_by_an_alarm(scene, KP_STATE_EXITED, SA_RESTART);
    assert_state(scene, KP_STATE_READY);
}

static void a_handler_ends_the_wait_for_a_stop(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = with_a_long_grace();
    spec.argv = FIXTURE("deaf");
    get_ready(scene, spec);
    kp_handle_stop(scene->proxy, -1);
    assert_ended_by_an_alarm(scene, KP_STATE_EXITED, 0);
    assert_state(scene, KP_STATE_STOPPING);
}

static volatile sig_atomic_t waits, too_early;

static void count_in_time(int signal_number)
{
    count_alarm(signal_number);
    too_early |= !waits;
}

/* Whatever the library is doing when it comes. The wait is many times longer than it takes. (That
 * of a process that did not run meanwhile may not even have begun.) */
static void no_handler_slips_through(void **state)
{
    struct scene *scene = *state;
    struct sigaction old, counting = {.sa_handler = count_in_time};
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 10 * PATIENCE_MS;
    assert_result(KP_OK, start(scene, spec));
    int slipped = 0, seen = 0;
    alarms = 0;
    sigaction(SIGALRM, &counting, &old);
    for (int i = 0; i < 150; i++) {
        struct itimerval once = {.it_value = {0, 500 + i * 7919 % 10000}};
        int64_t begin = now_ms();
        waits = too_early = false;
        setitimer(ITIMER_REAL, &once, NULL);
        waits = true;
        kp_result result = kp_handle_wait(scene->proxy, KP_STATE_READY, 1000, NULL);
        slipped += result != KP_AGAIN || (now_ms() - begin >= 1000 && !too_early);
        seen += !too_early;
    }
    sigaction(SIGALRM, &old, NULL);
    alarm(60);
    assert_int_equal(alarms, 150);
    assert_int_equal(slipped, 0);
    assert_true(seen > 100);
}

/* ---- Looking -------------------------------------------------------------------- */

static void the_exit_status_is_not_yet(void **state)
{
    struct scene *scene = *state;
    int exit_code = 77, signal_number = 77;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_int_equal(kp_handle_exit_status(scene->proxy, &exit_code, &signal_number), 0);
    assert_int_equal(exit_code, 77);
    assert_int_equal(signal_number, 77);
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, NULL), 0);
}

static void assert_exit_status(const struct scene *scene, int exit_code, int signal_number)
{
    int found_code = 77, found_signal = 77;
    assert_int_equal(kp_handle_exit_status(scene->proxy, &found_code, &found_signal), 1);
    assert_int_equal(found_code, exit_code);
    assert_int_equal(found_signal, signal_number);
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, NULL), 1);
}

static void the_exit_status_of_an_exit(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("exit", "255"))));
    get_exited(scene);
    assert_exit_status(scene, 255, 0);
}

static void the_exit_status_of_a_killed_proxy(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("kill-self", "10"))));
    get_exited(scene);
    assert_exit_status(scene, -1, SIGUSR1);
}

static void what_does_not_change_over_the_end(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    pid_t pid = kp_handle_pid(scene->proxy);
    uint16_t port = kp_handle_port(scene->proxy);
    const char *url = kp_handle_url(scene->proxy);
    kp_handle_stop(scene->proxy, -1);
    get_exited(scene);
    assert_int_equal(kp_handle_pid(scene->proxy), pid);
    assert_int_equal(kp_handle_port(scene->proxy), port);
    assert_ptr_equal(kp_handle_url(scene->proxy), url);
}

/* ---- What is not possible in a state ---------------------------------------------- */

static void assert_no_restart(struct scene *scene)
{
    kp_state before = kp_handle_state(scene->proxy);
    error_fill(&scene->error);
    assert_result(KP_ERR_STATE, kp_handle_restart(scene->proxy, &scene->error));
    assert_int_equal(scene->error.code, KP_ERR_STATE);
    assert_true(scene->error.message[0] != '\0');
    assert_state(scene, before);
}

static void a_restart_needs_the_end(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = with_a_long_grace();
    spec.argv = FIXTURE("deaf");
    assert_result(KP_OK, start(scene, spec));
    assert_no_restart(scene);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_no_restart(scene);
    kp_handle_stop(scene->proxy, -1);
    assert_no_restart(scene);
}

static void a_stop_is_always_possible(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    assert_state(scene, KP_STATE_EXITED);
}

/* ---- No handle ---------------------------------------------------------------------- */

static void no_handle_can_be_driven(void **state)
{
    struct scene *scene = *state;
    kp_error *error = &scene->error;
    assert_result(KP_ERR_INVALID, kp_handle_step(NULL, error));
    assert_int_equal(error->code, KP_ERR_INVALID);
    assert_true(error->message[0] != '\0');
    error_fill(error);
    assert_result(KP_ERR_INVALID, kp_handle_wait(NULL, KP_STATE_READY, -1, error));
    assert_int_equal(error->code, KP_ERR_INVALID);
    error_fill(error);
    assert_result(KP_ERR_INVALID, kp_handle_restart(NULL, error));
    assert_int_equal(error->code, KP_ERR_INVALID);
    assert_result(KP_ERR_INVALID, kp_handle_step(NULL, NULL));
    assert_result(KP_ERR_INVALID, kp_handle_stop(NULL, -1));
}

static void no_handle_can_be_looked_at(void **state)
{
    (void)state;
    assert_int_equal(kp_handle_state(NULL), 0);
    assert_int_equal(kp_handle_port(NULL), 0);
    assert_int_equal(kp_handle_pid(NULL), 0);
    assert_string_equal(kp_handle_url(NULL), "");
    assert_int_equal(kp_handle_exit_status(NULL, NULL, NULL), 0);
    assert_int_equal(kp_handle_fd(NULL), -1);
    assert_true(kp_handle_timeout_ns(NULL) == -1);
    kp_handle_detach(NULL);
    kp_handle_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(a_step_says_again_while_starting),
        EACH_WAY(a_step_says_ok_while_ready),
        EACH_WAY(a_step_says_again_while_stopping),
        EACH_WAY(a_step_says_ok_after_the_end),
        EACH_WAY(a_failed_start_is_told_once),
        EACH_WAY(a_time_out_is_told_once),
        EACH_WAY(an_exit_while_ready_is_told_once),
        TEST(a_proxy_that_was_ready_did_bind),
        EACH_WAY(a_stop_while_starting_is_no_failure),
        EACH_WAY(a_stop_while_ready_is_no_failure),
        TEST(a_start_that_is_being_stopped_does_not_time_out),
        TEST(only_two_states_can_be_waited_for),
        TEST(times_that_make_no_sense),
        TEST(what_has_passed_can_not_be_waited_for),
        TEST(what_is_reached_is_not_waited_for),
        TEST(waiting_for_ready_returns_the_failure),
        TEST(waiting_for_the_end_goes_on_through_a_failure),
        TEST(waiting_for_the_end_of_a_ready_proxy),
        TEST(out_of_time),
        TEST(no_time_at_all_looks_afresh),
        TEST(waiting_for_ready_finds_the_exit),
        TEST(no_handler_slips_through),
        TEST(a_handler_ends_the_wait),
        TEST(a_handler_ends_the_wait_for_a_stop),
        TEST(the_exit_status_is_not_yet),
        EACH_WAY(the_exit_status_of_an_exit),
        EACH_WAY(the_exit_status_of_a_killed_proxy),
        EACH_WAY(what_does_not_change_over_the_end),
        TEST(a_restart_needs_the_end),
        EACH_WAY(a_stop_is_always_possible),
        TEST(no_handle_can_be_driven),
        TEST(no_handle_can_be_looked_at),
    };
    return RUN(tests);
}
