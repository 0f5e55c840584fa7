/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts whose children are reaped before the library can do it, by the kernel or by themselves. */
#include "life.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- By the kernel ---------------------------------------------------------------- */

static bool ignore_sigchld(struct scene *scene, int unused)
{
    (void)scene, (void)unused;
    return signal(SIGCHLD, SIG_IGN) != SIG_ERR;
}

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

static bool set_nocldwait(struct scene *scene, int with_handler)
{
    struct sigaction action = {.sa_handler = with_handler ? do_nothing : SIG_DFL,
                               .sa_flags = SA_NOCLDWAIT};
    (void)scene;
    return sigaction(SIGCHLD, &action, NULL) == 0;
}

/* ---- By a thread of the host's ------------------------------------------------------- */

/* Without a child there is nothing to block for. */
static void *wait_for_any_child(void *unused)
{
    for (;;)
        if (waitpid(-1, NULL, 0) < 0)
            sleep_ms(1);
    return unused;
}

static void *look_for_any_child(void *unused)
{
    for (;;)
        if (waitpid(-1, NULL, WNOHANG) <= 0)
            usleep(100);
    return unused;
}

static int signals = -1;

/* As a host with an event loop does it. */
static void *read_signals(void *unused)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info)
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    return unused;
}

enum { WAITS, LOOKS, READS };

static bool run_reaper(struct scene *scene, int kind)
{
    static void *(*const reapers[])(void *) = {wait_for_any_child, look_for_any_child,
                                               read_signals};
    pthread_t thread;
    sigset_t chld;
    (void)scene;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    if (kind == READS) {
        sigprocmask(SIG_BLOCK, &chld, NULL);
        signals = signalfd(-1, &chld, SFD_CLOEXEC);
    }
    return pthread_create(&thread, NULL, reapers[kind], NULL) == 0;
}

/* ---- By a handler -------------------------------------------------------------------- */

static void reap_every_child(int signal_number)
{
    int kept = errno;
    (void)signal_number;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = kept;
}

static bool install_reaper(struct scene *scene, int flags)
{
    struct sigaction action = {.sa_handler = reap_every_child, .sa_flags = flags};
    (void)scene;
    return sigaction(SIGCHLD, &action, NULL) == 0;
}

/* ---- A host that gets the children of others ------------------------------------------ */

static bool become_subreaper(struct scene *scene, int unused)
{
    (void)scene, (void)unused;
    return prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
}

static bool reap_adopted(const struct process *process, void *unused)
{
    (void)unused;
    if (process->parent == getpid() && process->state == 'Z' && !is_bystander(process->pid))
        CHECK(waitpid(process->pid, NULL, 0) == process->pid);
    return true;
}

/* What the library did not start is the host's to reap: the workers of a proxy that has ended.
 * They are zombies by now, and the stop did not wait for their reaping. */
static void reap_who_was_adopted(struct scene *scene)
{
    (void)scene;
    process_each(reap_adopted, NULL);
}

/* ---- A number stays its own --------------------------------------------------------------- */

/* While signals may be sent to the proxy or to the group that it leads, it is a zombie: its number
 * is nobody else's. */
static void who_was_seen_to_exit_is_kept(void **state)
{
    struct scene *scene = *state;
    struct process proxy;
    get_ready(scene, spec_for(FIXTURE("serve")));
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    assert_result(KP_ERR_EXITED, step_until_told(scene, &scene->error));
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_STOPPING);
    assert_true(process_read(kp_handle_pid(scene->proxy), &proxy));
    assert_int_equal(proxy.state, 'Z');
    assert_int_equal(proxy.parent, getpid());
    get_exited(scene);
    assert_false(process_read(kp_handle_pid(scene->proxy), &proxy));
}

int main(void)
{
    static const struct CMUnitTest own[] = {EACH_WAY(who_was_seen_to_exit_is_kept)};
    static const struct circumstance list[] = {
        {"SIGCHLD is ignored", ignore_sigchld, .reaps = true},
        {"SA_NOCLDWAIT is set", set_nocldwait, .number = 0, .reaps = true},
        {"SA_NOCLDWAIT is set beside a handler", set_nocldwait, .number = 1, .reaps = true},
        {"a thread waits for any child", run_reaper, .number = WAITS, .reaps = true},
        {"a thread looks for any child", run_reaper, .number = LOOKS, .reaps = true},
        {"a thread reads SIGCHLD and reaps", run_reaper, .number = READS, .reaps = true},
        {"a SIGCHLD handler reaps", install_reaper, .number = 0, .reaps = true},
        {"a SIGCHLD handler reaps and restarts", install_reaper, .number = SA_RESTART,
         .reaps = true},
        {"orphans become the host's", become_subreaper, .after = reap_who_was_adopted},
    };
    return run_strange(list, sizeof list / sizeof *list, own, sizeof own / sizeof *own);
}
