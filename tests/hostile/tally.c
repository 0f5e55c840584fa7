/* SPDX-License-Identifier: Apache-2.0 */
#include "tally.h"
#include "../support.h"
#include "network.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

void tally_print(const char *crowd, const char *who, const struct tally *tally)
{
    printf("# %s: %s: %u starts tried, %u ended on a port owned by another, %u on nobody's, "
           "%u failed without an impostor, %u with one, %u right\n",
           crowd, who, tally->tried, tally->on_other, tally->on_nobody, tally->lost, tally->robbed,
           tally->right);
}

void tally_ready(struct tally *tally, uint16_t port, pid_t proxy)
{
    struct listeners found = listeners_at(port, proxy);
    if (found.foreign > 0)
        tally->on_other++;
    else if (found.own == 0)
        tally->on_nobody++;
    else
        tally->right++;
}

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

kp_spec quiet_spec(char *const *argv)
{
    static int null = -1;
    if (null < 0)
        null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    kp_spec spec = spec_for(argv);
    spec.startup_timeout_ms = PATIENCE_MS;
    spec.log_fd = null;
    return spec;
}

/* ---- The library --------------------------------------------------------- */

enum { AT_A_TIME = 20 };

struct start {
    kp_handle *handle;
    int64_t since;
    kp_result result;
    kp_error error;
};

/* Of the first failures, what was said. */
static void count_failure(struct tally *tally, const struct start *start, uint16_t port,
                          bool (*robbed_since)(uint16_t, int64_t))
{
    bool may_be_robbery =
        start->result == KP_ERR_EXITED || start->result == KP_ERR_FOREIGN_LISTENER;
    if (may_be_robbery && robbed_since != NULL && robbed_since(port, start->since)) {
        tally->robbed++;
        return;
    }
    if (tally->lost++ < 3)
        printf("# %s: %s\n", kp_result_name(start->result), start->error.message);
}

static void judge(struct tally *tally, const struct start *start,
                  bool (*robbed_since)(uint16_t, int64_t))
{
    uint16_t port = kp_handle_port(start->handle);
    tally->tried++;
    if (start->result == KP_OK)
        tally_ready(tally, port, kp_handle_pid(start->handle));
    else
        count_failure(tally, start, port, robbed_since);
}

/* Steps those that are not done, as an event loop does; how many are left. */
static unsigned step_some(struct tally *tally, struct start *starts, unsigned count,
                          bool (*robbed_since)(uint16_t, int64_t))
{
    unsigned left = 0;
    for (struct start *start = starts; start < starts + count; start++) {
        if (start->result != KP_AGAIN)
            continue;
        start->result = kp_handle_step(start->handle, &start->error);
        if (start->result == KP_AGAIN)
            left++;
        else
            judge(tally, start, robbed_since);
    }
    return left;
}

/* A start that is refused at once is not one that others can spoil. */
static void start_some(struct tally *tally, unsigned count, const kp_spec *spec,
                       bool (*robbed_since)(uint16_t, int64_t))
{
    static struct start starts[AT_A_TIME];
    for (unsigned i = 0; i < count; i++) {
        starts[i].since = now_ns();
        assert_result(KP_OK, kp_start(spec, &starts[i].handle, &starts[i].error));
        starts[i].result = KP_AGAIN;
        step_some(tally, starts, i + 1, robbed_since);
    }
    while (step_some(tally, starts, count, robbed_since) > 0)
        sleep_ms(1);
    for (unsigned i = 0; i < count; i++)
        kp_handle_free(starts[i].handle);
}

void tally_library(struct tally *tally, unsigned count, const kp_spec *spec,
                   bool (*robbed_since)(uint16_t, int64_t))
{
    for (unsigned left = count; left > 0;) {
        unsigned some = left < AT_A_TIME ? left : AT_A_TIME;
        start_some(tally, some, spec, robbed_since);
        left -= some;
    }
}

/* ---- The naive loop ------------------------------------------------------ */

static uint16_t pick_port(void)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    int fd = bind_socket("127.0.0.1", 0, BIND_PLAIN);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static pid_t spawn_on(uint16_t port)
{
    char text[8];
    pid_t pid;
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    snprintf(text, sizeof text, "%u", port);
    setenv(KP_PORT_ENV, text, 1);
    int result = posix_spawn(&pid, fixture(), &quiet, NULL, FIXTURE("serve"), environ);
    unsetenv(KP_PORT_ENV);
    posix_spawn_file_actions_destroy(&quiet);
    assert_int_equal(result, 0);
    return pid;
}

/* It is kinder than most: it sees that the proxy has exited. The pid stays the proxy's. */
static bool has_exited(pid_t pid)
{
    siginfo_t info = {.si_pid = 0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

static void naive_start(struct tally *tally)
{
    uint16_t port = pick_port();
    pid_t pid = spawn_on(port);
    bool answers, exited = false;
    while (!(answers = port_answers(port)) && !(exited = has_exited(pid)))
        sleep_ms(10);
    if (answers)
        tally_ready(tally, port, pid);
    tally->lost += exited;
    tally->tried++;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void tally_naive(struct tally *tally, unsigned count)
{
    while (count-- > 0)
        naive_start(tally);
}
