/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a proxy's exit and its restart nobody, of whatever uid, gets the port and with it
 * what children still send there; and of two hosts that want the same port one gets it.
 */
#include "../process.h"
#include "../support.h"
#include "network.h"
#include "stranger.h"
#include "tally.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPTION_SETS = WITH_V6ONLY }; /* of all the options below it */

static void assert_alone(struct scene *scene)
{
    struct listeners found =
        listeners_at(kp_handle_port(scene->proxy), kp_handle_pid(scene->proxy));
    assert_int_equal(found.own, 1);
    assert_int_equal(found.foreign, 0);
}

static void restart(struct scene *scene)
{
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_alone(scene);
}

/* ---- Between the exit and the restart ------------------------------------ */

struct attempts {
    unsigned made, not_allowed, got_in;
};

static void attempt(int channel, const char *address, uint16_t port, int options,
                    struct attempts *sum)
{
    int result = ask(channel, order_for(ACT_TAKE, address, port, options));
    if (result == EOPNOTSUPP) {
        sum->not_allowed++;
        return;
    }
    sum->made++;
    sum->got_in += result == 0;
    if (result != 0)
        assert_int_equal(result, EADDRINUSE);
}

/* Every set of options, on every address that receives what is sent to 127.0.0.1. */
static struct attempts attempt_all(int channel, uint16_t port)
{
    struct attempts sum = {0};
    for (int options = 0; options < OPTION_SETS; options++)
        for (size_t i = 0; i < LOOPBACKS; i++)
            attempt(channel, loopbacks[i], port, options, &sum);
    assert_int_equal(ask(channel, order_for(ACT_CLOSE, "", 0, 0)), 0);
    return sum;
}

static void print_attempts(const char *where, uid_t uid, const struct attempts *sum)
{
    printf("# %s, uid %u: %u attempts to bind and listen, %u got in (%u more need rights)\n", where,
           uid, sum->made, sum->got_in, sum->not_allowed);
}

static void assert_kept(struct scene *scene, int channel, uid_t uid)
{
    struct attempts sum = attempt_all(channel, kp_handle_port(scene->proxy));
    print_attempts("between an exit and the restart", uid, &sum);
    assert_true(sum.made >= OPTION_SETS / 2 * LOOPBACKS);
    assert_int_equal(sum.got_in, 0);
    assert_false(port_answers(kp_handle_port(scene->proxy)));
}

static void stop_it(struct scene *scene)
{
    assert_result(KP_OK, kp_handle_stop(scene->proxy, 0));
    get_exited(scene);
}

static void let_it_crash(struct scene *scene)
{
    kill(kp_handle_pid(scene->proxy), SIGKILL);
    get_exited(scene);
}

static void keep_from(struct scene *scene, uid_t uid, const char *part)
{
    int channel = stranger(uid);
    if (channel < 0 && left_out_here(part, "without the right to be another user"))
        return;
    get_ready(scene, quiet_spec(FIXTURE("serve")));
    stop_it(scene);
    assert_kept(scene, channel, uid);
    restart(scene);
    let_it_crash(scene);
    assert_kept(scene, channel, uid);
    restart(scene);
}

static void the_same_uid_does_not_get_it(void **state)
{
    keep_from(*state, geteuid(), "");
}

static void another_uid_does_not_get_it(void **state)
{
    keep_from(*state, NOBODY, "another uid between the exit and the restart");
}

/* A start that failed keeps the port, too. */
static void nor_after_a_start_that_failed(void **state)
{
    struct scene *scene = *state;
    int channel = stranger(geteuid());
    assert_result(KP_OK, start(scene, quiet_spec(FIXTURE("exit", "7"))));
    assert_result(KP_ERR_EXITED, reach(scene, KP_STATE_READY));
    get_exited(scene);
    assert_kept(scene, channel, geteuid());
}

/* Not either while the rest of the group is stopped: the proxy itself is gone by then. */
static void nor_while_the_rest_is_stopped(void **state)
{
    struct scene *scene = *state;
    int channel = stranger(geteuid());
    kp_spec spec = quiet_spec(FIXTURE("deaf-workers", "1"));
    spec.stop_grace_ms = PATIENCE_MS;
    get_ready(scene, spec);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    assert_true(eventually_gone(kp_handle_pid(scene->proxy)));
    assert_result(KP_AGAIN, kp_handle_step(scene->proxy, &scene->error));
    assert_kept(scene, channel, geteuid());
}

/* Bound while that was possible, it can't listen when the proxy is gone. */
static void a_socket_from_before_cannot_listen(void **state)
{
    struct scene *scene = *state;
    int channel = stranger(NOBODY);
    if (channel < 0 && left_out_here("a socket of another uid", "without the right to be it"))
        return;
    for (size_t i = 0; i < LOOPBACKS; i++) {
        assert_result(KP_OK, start(scene, quiet_spec(FIXTURE("never"))));
        uint16_t port = kp_handle_port(scene->proxy);
        assert_int_equal(ask(channel, order_for(ACT_BIND, loopbacks[i], port, WITH_REUSEADDR)), 0);
        stop_it(scene);
        assert_int_equal(ask(channel, order_for(ACT_LISTEN, "", 0, 0)), EADDRINUSE);
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
    }
}

