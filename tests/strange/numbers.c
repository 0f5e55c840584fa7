/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child's number that is another's by now: because it was reused before the library could open
 * a descriptor for it, or at any time later. The stranger who has it is never signalled, made
 * nice or waited for, whatever the host does, and what is left of the proxy ends all the same.
 */
#include "../process.h"
#include "filter.h"
#include "forked.h"
#include "stranger.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* How a host comes to reap what the library has not waited for. */
enum reaping { IGNORES_SIGCHLD, REAPS_ALL, REAPS_IT, REAPINGS };
enum refused { NOTHING, GROUP_FLAG, PIDFDS, REFUSALS };
enum act { STOPS, KILLS, SEES_AND_RESTARTS, FREES, ACTS };

static const char *const reaping_names[] = {"ignores SIGCHLD", "reaps in a thread", "reaps it"};
static const char *const whose_names[] = {"the host's child", "another's child"};
static const char *const refused_names[] = {"nothing", "PIDFD_SIGNAL_PROCESS_GROUP", "pidfd_open"};
static const char *const act_names[] = {"stops", "kills", "sees and restarts", "frees"};

/* What the host is to play. */
static struct plan {
    enum reaping reaping;
    enum whose whose;
    bool leads;
    bool joins; /* somebody else's group */
    enum refused refused;
    enum act act;
    int spawn; /* the one whose number is taken at once: first, second */
} plan;

static bool is_guarded(const struct scene *scene)
{
    return (scene->way->flags & KP_SPEC_NO_GUARD) == 0;
}

/* ---- The host ------------------------------------------------------------- */

static void *reap_everybody(void *unused)
{
    for (;;)
        if (waitpid(-1, NULL, 0) < 0)
            usleep(500);
    return unused;
}

static void prepare_host(void)
{
    pthread_t thread;
    if (plan.refused == GROUP_FLAG)
        refuse(&refuse_group_signals, 1);
    if (plan.refused == PIDFDS)
        refuse(&refuse_pidfds, 1);
    if (plan.reaping == IGNORES_SIGCHLD)
        signal(SIGCHLD, SIG_IGN);
    if (plan.reaping == REAPS_ALL)
        CHECK(pthread_create(&thread, NULL, reap_everybody, NULL) == 0);
}

static void reap(pid_t pid)
{
    if (plan.reaping == REAPS_IT)
        CHECK(waitpid(pid, NULL, 0) == pid);
}

static void kill_and_reap(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0);
    reap(pid);
}

/* That of a child of the host's, such as another handle's guard; it is then alone there. */
static void join_a_group(pid_t pid)
{
    pid_t leader = fork();
    CHECK(leader >= 0);
    if (leader == 0)
        for (;;)
            pause();
    CHECK(setpgid(leader, leader) == 0);
    CHECK(setpgid(pid, leader) == 0);
    kill_and_reap(leader);
}

static void replace(pid_t pid)
{
    kill_and_reap(pid);
    await_free(pid);
    take_number(pid, plan.whose, plan.leads);
    if (plan.joins)
        join_a_group(pid);
}

static void lose_the_proxy(struct scene *scene);

/* ---- In all plans ----------------------------------------------------------- */

/* A test plays many plans. */
enum { PLAN_S = 60, STARTUP_MS = 1500 };

/* Nothing tells another child of the host's that leads a group of its own from a proxy that has
 * moved itself: not before there is a descriptor, and never without one. */
static bool can_be_told(host_body *body)
{
    bool looks_alike = plan.whose == THE_HOSTS && plan.leads;
    return !looks_alike || !(body == lose_the_proxy || plan.refused == PIDFDS);
}

static bool run_plan(host_body *body, struct scene *scene)
{
    alarm(PLAN_S);
    if (beside_strangers(body, scene) == 0)
        return true;
    print_error("a host that %s, and %s; the stranger is %s and leads %s; refused: %s\n",
                reaping_names[plan.reaping], act_names[plan.act], whose_names[plan.whose],
                plan.leads   ? "a group"
                : plan.joins ? "none, but joins one"
                             : "none",
                refused_names[plan.refused]);
    return false;
}

/* All of them, so that one failure does not hide another. */
static size_t run_strangers(host_body *body, struct scene *scene, bool any_leader)
{
    size_t failures = 0;
    for (int whose = 0; whose < 2; whose++) {
        for (int leads = any_leader ? 0 : 1; leads < 2; leads++) {
            plan.whose = (enum whose)whose;
            plan.leads = leads != 0;
            failures += can_be_told(body) && !run_plan(body, scene);
        }
    }
    return failures;
}

/* ---- Reused before its descriptor was opened ---------------------------------- */

