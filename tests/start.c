/* SPDX-License-Identifier: Apache-2.0 */
/* Starting: what is ready, when, and with which defaults. */
#include "process.h"
#include "support.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

static const kp_spec nothing_set = {.size = sizeof(kp_spec)};

static long ephemeral_range(int which)
{
    char text[64];
    long bounds[2] = {0, 65535};
    file_read("/proc/sys/net/ipv4/ip_local_port_range", text, sizeof text);
    sscanf(text, "%ld %ld", &bounds[0], &bounds[1]);
    return bounds[which];
}

struct variable {
    pid_t pid;
    const char *entry;
};

/* Not before it has executed its program. */
static bool has_variable(const void *data)
{
    const struct variable *variable = data;
    return process_has_variable(variable->pid, variable->entry);
}

/* No environment of its own, an ephemeral port, five seconds to start. */
static void new_sets_defaults(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = nothing_set;
    spec.argv = FIXTURE("never");
    int64_t begin = now_ms();
    assert_result(KP_OK, start(scene, spec));
    assert_in_range(kp_handle_port(scene->proxy), ephemeral_range(0), ephemeral_range(1));
    char entry[64];
    snprintf(entry, sizeof entry, KP_PORT_ENV "=%u", kp_handle_port(scene->proxy));
    const struct variable variable = {kp_handle_pid(scene->proxy), entry};
    assert_true(eventually(has_variable, &variable));
    assert_true(process_has_variable(kp_handle_pid(scene->proxy), scene->before.mark));
    assert_result(KP_ERR_TIMED_OUT, reach(scene, KP_STATE_READY));
    assert_true(now_ms() - begin >= 5000);
    const char *told = strstr(scene->error.message, "timed out after ");
    double seconds = 0;
    assert_true(told != NULL && sscanf(told, "timed out after %lf s", &seconds) == 1);
    assert_true(seconds >= 5 && seconds < 8); /* what it took on a busy machine */
}

static void empty_command_errors(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_INVALID, kp_spawn(&nothing_set, &scene->proxy, &scene->error));
    assert_string_equal(scene->error.message, "command must not be empty");
}

/* It exits without having bound its port: told at once, not at the time-out. */
static void unbound_command_errors(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = nothing_set;
    spec.argv = WORDS("true");
    spec.startup_timeout_ms = PATIENCE_MS;
    assert_result(KP_ERR_EXITED, spawn(scene, spec));
    assert_null(scene->proxy);
    assert_contains(scene->error.message, "did not bind");
}

static void an_exit_is_told_at_once(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("exit", "7"));
    spec.startup_timeout_ms = 60000;
    int64_t begin = now_ms();
    assert_result(KP_ERR_EXITED, spawn(scene, spec));
    assert_true(now_ms() - begin < PATIENCE_MS);
    assert_int_equal(scene->error.exit_code, 7);
}

static void a_ready_proxy_answers(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
}

static void a_late_proxy_is_waited_for(void **state)
{
    struct scene *scene = *state;
    int64_t begin = now_ms();
    get_ready(scene, spec_for(FIXTURE("late", "150")));
    assert_true(now_ms() - begin >= 150);
    assert_true(port_answers(kp_handle_port(scene->proxy)));
}

static void a_proxy_that_never_binds_times_out(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 200;
    int64_t begin = now_ms();
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
    assert_true(now_ms() - begin >= 200);
    assert_null(scene->proxy);
}

/* The same through kp_spawn, kp_start and kp_handle_wait: one more way to block. */
static void start_and_wait_is_spawn(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("late", "50"));
    assert_result(KP_OK, kp_start(&spec, &scene->proxy, NULL));
    assert_result(KP_OK, kp_handle_wait(scene->proxy, KP_STATE_READY, -1, NULL));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
}

static void start_returns_at_once_and_a_step_is_due(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_STARTING);
    assert_true(kp_handle_timeout_ns(scene->proxy) == 0);
    assert_true(kp_handle_pid(scene->proxy) > 1);
}

static void the_url_names_the_port(void **state)
{
    struct scene *scene = *state;
    char url[64];
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("never"))));
    snprintf(url, sizeof url, "http://127.0.0.1:%u", kp_handle_port(scene->proxy));
    assert_string_equal(kp_handle_url(scene->proxy), url);
}

static void two_proxies_have_two_ports(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    assert_result(KP_OK, kp_spawn(&spec, &scene->proxy, NULL));
    assert_result(KP_OK, kp_spawn(&spec, &scene->second, NULL));
    assert_int_not_equal(kp_handle_port(scene->proxy), kp_handle_port(scene->second));
    assert_true(port_answers(kp_handle_port(scene->proxy)));
    assert_true(port_answers(kp_handle_port(scene->second)));
}

/* ---- The library keeps a copy of all that it needs ----------------------- */

static char *copy_of(const char *text)
{
    char *copy = strdup(text);
    assert_non_null(copy);
    return copy;
}

static void spoil(char *text)
{
    memset(text, 'x', strlen(text));
    free(text);
}

