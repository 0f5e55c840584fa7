/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host with a clock of its own, as faketime(1) gives it: the kernel, by which timers go, knows
 * nothing of it. Time passes on both at the same rate.
 */
#include "support.h"
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static time_t offset;

/* The library's calls of it come here. */
int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    time->tv_sec += offset;
    return result;
}

enum { FIFTY_YEARS = 50 * 365 * 86400 };

/* Each wait of it is one that ends by time alone. */
static void live(struct scene *scene)
{
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 100;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    spec = spec_for(FIXTURE("deaf"));
    spec.stop_grace_ms = 100;
    get_ready(scene, spec);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    int signal_number = 0;
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, &signal_number), 1);
    assert_int_equal(signal_number, 9);
}

static void a_clock_that_is_ahead(void **state)
{
    offset = FIFTY_YEARS;
    live(*state);
    offset = 0;
}

static void a_clock_that_is_behind(void **state)
{
    offset = -FIFTY_YEARS;
    live(*state);
    offset = 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        EACH_WAY(a_clock_that_is_ahead),
        EACH_WAY(a_clock_that_is_behind),
    };
    return RUN(tests);
}