typedef int spawn_fn(pid_t *restrict, const char *restrict,
                     const posix_spawn_file_actions_t *restrict, const posix_spawnattr_t *restrict,
                     char *const[restrict], char *const[restrict]);

static int spawns_left; /* until the one whose number is taken; 0: none is */

/* The library calls this one: it comes before libc's. */
int posix_spawnp(pid_t *restrict pid, const char *restrict file,
                 const posix_spawn_file_actions_t *restrict actions,
                 const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
                 char *const envp[restrict])
{
    union {
        void *object;
        spawn_fn *function;
    } libcs = {.object = dlsym(RTLD_NEXT, "posix_spawnp")};
    int result = libcs.function(pid, file, actions, attributes, argv, envp);
    if (result == 0 && spawns_left > 0 && --spawns_left == 0)
        replace(*pid);
    return result;
}

/* Whose child it is, its status is not the library's. */
static void check_status_is_the_hosts(void)
{
    int status = 0;
    end_stranger();
    if (plan.whose != THE_HOSTS || plan.reaping != REAPS_IT)
        return;
    CHECK(waitpid(-1, &status, 0) > 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
}

static void check_restart(struct scene *scene)
{
    CHECK_RESULT(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_READY));
    CHECK(check_stop(scene, 0) < PROMPT);
}

static kp_spec soon(char *const *argv)
{
    kp_spec spec = with_grace(argv, LONG_GRACE);
    spec.startup_timeout_ms = STARTUP_MS;
    return spec;
}

static void lose_the_guard(struct scene *scene)
{
    prepare_host();
    spawns_left = 1;
    int64_t begin = now_ms();
    kp_result result = start(scene, soon(FIXTURE("serve")));
    if (result == KP_OK)
        result = reach_somehow(scene, KP_STATE_READY);
    CHECK_RESULT(KP_ERR_GUARD, result);
    CHECK(strstr(scene->error.message, "KP_SPEC_NO_GUARD") != NULL);
    if (scene->proxy != NULL)
        CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    CHECK(now_ms() - begin < PROMPT);
    check_free(scene);
    CHECK(nothing_left_but_stranger());
    check_unharmed();
    check_status_is_the_hosts();
}

static void lose_the_proxy(struct scene *scene)
{
    int code = 0, signal_number = 1;
    prepare_host();
    spawns_left = is_guarded(scene) ? 2 : 1;
    int64_t begin = now_ms();
    CHECK_RESULT(KP_OK, start(scene, soon(FIXTURE("serve"))));
    CHECK_RESULT(KP_ERR_EXITED, reach_somehow(scene, KP_STATE_READY));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    CHECK(now_ms() - begin < PROMPT);
    CHECK(kp_handle_exit_status(scene->proxy, &code, &signal_number) == 1);
    CHECK(code == -1 && signal_number == 0);
    CHECK(nothing_left_but_stranger());
    check_restart(scene);
    check_free(scene);
    CHECK(nothing_left_but_stranger());
    check_unharmed();
    check_status_is_the_hosts();
}

static void lose_at_once(host_body *body, struct scene *scene)
{
    size_t failures = 0;
    for (int reaping = 0; reaping < REAPINGS; reaping++) {
        for (int refused = 0; refused < PIDFDS; refused++) {
            plan =
                (struct plan){.reaping = (enum reaping)reaping, .refused = (enum refused)refused};
            failures += run_strangers(body, scene, true);
            plan.whose = THE_HOSTS;
            plan.leads = false;
            plan.joins = true;
            failures += !run_plan(body, scene);
        }
    }
    assert_int_equal(failures, 0);
}

static void the_guards_number_before_its_descriptor(void **state)
{
    lose_at_once(lose_the_guard, *state);
}

static void the_proxys_number_before_its_descriptor(void **state)
{
    lose_at_once(lose_the_proxy, *state);
}

/* ---- Reused later ------------------------------------------------------------------ */

/* What hosts do, in whatever state the handle is; at the end it is gone. */
static void act(struct scene *scene)
{
    int64_t begin = now_ms();
    if (plan.act == SEES_AND_RESTARTS) {
        if (kp_handle_state(scene->proxy) == KP_STATE_READY)
            CHECK_RESULT(KP_ERR_EXITED, told_somehow(scene));
        CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
        check_restart(scene);
    } else if (plan.act != FREES) {
        check_stop(scene, plan.act == KILLS ? 0 : -1);
        CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, 0));
        CHECK_RESULT(KP_OK, kp_handle_step(scene->proxy, NULL));
    }
    check_free(scene);
    CHECK(now_ms() - begin < PROMPT);
    CHECK(nothing_left_but_stranger());
    check_unharmed();
    check_status_is_the_hosts();
}

