/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts that a debugger or a terminal stops, and continues later. The time passes meanwhile, for
 * the host and for its proxy, which runs on: what became ready is not told as too late, what is
 * too late is so at once, and nothing is lost.
 */
#include "life.h"
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/* Time-outs that pass while the host is stopped, and what it may take once it runs again. */
enum { TIMEOUT_MS = 2500, STOPPED_MS = TIMEOUT_MS + 100, PROMPT_MS = 2000 };

/* ---- The host -------------------------------------------------------------------------- */

struct host {
    pid_t pid;
    int words;
};

/* What a host tells of: its proxy has been started, and then, each time, what is next. */
struct word {
    pid_t proxy;
    uint16_t port;
};

static int words_to_test; /* in the host */

static struct host running; /* in the test; pid 0: none */

static void tell(const struct scene *scene)
{
    struct word word = {kp_handle_pid(scene->proxy), kp_handle_port(scene->proxy)};
    CHECK(write(words_to_test, &word, sizeof word) == sizeof word);
}

/* In a group of its own, which is not orphaned: a terminal stops no other. */
static _Noreturn void be_a_host(void (*body)(struct scene *), struct scene *scene, int words)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    words_to_test = words;
    body(scene);
    _exit(0);
}

static struct host start_host(void (*body)(struct scene *), struct scene *scene)
{
    int ends[2];
    fixture();
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        be_a_host(body, scene, ends[1]);
    }
    close(ends[1]);
    running = (struct host){pid, ends[0]};
    return running;
}

static void end_host(void)
{
    if (running.pid == 0)
        return;
    kill(running.pid, SIGKILL);
    waitpid(running.pid, NULL, 0);
    close(running.words);
    running.pid = 0;
}

static struct word listen_to(const struct host *host)
{
    struct word word = {0};
    assert_int_equal(read(host->words, &word, sizeof word), sizeof word);
    return word;
}

static void assert_fine(const struct host *host)
{
    siginfo_t info = {0};
    assert_int_equal(waitid(P_PID, (id_t)host->pid, &info, WEXITED | WNOWAIT), 0);
    end_host();
    assert_int_equal(info.si_code, CLD_EXITED);
    assert_int_equal(info.si_status, 0);
}

/* ---- Who stops it ------------------------------------------------------------------------ */

static void await_stop(const struct host *host)
{
    int status;
    assert_int_equal(waitpid(host->pid, &status, WUNTRACED), host->pid);
    assert_true(WIFSTOPPED(status));
}

static void attach(const struct host *host)
{
    assert_int_equal(ptrace(PTRACE_ATTACH, host->pid, NULL, NULL), 0);
    await_stop(host);
}

static void detach(const struct host *host)
{
    assert_int_equal(ptrace(PTRACE_DETACH, host->pid, NULL, NULL), 0);
}

/* What Ctrl-Z and `fg` do. */
static void suspend(const struct host *host)
{
    assert_int_equal(kill(-host->pid, SIGTSTP), 0);
    await_stop(host);
}

static void resume(const struct host *host)
{
    assert_int_equal(kill(-host->pid, SIGCONT), 0);
}

struct stopper {
    void (*stop)(const struct host *);
    void (*go_on)(const struct host *);
};

static const struct stopper debugger = {attach, detach}, terminal = {suspend, resume};

/* ---- While it starts ------------------------------------------------------------------------ */

static void start_and_be_ready(struct scene *scene, uint32_t flags)
{
    kp_spec spec = marked(scene, SHELL("until test -e \"$KP_GO\"; do sleep 0.01; done;"
                                       " exec \"$0\" serve"));
    spec.flags = flags;
    spec.startup_timeout_ms = TIMEOUT_MS;
    setenv("KP_GO", scene_path(scene, "go"), 1);
    CHECK_RESULT(KP_OK, start(scene, spec));
    tell(scene);
    CHECK_RESULT(KP_OK, go_on(scene, KP_STATE_READY));
    end_it(scene, -1);
    free_proxy(scene);
}

static void be_ready_in_time(struct scene *scene)
{
    start_and_be_ready(scene, 0);
}

static void be_asked_in_time(struct scene *scene)
{
    start_and_be_ready(scene, KP_SPEC_PROBE_HTTP);
}

static bool listens(const void *port)
{
    return port_answers(*(const uint16_t *)port);
}

