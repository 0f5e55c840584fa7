/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts that have their proxies in threads: in one that ends, in many at once, in small ones. */
#include "life.h"
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- A thread that ends --------------------------------------------------------------- */

static void *start_it(void *scene)
{
    struct scene *it = scene;
    kp_spec spec = marked(it, FIXTURE("late", "500"));
    CHECK(start(it, spec) == KP_OK);
    CHECK(kp_handle_step(it->proxy, NULL) == KP_AGAIN);
    return NULL;
}

static void *see_it_ready(void *scene)
{
    struct scene *it = scene;
    CHECK(go_on(it, KP_STATE_READY) == KP_OK);
    return NULL;
}

static void *stop_it(void *scene)
{
    struct scene *it = scene;
    CHECK(kp_handle_stop(it->proxy, -1) == KP_OK);
    CHECK(kp_handle_step(it->proxy, NULL) >= KP_OK);
    return NULL;
}

static void in_a_thread(void *(*body)(void *), struct scene *scene)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, body, scene) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* The host asks for a signal at its own parent's death: that is not handed on, and a thread's end
 * is nobody's death. */
static void live_in_threads_that_end(struct scene *scene)
{
    witness(scene);
    CHECK(prctl(PR_SET_PDEATHSIG, SIGTERM) == 0);
    in_a_thread(start_it, scene);
    in_a_thread(see_it_ready, scene);
    sleep_ms(50);
    CHECK(kp_handle_step(scene->proxy, &scene->error) == KP_OK);
    CHECK(answers(kp_handle_port(scene->proxy)));
    in_a_thread(stop_it, scene);
    be_exited(scene);
    check_exit(scene, -1, SIGTERM);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    in_a_thread(see_it_ready, scene);
    free_proxy(scene);
    check_witness(scene);
}

static void the_thread_that_started_it_ends(void **state)
{
    run_host(live_in_threads_that_end, *state, __func__);
}

/* ---- A main thread that ends ------------------------------------------------------------- */

/* What /proc then tells of the process as a whole is little: not what it hides, nor its own
 * descriptors. The host itself is who sits on the port. */
static void *see_who_listens(void *data)
{
    struct scene *scene = data;
    kp_spec spec = marked(scene, WORDS("sleep", "60"));
    sleep_ms(100); /* the main thread is gone by then */
    spec.port = free_port();
    spec.flags = KP_SPEC_NO_RESERVE;
    CHECK_RESULT(KP_OK, start(scene, spec));
    int fd = bind_socket("127.0.0.1", (uint16_t)spec.port, BIND_REUSEADDR | BIND_LISTEN);
    CHECK(fd >= 0);
    CHECK_RESULT(KP_ERR_FOREIGN_LISTENER, go_on(scene, KP_STATE_READY));
    close(fd);
    free_proxy(scene);
    spec = marked(scene, WORDS("/bin/sh", "-c", "echo words; exit 1"));
    spec.log_fd = open(scene_path(scene, "log"), O_WRONLY);
    CHECK(spec.log_fd > 0);
    CHECK_RESULT(KP_ERR_EXITED, begin(scene, spec));
    CHECK(strcmp(scene->error.output, "words") == 0);
    exit(0);
}

/* Not as root, from whom /proc hides nothing anyhow. */
static void end_the_main_thread(struct scene *scene)
{
    pthread_t thread;
    file_write(scene_path(scene, "log"), "", 0666);
    CHECK(chmod(scene_path(scene, "log"), 0666) == 0 && chmod(scene->dir, 0755) == 0);
    CHECK(getuid() != 0 || become_somebody());
    CHECK(pthread_create(&thread, NULL, see_who_listens, scene) == 0);
    pthread_exit(NULL);
}

static void the_main_thread_ends(void **state)
{
    if (!left_out_under_valgrind(__func__))
        run_host(end_the_main_thread, *state, __func__);
}

/* ---- Many at once ------------------------------------------------------------------------ */

enum { THREADS = 16, PROXIES = 3 };

static void live_several_at_once(struct scene *scene)
{
    struct scene each[PROXIES];
    for (int i = 0; i < PROXIES; i++) {
        each[i] = *scene;
        kp_result result = start(&each[i], marked(scene, FIXTURE("workers", "1")));
        check_result_at(&each[i], KP_OK, result, __FILE__, __LINE__);
    }
    for (int i = 0; i < PROXIES; i++)
        CHECK(go_on(&each[i], KP_STATE_READY) == KP_OK);
    for (int i = 0; i < PROXIES; i++)
        CHECK(kp_handle_stop(each[i].proxy, -1) == KP_OK);
    for (int i = 0; i < PROXIES; i++)
        be_exited(&each[i]);
    for (int i = 0; i < PROXIES; i++)
        free_proxy(&each[i]);
}