static void take_the_proxys(struct scene *scene)
{
    prepare_host();
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    replace(kp_handle_pid(scene->proxy));
    act(scene);
}

/* The guard's, which is the group's: nobody who is in the group may live then. */
static void take_the_guards(struct scene *scene)
{
    prepare_host();
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    pid_t proxy = kp_handle_pid(scene->proxy), guard = getpgid(proxy);
    kill_and_reap(proxy);
    await_free(proxy);
    replace(guard);
    act(scene);
}

static void take_it_while_stopping(struct scene *scene)
{
    prepare_host();
    check_ready(scene, with_grace(FIXTURE("slow-stop", "60000"), LONG_GRACE));
    CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, -1));
    CHECK_RESULT(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
    replace(kp_handle_pid(scene->proxy));
    act(scene);
}

static void take_it_after_the_end(struct scene *scene)
{
    prepare_host();
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    check_stop(scene, -1);
    await_free(kp_handle_pid(scene->proxy));
    take_number(kp_handle_pid(scene->proxy), plan.whose, plan.leads);
    act(scene);
}

/* In hosts that reap by themselves. */
static size_t run_acts(host_body *body, struct scene *scene, enum refused refused)
{
    size_t failures = 0;
    for (int reaping = 0; reaping < REAPINGS; reaping++) {
        for (int each = 0; each < ACTS; each++) {
            plan = (struct plan){
                .reaping = (enum reaping)reaping, .refused = refused, .act = (enum act)each};
            failures += run_strangers(body, scene, false);
        }
    }
    return failures;
}

#define TEST_LATER(name, body)                                                                     \
    static void name(void **state)                                                                 \
    {                                                                                              \
        assert_int_equal(run_acts(body, *state, NOTHING), 0);                                      \
    }                                                                                              \
    static void name##_before_linux_6_9(void **state)                                              \
    {                                                                                              \
        assert_int_equal(run_acts(body, *state, GROUP_FLAG), 0);                                   \
    }                                                                                              \
    static void name##_without_descriptors(void **state)                                           \
    {                                                                                              \
        assert_int_equal(run_acts(body, *state, PIDFDS), 0);                                       \
    }

TEST_LATER(the_proxys_number_in_ready, take_the_proxys)
TEST_LATER(the_guards_number_in_ready, take_the_guards)
TEST_LATER(the_proxys_number_while_stopping, take_it_while_stopping)
TEST_LATER(the_proxys_number_after_the_end, take_it_after_the_end)

/* ---- What somebody else reaps after the library has looked --------------------------- */

/* The group's leader is seen to have ended and pins its number; then the host reaps it, its
 * workers end, and a stranger has the number, while the library still waits for them. */
static void reap_late(struct scene *scene)
{
    plan.reaping = REAPS_IT;
    prepare_host();
    check_ready(scene, with_grace(SHELL("(trap '' TERM; exec \"$0\" serve) & wait"), 700));
    pid_t proxy = kp_handle_pid(scene->proxy), group = getpgid(proxy), pids[8];
    CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, -1));
    CHECK(eventually_gone(proxy));
    for (int i = 0; i < 3; i++)
        CHECK_RESULT(KP_AGAIN, kp_handle_step(scene->proxy, NULL));
    waitpid(proxy, NULL, WNOHANG);
    size_t members = list_group(group, pids, 8);
    CHECK(members > 0);
    for (size_t i = 0; i < members; i++)
        kill(pids[i], SIGKILL);
    waitpid(group, NULL, 0);
    await_free(group);
    take_number(group, plan.whose, true);
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    check_free(scene);
    CHECK(nothing_left_but_stranger());
    check_unharmed();
    check_status_is_the_hosts();
}

static void a_host_that_reaps_late(void **state)
{
    size_t failures = 0;
    for (int refused = 0; refused < REFUSALS; refused++) {
        plan = (struct plan){.refused = (enum refused)refused};
        failures += run_strangers(reap_late, *state, false);
    }
    assert_int_equal(failures, 0);
}

/* ---- A guard that somebody killed and reaped -------------------------------------------- */

/* Its number is the group's, which the proxy pins: the proxy can still be stopped. */
static void stop_without_its_guard(struct scene *scene)
{
    prepare_host();
    check_ready(scene, with_grace(FIXTURE("workers", "2"), LONG_GRACE));
    pid_t group = getpgid(kp_handle_pid(scene->proxy));
    kill_and_reap(group);
    while (kill(group, 0) == 0)
        sleep_ms(1);
    CHECK(check_stop(scene, -1) < PROMPT);
    check_free(scene);
    CHECK(group_size(group) == 0);
    CHECK(nothing_left_but_stranger());
}