/* The proxy becomes ready while the host is stopped, for longer than the proxy may take. */
static void stop_while_starting(struct scene *scene, const struct stopper *by,
                                void (*body)(struct scene *))
{
    struct host host = start_host(body, scene);
    struct word word = listen_to(&host);
    by->stop(&host);
    file_write(scene_path(scene, "go"), "", 0600);
    assert_true(eventually(listens, &word.port));
    sleep_ms(STOPPED_MS);
    by->go_on(&host);
    assert_fine(&host);
}

static void what_became_ready_meanwhile_is_not_too_late(void **state)
{
    stop_while_starting(*state, &debugger, be_ready_in_time);
}

static void nor_is_it_after_a_terminals_stop(void **state)
{
    stop_while_starting(*state, &terminal, be_ready_in_time);
}

/* It had no chance to answer before: it was not asked. */
static void nor_is_what_has_not_been_asked_yet(void **state)
{
    stop_while_starting(*state, &terminal, be_asked_in_time);
}

static void be_too_late(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("never"));
    spec.startup_timeout_ms = TIMEOUT_MS;
    CHECK_RESULT(KP_OK, start(scene, spec));
    tell(scene);
    CHECK_RESULT(KP_ERR_TIMED_OUT, go_on(scene, KP_STATE_READY));
    tell(scene);
    free_proxy(scene);
}

/* Once it goes on the host says at once what it would have said meanwhile. It is stopped when it
 * waits: the time of a call that is still to come has not begun. */
static void stop_for_too_long(struct scene *scene, const struct stopper *by,
                              void (*body)(struct scene *))
{
    struct host host = start_host(body, scene);
    listen_to(&host);
    assert_true(eventually_asleep(host.pid));
    by->stop(&host);
    sleep_ms(STOPPED_MS);
    by->go_on(&host);
    int64_t begin_ms = now_ms();
    listen_to(&host);
    assert_true(now_ms() - begin_ms < PROMPT_MS);
    assert_fine(&host);
}

static void what_did_not_is_too_late_at_once(void **state)
{
    stop_for_too_long(*state, &debugger, be_too_late);
}

/* ---- While it stops ------------------------------------------------------------------------- */

static void give_its_grace(struct scene *scene)
{
    be_ready(scene, marked(scene, FIXTURE("deaf")));
    pid_t group = getpgid(kp_handle_pid(scene->proxy));
    CHECK(kp_handle_stop(scene->proxy, TIMEOUT_MS) == KP_OK);
    tell(scene);
    be_exited(scene);
    tell(scene);
    check_exit(scene, -1, SIGKILL);
    CHECK(group_size(group) == 0);
    free_proxy(scene);
}

static void the_grace_passes_meanwhile(void **state)
{
    stop_for_too_long(*state, &debugger, give_its_grace);
}

static void the_grace_passes_at_a_terminal(void **state)
{
    stop_for_too_long(*state, &terminal, give_its_grace);
}

/* The calls that go on through everything go on through this. */
static void free_with_its_grace(struct scene *scene)
{
    kp_spec spec = marked(scene, FIXTURE("deaf"));
    spec.stop_grace_ms = TIMEOUT_MS;
    be_ready(scene, spec);
    pid_t pid = kp_handle_pid(scene->proxy);
    tell(scene);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    CHECK(!process_lives(pid));
    CHECK(write(words_to_test, &(struct word){0}, sizeof(struct word)) > 0);
}

static void it_passes_for_a_free(void **state)
{
    stop_for_too_long(*state, &terminal, free_with_its_grace);
}

/* A limit of the host's own. */
static void wait_for_so_long(struct scene *scene)
{
    be_ready(scene, marked(scene, FIXTURE("serve")));
    tell(scene);
    CHECK(kp_handle_wait(scene->proxy, KP_STATE_EXITED, TIMEOUT_MS, NULL) == KP_AGAIN);
    tell(scene);
    free_proxy(scene);
}

static void so_does_the_time_of_a_wait(void **state)
{
    stop_for_too_long(*state, &terminal, wait_for_so_long);
}

/* ---- While it is ready ------------------------------------------------------------------------
 */

static void see_the_exit(struct scene *scene)
{
    be_ready(scene, marked(scene, FIXTURE("serve")));
    tell(scene);
    be_exited(scene);
    check_exit(scene, -1, SIGKILL);
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, go_on(scene, KP_STATE_READY));
    free_proxy(scene);
}

