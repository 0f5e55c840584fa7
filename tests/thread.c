/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that blocks in the library is like one that sleeps in libc: others see through it up to
 * the host's own function, and it can be cancelled, which loses nothing.
 */
#include "process.h"
#include "support.h"
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/* ---- Seen through ------------------------------------------------------------------ */

/* The host's function has a section of its own, so that its frame is known. */
#define HOST __attribute__((section("host_text"), noinline))
extern const char __start_host_text[], __stop_host_text[];

static atomic_bool host_was_seen;

static void look_up(int signo)
{
    void *frames[64];
    int count, errno_before = errno;
    (void)signo;
    count = backtrace(frames, 64);
    for (int i = 0; i < count; i++) {
        const char *frame = frames[i];
        if (frame >= __start_host_text && frame < __stop_host_text)
            host_was_seen = true;
    }
    errno = errno_before;
}

HOST static kp_result block(kp_handle *handle)
{
    kp_result result = kp_handle_wait(handle, KP_STATE_READY, PATIENCE_MS, NULL);
    return result == KP_OK ? KP_ERR_STATE : result; /* no tail call: it would have no frame */
}

static void *signal_it(void *thread)
{
    while (!host_was_seen) {
        pthread_kill(*(pthread_t *)thread, SIGUSR1);
        sleep_ms(10);
    }
    return NULL;
}

/* A crash report, a profiler and a debugger find their way in the same manner. */
static void a_backtrace_reaches_the_host(void **state)
{
    struct scene *scene = *state;
    void *unused;
    if (left_out_under_valgrind(__func__))
        return;
    backtrace(&unused, 1); /* loads what it needs */
    struct sigaction action = {.sa_handler = look_up}, before;
    sigaction(SIGUSR1, &action, &before);
    host_was_seen = false;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = PATIENCE_MS;
    assert_result(KP_OK, start(scene, spec));
    pthread_t self = pthread_self(), other;
    assert_int_equal(pthread_create(&other, NULL, signal_it, &self), 0);
    kp_result result = KP_AGAIN;
    for (int64_t end = now_ms() + PATIENCE_MS; !host_was_seen && now_ms() < end;)
        result = block(scene->proxy);
    bool was_seen = host_was_seen;
    host_was_seen = true;
    pthread_join(other, NULL);
    sigaction(SIGUSR1, &before, NULL);
    assert_result(KP_AGAIN, result);
    assert_true(was_seen);
}

/* ---- Cancelled --------------------------------------------------------------------- */

/* AddressSanitizer does not see how glibc leaves the frames of a cancelled thread, and takes what
 * lies on the stack there next for theirs, unless it keeps such variables elsewhere. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_stack_use_after_return=1";
}

/* A thread that the test cancels. */
struct victim {
    struct scene *scene;
    void (*body)(struct scene *);
    _Atomic pid_t number;
    bool was_cleaned_up;
    bool went_on; /* behind the call in which it was cancelled */
};

static void clean_up(void *data)
{
    struct victim *victim = data;
    victim->was_cleaned_up = true;
}

static void *live(void *data)
{
    struct victim *victim = data;
    victim->number = gettid();
    pthread_cleanup_push(clean_up, victim);
    victim->body(victim->scene);
    victim->went_on = true;
    pthread_cleanup_pop(0);
    return NULL;
}

static bool is_there(const void *data)
{
    const struct victim *victim = data;
    return victim->number != 0;
}

static void check_cancelled(const struct victim *victim, pthread_t thread)
{
    void *result;
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_true(result == PTHREAD_CANCELED);
    assert_true(victim->was_cleaned_up);
    assert_false(victim->went_on);
}

/* Once it sleeps. */
static void cancel(void (*body)(struct scene *), struct scene *scene)
{
    struct victim victim = {.scene = scene, .body = body};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, live, &victim), 0);
    assert_true(eventually(is_there, &victim) && eventually_asleep(victim.number));
    assert_int_equal(pthread_cancel(thread), 0);
    check_cancelled(&victim, thread);
}

static void spawn_in_vain(struct scene *scene)
{
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 3 * PATIENCE_MS;
    kp_spawn(&spec, &scene->proxy, NULL);
}

/* If there were anything, the census would find it. */
static void a_cancelled_spawn_leaves_nothing(void **state)
{
    struct scene *scene = *state;
    cancel(spawn_in_vain, scene);
    assert_null(scene->proxy);
}

static void wait_in_vain(struct scene *scene)
{
    kp_handle_wait(scene->proxy, KP_STATE_EXITED, 3 * PATIENCE_MS, NULL);
}

static void a_cancelled_wait_leaves_the_handle(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    struct census before = census_take();
    cancel(wait_in_vain, scene);
    assert_string_equal(census_leaks(&before), "");
    assert_result(KP_OK, kp_handle_step(scene->proxy, NULL));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
}

/* To sleep between the steps would be a place to be cancelled at. */
static void lead_a_life(struct scene *scene)
{
    kp_spec spec = spec_for(FIXTURE("serve"));
    pthread_cancel(pthread_self());
    CHECK(kp_start(&spec, &scene->proxy, NULL) == KP_OK);
    CHECK(kp_handle_fd(scene->proxy) >= 0 || on_posix());
    for (int64_t end = now_ms() + PATIENCE_MS; kp_handle_state(scene->proxy) != KP_STATE_READY;) {
        CHECK(kp_handle_step(scene->proxy, NULL) >= KP_OK);
        CHECK(now_ms() < end);
    }
    CHECK(kp_handle_stop(scene->proxy, -1) == KP_OK);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    pthread_testcancel();
}

/* What is half done is no place for it, and the end of a proxy is none either. */
static void no_other_call_is_cancelled(void **state)
{
    struct scene *scene = *state;
    struct victim victim = {.scene = scene, .body = lead_a_life};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, live, &victim), 0);
    check_cancelled(&victim, thread);
    assert_null(scene->proxy);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_backtrace_reaches_the_host),
        TEST(a_cancelled_spawn_leaves_nothing),
        TEST(a_cancelled_wait_leaves_the_handle),
        TEST(no_other_call_is_cancelled),
    };
    return RUN(tests);
}