static void a_guard_that_is_killed_and_reaped(void **state)
{
    size_t failures = 0;
    for (int reaping = 0; reaping < REAPINGS; reaping++) {
        for (int refused = 0; refused < REFUSALS; refused++) {
            plan =
                (struct plan){.reaping = (enum reaping)reaping, .refused = (enum refused)refused};
            failures += !run_plan(stop_without_its_guard, *state);
        }
    }
    assert_int_equal(failures, 0);
}

/* ---- A member that leaves the group ----------------------------------------------------- */

/* Out of reach from there on: the stop does not wait for it, and does not tell of it. */
static void let_a_member_leave(struct scene *scene)
{
    prepare_host();
    check_ready(scene, with_grace(SHELL("(trap '' TERM; sleep 0.3; exec setsid sleep 30) & "
                                        "exec \"$0\" serve"),
                                  1000));
    int64_t took = check_stop(scene, -1);
    CHECK(took < 1000 + KILL_TIME / 2);
    check_free(scene);
}

static void a_member_that_leaves_the_group(void **state)
{
    size_t failures = 0;
    for (int refused = 0; refused < REFUSALS; refused++) {
        plan = (struct plan){.reaping = REAPS_IT, .refused = (enum refused)refused};
        failures += !run_plan(let_a_member_leave, *state);
    }
    assert_int_equal(failures, 0);
}

/* ---- A number that comes round ------------------------------------------------------------ */

/* Forks until the number is reached, as a busy machine does in the end. */
static bool goes_round_to(pid_t number)
{
    for (int forks = 0; forks < 2000; forks++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            _exit(0);
        CHECK(waitpid(pid, NULL, 0) == pid);
        if (pid == number)
            return true;
    }
    return false;
}

/* While a member of the group lives the group's number is passed over, and not after. */
static void go_round(struct scene *scene)
{
    CHECK(write_to("/proc/sys/kernel/pid_max", "400"));
    CHECK(write_to("/proc/sys/kernel/ns_last_pid", "320")); /* below 300 a number comes but once */
    check_ready(scene, with_grace(FIXTURE("serve"), LONG_GRACE));
    pid_t group = getpgid(kp_handle_pid(scene->proxy));
    CHECK(!goes_round_to(group));
    CHECK(kill(group, SIGKILL) == 0);
    CHECK(waitpid(group, NULL, 0) == group);
    CHECK(is_guarded(scene) != goes_round_to(group));
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    waitpid(kp_handle_pid(scene->proxy), NULL, 0);
    CHECK(goes_round_to(group));
    take_number(group, THE_HOSTS, true);
    CHECK(check_stop(scene, 0) < PROMPT);
    check_free(scene);
    CHECK(nothing_left_but_stranger());
    check_unharmed();
}

/* Before Linux 6.14 the limit is the machine's. */
static bool has_own_limit(void)
{
    struct utsname name;
    unsigned major = 0, minor = 0;
    return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 14));
}

static void a_number_that_comes_round(void **state)
{
    if (!has_own_limit()) {
        left_out(__func__, "where a pid namespace has no pid_max of its own");
        return;
    }
    assert_int_equal(beside_strangers(go_round, *state), 0);
}

#define EACH_REFUSAL(name)                                                                         \
    EACH_WAY(name), EACH_WAY(name##_before_linux_6_9), EACH_WAY(name##_without_descriptors)
#define EACH_GUARDED_REFUSAL(name)                                                                 \
    EACH_GUARDED_WAY(name), EACH_GUARDED_WAY(name##_before_linux_6_9),                             \
        EACH_GUARDED_WAY(name##_without_descriptors)

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int status = leave_out_without_namespaces();
    if (status >= 0)
        return status;
    const struct CMUnitTest tests[] = {
        EACH_GUARDED_WAY(the_guards_number_before_its_descriptor),
        EACH_WAY(the_proxys_number_before_its_descriptor),
        EACH_REFUSAL(the_proxys_number_in_ready),
        EACH_GUARDED_REFUSAL(the_guards_number_in_ready),
        EACH_REFUSAL(the_proxys_number_while_stopping),
        EACH_REFUSAL(the_proxys_number_after_the_end),
        EACH_WAY(a_host_that_reaps_late),
        EACH_GUARDED_WAY(a_guard_that_is_killed_and_reaped),
        EACH_WAY(a_member_that_leaves_the_group),
        EACH_WAY(a_number_that_comes_round),
    };
    return RUN(tests);
}
