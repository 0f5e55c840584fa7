/* SPDX-License-Identifier: Apache-2.0 */
#include "mortal.h"
#include "process.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIFETIME_S = 60 };

/* ---- Hosts ---------------------------------------------------------------- */

static pid_t fork_a_worker(void)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    alarm(LIFETIME_S); /* a fork does not inherit it */
    for (;;)
        pause();
}

static void act(void (*action)(kp_handle *), kp_handle *proxy)
{
    if (action != NULL)
        action(proxy);
}

static _Noreturn void be_a_host(const struct plan *plan, int out)
{
    kp_handle *proxy;
    alarm(LIFETIME_S);
    if (plan->first != NULL)
        plan->first();
    struct host host = {.pid = getpid()};
    CHECK(kp_start(&plan->spec, &proxy, NULL) == KP_OK);
    act(plan->at_once, proxy);
    CHECK(!plan->ready || kp_handle_wait(proxy, KP_STATE_READY, -1, NULL) == KP_OK);
    act(plan->later, proxy);
    host.proxy = kp_handle_pid(proxy);
    host.group = getpgid(host.proxy);
    host.worker = plan->forks ? fork_a_worker() : 0;
    CHECK(write(out, &host, sizeof host) == sizeof host);
    act(plan->then, proxy);
    for (;;)
        pause();
}

/* What the test has not printed yet is not for a host to print. */
struct host host_start(const struct plan *plan)
{
    struct host host = {0};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        be_a_host(plan, ends[1]);
    close(ends[1]);
    ssize_t size = read(ends[0], &host, sizeof host);
    close(ends[0]);
    assert_int_equal(size, sizeof host);
    return host;
}

int host_status(const struct host *host)
{
    int status = 0;
    assert_int_equal(waitpid(host->pid, &status, 0), host->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void host_kill(const struct host *host)
{
    kill(host->pid, SIGKILL);
    assert_int_equal(host_status(host), 128 + SIGKILL);
}

kp_spec guarded(char *const *argv, uint32_t grace_ms)
{
    kp_spec spec = spec_for(argv);
    spec.stop_grace_ms = grace_ms;
    return spec;
}

/* ---- Who is left ------------------------------------------------------------ */

bool nobody_is_left(void)
{
    pid_t reaped;
    while ((reaped = waitpid(-1, NULL, WNOHANG)) > 0)
        ;
    return reaped == -1 && errno == ECHILD;
}

static bool look(const void *unused)
{
    (void)unused;
    return nobody_is_left();
}

void assert_nobody_is_left(void)
{
    assert_true(eventually(look, NULL));
}

/* Nobody else reaps our children: the number is the child's until then. */
static bool kill_child(const struct process *process, void *data)
{
    size_t *killed = data;
    if (process->parent == getpid() && process_lives_in(process)) {
        kill(process->pid, SIGKILL);
        waitpid(process->pid, NULL, 0);
        ++*killed;
    }
    return true;
}

size_t end_everybody(void)
{
    size_t killed = 0;
    while (!nobody_is_left())
        process_each(kill_child, &killed);
    return killed;
}

int mortal_open(void **state)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        return -1;
    return scene_open(state);
}

int mortal_close(void **state)
{
    struct scene *scene = *state;
    kp_handle_stop(scene->proxy, 0);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    size_t killed = end_everybody();
    if (killed != 0)
        print_error("after the test: %zu processes had to be ended\n", killed);
    int result = scene_close(state);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    return killed != 0 ? -1 : result;
}