static void *live_all_lives(void *scene)
{
    live_several_at_once(scene);
    lead_every_life(scene);
    return NULL;
}

static void *live_several_times(void *scene)
{
    for (int i = 0; i < 4; i++)
        live_several_at_once(scene);
    return NULL;
}

/* Each thread has a scene and a way of its own. */
static void in_many_threads(void *(*body)(void *), const struct scene *scene)
{
    struct scene *scenes = calloc(THREADS, sizeof *scenes);
    pthread_t threads[THREADS];
    CHECK(scenes != NULL);
    for (int i = 0; i < THREADS; i++) {
        scenes[i] = *scene;
        scenes[i].way = &ways[i % 4];
        CHECK(pthread_create(&threads[i], NULL, body, &scenes[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    free(scenes);
}

static void live_in_sixteen_threads(struct scene *scene)
{
    witness(scene);
    in_many_threads(live_all_lives, scene);
    check_witness(scene);
}

static void sixteen_threads_live_at_once(void **state)
{
    run_host(live_in_sixteen_threads, *state, __func__);
}

static void *reap_any(void *unused)
{
    for (;;)
        if (waitpid(-1, NULL, 0) < 0)
            sleep_ms(1);
    return unused;
}

/* What each learns of its own proxies is not another's. */
static void live_in_sixteen_beside_a_reaper(struct scene *scene)
{
    pthread_t reaper;
    statuses_may_be_lost = true;
    CHECK(pthread_create(&reaper, NULL, reap_any, NULL) == 0);
    witness(scene);
    in_many_threads(live_all_lives, scene);
    check_witness(scene);
}

static void sixteen_threads_and_one_that_reaps(void **state)
{
    run_host(live_in_sixteen_beside_a_reaper, *state, __func__);
}

/* The descriptors that one thread makes are for a moment where another looks for the host's
 * standard error. */
static void live_in_sixteen_without_streams(struct scene *scene)
{
    close(STDERR_FILENO);
    witness(scene);
    in_many_threads(live_several_times, scene);
    check_witness(scene);
}

static void sixteen_threads_without_standard_streams(void **state)
{
    run_host(live_in_sixteen_without_streams, *state, __func__);
}

/* ---- Small stacks --------------------------------------------------------------------------- */

enum { SMALL_STACK = 64 * 1024 };

static void *live_on_a_small_stack(void *scene)
{
    lead_every_life(scene);
    return NULL;
}

static void live_in_a_small_thread(struct scene *scene)
{
    pthread_t thread;
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, SMALL_STACK) == 0);
    CHECK(pthread_create(&thread, &attributes, live_on_a_small_stack, scene) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attributes);
}

static void a_thread_with_a_small_stack(void **state)
{
    run_host(live_in_a_small_thread, *state, __func__);
}

/* ---- What others may call at any time -----------------------------------------------------------
 */

static struct {
    const kp_handle *handle;
    uint16_t port;
    _Atomic bool done;
    int calls;
} shared;

static void *tell_children(void *unused)
{
    char url[32], *nothing[] = {NULL};
    snprintf(url, sizeof url, "http://127.0.0.1:%u", shared.port);
    for (; !shared.done; shared.calls++) {
        char **env = kp_env_new(shared.handle, nothing);
        CHECK(env != NULL && strcmp(env[0] + strlen("ALL_PROXY="), url) == 0);
        kp_env_free(env);
        CHECK(strcmp(kp_handle_url(shared.handle), url) == 0);
        CHECK(kp_handle_port(shared.handle) == shared.port);
    }
    return unused;
}

static void restart_beside_a_reader(struct scene *scene)
{
    pthread_t reader;
    be_ready(scene, marked(scene, FIXTURE("serve")));
    shared.handle = scene->proxy;
    shared.port = kp_handle_port(scene->proxy);
    CHECK(pthread_create(&reader, NULL, tell_children, NULL) == 0);
    for (int i = 0; i < 5; i++) {
        end_it(scene, -1);
        CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
        CHECK_RESULT(KP_OK, go_on(scene, KP_STATE_READY));
    }
    shared.done = true;
    CHECK(pthread_join(reader, NULL) == 0);
    CHECK(shared.calls > 0);
    free_proxy(scene);
}

static void others_read_while_it_is_restarted(void **state)
{
    run_host(restart_beside_a_reader, *state, __func__);
}

int main(void)
{
    static const struct CMUnitTest own[] = {
        EACH_WAY(the_thread_that_started_it_ends),
        TEST(the_main_thread_ends),
        TEST(sixteen_threads_live_at_once),
        TEST(sixteen_threads_and_one_that_reaps),
        TEST(sixteen_threads_without_standard_streams),
        EACH_WAY(a_thread_with_a_small_stack),
        EACH_WAY(others_read_while_it_is_restarted),
    };
    return run_strange(NULL, 0, own, sizeof own / sizeof *own);
}