/* ---- The gap without that ------------------------------------------------ */

static struct attempts attempt_beside_plain(int channel, bool closed)
{
    int off = 0;
    uint16_t port = free_port();
    int fd = bind_socket("127.0.0.1", port, BIND_REUSEADDR);
    assert_true(fd >= 0);
    if (closed)
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof off), 0);
    struct attempts sum = attempt_all(channel, port);
    close(fd);
    return sum;
}

static void the_gap_is_there_without_that(void **state)
{
    int channel = stranger(NOBODY);
    uid_t uid = channel < 0 ? geteuid() : NOBODY;
    (void)state;
    if (channel < 0) {
        left_out_here("the gap, for another uid", "without the right to be it");
        channel = stranger(uid);
    }
    struct attempts open = attempt_beside_plain(channel, false);
    struct attempts closed = attempt_beside_plain(channel, true);
    print_attempts("beside a reservation with SO_REUSEADDR", uid, &open);
    print_attempts("beside one without it", uid, &closed);
    assert_true(open.got_in >= LOOPBACKS);
    assert_int_equal(closed.got_in, 0);
}

/* ---- Two hosts ----------------------------------------------------------- */

enum { ROUNDS = 40 };

struct start {
    kp_result result;
    pid_t pid;
};

static struct {
    _Atomic unsigned arrived; /* at the line from which both start */
} * line;

static void start_together(unsigned round, uint16_t port, kp_handle **proxy, struct start *out)
{
    kp_spec spec = quiet_spec(FIXTURE("serve"));
    kp_error error;
    spec.port = port;
    spec.flags = round % 2 == 0 ? 0 : KP_SPEC_NO_GUARD;
    line->arrived++;
    while (line->arrived < 2 * (round + 1))
        sched_yield();
    out->result = kp_spawn(&spec, proxy, &error);
    out->pid = kp_handle_pid(*proxy);
}

/* Starts a proxy on each port that it is told, and frees it when it is told anything more. */
static void be_a_host(int channel, const void *unused)
{
    uint16_t port, done;
    (void)unused;
    for (unsigned round = 0; channel_read(channel, &port, sizeof port); round++) {
        kp_handle *proxy;
        struct start start;
        start_together(round, port, &proxy, &start);
        channel_write(channel, &start, sizeof start);
        bool told = channel_read(channel, &done, sizeof done);
        kp_handle_free(proxy);
        if (!told || !channel_write(channel, &start, sizeof start))
            return;
    }
}

static struct start host_answer(int host)
{
    struct start start;
    assert_true(channel_read(host, &start, sizeof start));
    return start;
}

static void host_tell(int host, uint16_t port)
{
    assert_true(channel_write(host, &port, sizeof port));
}

static void judge_hosts(const struct start starts[2], uint16_t port, unsigned ends[4])
{
    int winner = starts[0].result == KP_OK ? 0 : 1;
    const struct start *loser = &starts[1 - winner];
    assert_result(KP_OK, starts[winner].result);
    ends[0] += loser->result == KP_ERR_PORT_IN_USE;
    ends[1] += loser->result == KP_ERR_EXITED;
    ends[2] += loser->result == KP_ERR_FOREIGN_LISTENER;
    ends[3]++;
    assert_int_equal(ends[0] + ends[1] + ends[2], ends[3]);
    struct listeners found = listeners_at(port, starts[winner].pid);
    assert_int_equal(found.own, 1);
    assert_int_equal(found.foreign, 0);
}

static void let_both_start(const int hosts[2], unsigned ends[4])
{
    struct start starts[2];
    uint16_t port = free_port();
    for (int i = 0; i < 2; i++)
        host_tell(hosts[i], port);
    for (int i = 0; i < 2; i++)
        starts[i] = host_answer(hosts[i]);
    judge_hosts(starts, port, ends);
    for (int i = 0; i < 2; i++)
        host_tell(hosts[i], 0);
    for (int i = 0; i < 2; i++)
        host_answer(hosts[i]);
}

static void of_two_hosts_one_gets_it(void **state)
{
    unsigned ends[4] = {0};
    (void)state;
    line = mmap(NULL, sizeof *line, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(line != MAP_FAILED);
    int hosts[2] = {recruit(geteuid(), be_a_host, NULL), recruit(geteuid(), be_a_host, NULL)};
    for (int round = 0; round < ROUNDS; round++)
        let_both_start(hosts, ends);
    printf("# two hosts, one port: %u rounds, the other was told PORT_IN_USE %u, EXITED %u, "
           "FOREIGN_LISTENER %u times\n",
           ends[3], ends[0], ends[1], ends[2]);
    munmap(line, sizeof *line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE(the_same_uid_does_not_get_it),       HOSTILE(another_uid_does_not_get_it),
        HOSTILE(nor_after_a_start_that_failed),      HOSTILE(nor_while_the_rest_is_stopped),
        HOSTILE(a_socket_from_before_cannot_listen), HOSTILE(the_gap_is_there_without_that),
        HOSTILE(of_two_hosts_one_gets_it),
    };
    if (!own_network())
        return leave_out_all("no network of its own to play in");
    quiet_spec(NULL);
    return RUN(tests);
}