static void kill_meanwhile(struct scene *scene, const struct stopper *by)
{
    struct host host = start_host(see_the_exit, scene);
    struct word word = listen_to(&host);
    by->stop(&host);
    kill(word.proxy, SIGKILL);
    assert_true(eventually_gone(word.proxy));
    by->go_on(&host);
    assert_fine(&host);
}

static void an_exit_meanwhile_is_seen(void **state)
{
    kill_meanwhile(*state, &debugger);
    kill_meanwhile(*state, &terminal);
}

/* ---- Over and over -----------------------------------------------------------------------------
 */

/* At whatever moment of its lives, the debugger's stops among them. */
static void lead_lives(struct scene *scene)
{
    for (int i = 0; i < 5; i++) {
        be_ready(scene, marked(scene, FIXTURE("workers", "1")));
        end_it(scene, -1);
        check_exit(scene, -1, SIGTERM);
        free_proxy(scene);
    }
}

static bool has_ended(const struct host *host)
{
    siginfo_t info = {0};
    assert_int_equal(waitid(P_PID, (id_t)host->pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    return info.si_pid != 0;
}

/* SIGSTOP, since a host that ends just now can't be attached to. */
static void stops_at_any_moment_do_no_harm(void **state)
{
    struct host host = start_host(lead_lives, *state);
    for (int i = 0; !has_ended(&host); i++) {
        kill(host.pid, SIGSTOP);
        sleep_ms(i % 5);
        kill(host.pid, SIGCONT);
        sleep_ms(1 + i % 7);
    }
    assert_fine(&host);
}

/* ---- A handler of the host's -------------------------------------------------------------------
 */

static volatile sig_atomic_t continued;

static void count(int unused)
{
    (void)unused;
    continued++;
}

/* Who catches SIGCONT is told like of any other handler; kp_spawn went on through it. */
static void wait_until_continued(struct scene *scene)
{
    struct sigaction action = {.sa_handler = count};
    kp_spec spec = marked(scene, FIXTURE("serve"));
    spec.flags = scene->way->flags;
    CHECK(sigaction(SIGCONT, &action, NULL) == 0);
    CHECK_RESULT(KP_OK, kp_spawn(&spec, &scene->proxy, &scene->error));
    tell(scene);
    int before = continued;
    CHECK(kp_handle_wait(scene->proxy, KP_STATE_EXITED, -1, NULL) == KP_AGAIN);
    CHECK(continued > before);
    CHECK(kp_handle_state(scene->proxy) == KP_STATE_READY);
    tell(scene);
    free_proxy(scene);
}

static bool says_nothing(const struct host *host)
{
    struct pollfd readable = {.fd = host->words, .events = POLLIN};
    return poll(&readable, 1, 20) == 0;
}

static void a_handler_of_sigcont_ends_the_wait(void **state)
{
    struct host host = start_host(wait_until_continued, *state);
    listen_to(&host);
    do {
        suspend(&host);
        resume(&host);
    } while (says_nothing(&host)); /* it may not have waited yet */
    listen_to(&host);
    assert_fine(&host);
}

int main(void)
{
    static const struct CMUnitTest own[] = {
        EACH_WAY(what_became_ready_meanwhile_is_not_too_late),
        EACH_WAY(nor_is_it_after_a_terminals_stop),
        EACH_WAY(nor_is_what_has_not_been_asked_yet),
        EACH_WAY(what_did_not_is_too_late_at_once),
        EACH_WAY(the_grace_passes_meanwhile),
        EACH_WAY(the_grace_passes_at_a_terminal),
        TEST_WAY(it_passes_for_a_free, "guard", &ways[0]),
        TEST_WAY(it_passes_for_a_free, "no guard", &ways[3]),
        TEST_WAY(so_does_the_time_of_a_wait, "guard", &ways[0]),
        TEST_WAY(so_does_the_time_of_a_wait, "no guard", &ways[3]),
        EACH_WAY(an_exit_meanwhile_is_seen),
        EACH_WAY(stops_at_any_moment_do_no_harm),
        TEST_WAY(a_handler_of_sigcont_ends_the_wait, "guard", &ways[0]),
        TEST_WAY(a_handler_of_sigcont_ends_the_wait, "no guard", &ways[3]),
    };
    end_leftovers = end_host;
    return run_strange(NULL, 0, own, sizeof own / sizeof *own);
}