/* Starts a proxy from a spec that is gone before the proxy is ready. */
static void start_from_a_passing_spec(struct scene *scene)
{
    char *text[] = {copy_of(fixture()), copy_of("late"),     copy_of("50"),
                    copy_of("A=1"),     copy_of(scene->dir), copy_of("KODA_OTHER_PORT"),
                    copy_of("host"),    copy_of("/ca.pem")};
    char *argv[] = {text[0], text[1], text[2], NULL}, *env[] = {text[3], NULL};
    kp_spec spec = spec_for(argv);
    char *name = copy_of("FIXTURE_PORT_ENV=KODA_OTHER_PORT"), *all_env[] = {env[0], name, NULL};
    spec.env = all_env;
    spec.cwd = text[4];
    spec.port_env = text[5];
    spec.no_proxy = text[6];
    spec.ca_bundle = text[7];
    assert_result(KP_OK, start(scene, spec));
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        spoil(text[i]);
    spoil(name);
    memset(argv, 0, sizeof argv);
    memset(all_env, 0, sizeof all_env);
    memset(&spec, 0xff, sizeof spec);
}

static void the_spec_may_be_freed_after_the_call(void **state)
{
    struct scene *scene = *state;
    char *nothing[] = {NULL};
    start_from_a_passing_spec(scene);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    char **env = kp_env_new(scene->proxy, nothing);
    assert_string_equal(env[1], "CURL_CA_BUNDLE=/ca.pem");
    assert_string_equal(env[5], "NO_PROXY=host");
    kp_env_free(env);
    kp_handle_stop(scene->proxy, 0);
    get_exited(scene);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
}

/* ---- Time-outs at their ends --------------------------------------------- */

static void the_longest_times_do_not_overflow(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("late", "20"));
    spec.startup_timeout_ms = UINT32_MAX;
    spec.stop_grace_ms = UINT32_MAX;
    get_ready(scene, spec);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
}

static void the_shortest_time_out(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.startup_timeout_ms = 1;
    assert_result(KP_ERR_TIMED_OUT, spawn(scene, spec));
}

/* ---- Signals, threads ---------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void count_alarm(int signal_number)
{
    (void)signal_number;
    alarms++;
}

static void tick(long microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Without SA_RESTART, so that every system call that can fail with EINTR does. */
static void handlers_do_not_end_spawn_and_free(void **state)
{
    struct scene *scene = *state;
    struct sigaction old, counting = {.sa_handler = count_alarm};
    kp_spec spec = spec_for(FIXTURE("late", "100"));
    alarms = 0;
    sigaction(SIGALRM, &counting, &old);
    tick(2000);
    kp_result result = kp_spawn(&spec, &scene->proxy, &scene->error);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    tick(0);
    signal(SIGALRM, SIG_IGN); /* drops one that is on its way */
    sigaction(SIGALRM, &old, NULL);
    alarm(60);
    assert_result(KP_OK, result);
    assert_true(alarms > 1);
}

enum { THREADS = 4, ROUNDS = 5 };

static void *run_proxies(void *failures)
{
    kp_spec spec = spec_for(FIXTURE("serve"));
    for (int i = 0; i < ROUNDS; i++) {
        kp_handle *proxy;
        if (kp_spawn(&spec, &proxy, NULL) != KP_OK || !port_answers(kp_handle_port(proxy)))
            ++*(int *)failures;
        kp_handle_free(proxy);
    }
    return NULL;
}

static void threads_with_handles_of_their_own(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    int failures[THREADS] = {0};
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_proxies, &failures[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(failures[i], 0);
}

static void *look_on(void *proxy)
{
    uintptr_t wrong = 0;
    for (int i = 0; i < 2000; i++) {
        char **env = kp_env_new(proxy, NULL);
        wrong += strncmp(kp_handle_url(proxy), "http://127.0.0.1:", 17) != 0;
        wrong += kp_handle_port(proxy) == 0 || env == NULL;
        kp_env_free(env);
    }
    return (void *)wrong;
}

/* Children are started while the proxy is restarted. */
static void threads_may_look_while_it_restarts(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    pthread_t looker;
    void *wrong;
    assert_int_equal(pthread_create(&looker, NULL, look_on, scene->proxy), 0);
    kp_result result = KP_OK;
    for (int i = 0; i < 20 && result == KP_OK; i++) {
        kp_handle_stop(scene->proxy, 0);
        kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL);
        result = kp_handle_restart(scene->proxy, &scene->error);
    }
    assert_int_equal(pthread_join(looker, &wrong), 0);
    assert_result(KP_OK, result);
    assert_null(wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(new_sets_defaults),
        TEST(empty_command_errors),
        EACH_WAY(unbound_command_errors),
        EACH_WAY(an_exit_is_told_at_once),
        EACH_WAY(a_ready_proxy_answers),
        EACH_WAY(a_late_proxy_is_waited_for),
        EACH_WAY(a_proxy_that_never_binds_times_out),
        TEST(start_and_wait_is_spawn),
        TEST(start_returns_at_once_and_a_step_is_due),
        TEST(the_url_names_the_port),
        TEST(two_proxies_have_two_ports),
        EACH_WAY(the_spec_may_be_freed_after_the_call),
        EACH_WAY(the_longest_times_do_not_overflow),
        EACH_WAY(the_shortest_time_out),
        TEST(handlers_do_not_end_spawn_and_free),
        TEST(threads_with_handles_of_their_own),
        TEST(threads_may_look_while_it_restarts),
    };
    return RUN(tests);
}
