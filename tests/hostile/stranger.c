/* SPDX-License-Identifier: Apache-2.0 */
#include "stranger.h"
#include "../support.h"
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* What is done here takes longer than other tests on a machine that is busy. */
enum { MAX_RECRUITS = 16, LIFETIME_S = 150 };

static struct recruit {
    pid_t pid;
    int channel;
} recruits[MAX_RECRUITS];
static size_t recruited;

/* ---- Life ---------------------------------------------------------------- */

static void dismiss_all(void)
{
    while (recruited > 0) {
        struct recruit *last = &recruits[--recruited];
        kill(last->pid, SIGKILL);
        waitpid(last->pid, NULL, 0);
        close(last->channel);
    }
}

int hostile_open(void **state)
{
    int result = scene_open(state);
    alarm(LIFETIME_S);
    return result;
}

int hostile_close(void **state)
{
    dismiss_all();
    return scene_close(state);
}

bool channel_read(int channel, void *data, size_t size)
{
    return recv(channel, data, size, MSG_WAITALL) == (ssize_t)size;
}

bool channel_write(int channel, const void *data, size_t size)
{
    return send(channel, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool become(uid_t uid)
{
    if (uid == geteuid())
        return true;
    return setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
           setresuid(uid, uid, uid) == 0;
}

static _Noreturn void serve_test(uid_t uid, int channel, pid_t test,
                                 void (*body)(int, const void *), const void *data)
{
    bool became = become(uid);
    alarm(LIFETIME_S);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of the uid would undo it */
    if (getppid() == test && channel_write(channel, &became, sizeof became) && became)
        body(channel, data);
    _exit(0);
}

int recruit(uid_t uid, void (*body)(int, const void *), const void *data)
{
    int ends[2];
    bool became = false;
    pid_t test = getpid();
    assert_true(recruited < MAX_RECRUITS);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        serve_test(uid, ends[1], test, body, data);
    }
    close(ends[1]);
    assert_true(pid > 0); /* kill(-1) would reach everybody */
    recruits[recruited++] = (struct recruit){pid, ends[0]};
    return channel_read(ends[0], &became, sizeof became) && became ? ends[0] : -1;
}

/* ---- A stranger that takes orders ---------------------------------------- */

const char *const loopbacks[LOOPBACKS] = {"127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1",
                                          "::ffff:0.0.0.0"};

struct order order_for(enum act act, const char *address, uint16_t port, int options)
{
    struct order order = {act, options, port, ""};
    strncpy(order.address, address, sizeof order.address - 1);
    return order;
}

static bool turn_on(int fd, int level, int option)
{
    int on = 1;
    return setsockopt(fd, level, option, &on, sizeof on) == 0;
}

static bool set_options(int fd, int family, int options)
{
    int v6only = (options & WITH_V6ONLY) != 0;
    return (!(options & WITH_REUSEADDR) || turn_on(fd, SOL_SOCKET, SO_REUSEADDR)) &&
           (!(options & WITH_REUSEPORT) || turn_on(fd, SOL_SOCKET, SO_REUSEPORT)) &&
           (!(options & WITH_FREEBIND) || turn_on(fd, IPPROTO_IP, IP_FREEBIND)) &&
           (!(options & WITH_TRANSPARENT) || turn_on(fd, IPPROTO_IP, IP_TRANSPARENT)) &&
           (!(options & WITH_DEVICE) ||
            setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", sizeof "lo") == 0) &&
           (family != AF_INET6 ||
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only) == 0);
}

static int bind_as(const struct order *order, const struct addrinfo *address, int *out)
{
    int fd = *out = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    if (!set_options(fd, address->ai_family, order->options))
        return EOPNOTSUPP;
    return bind(fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;
}

static int bind_text(const struct order *order, int *out)
{
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *address;
    snprintf(port, sizeof port, "%u", order->port);
    if (getaddrinfo(order->address, port, &hints, &address) != 0)
        return EINVAL;
    int result = bind_as(order, address, out);
    freeaddrinfo(address);
    return result;
}

static void drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* What was not done leaves no socket. */
static int obey(const struct order *order, int *fd)
{
    int result = 0;
    if (order->act != ACT_LISTEN)
        drop(fd);
    if (order->act == ACT_BIND || order->act == ACT_TAKE)
        result = bind_text(order, fd);
    if (result == 0 && (order->act == ACT_LISTEN || order->act == ACT_TAKE))
        result = listen(*fd, 16) == 0 ? 0 : errno;
    if (result != 0)
        drop(fd);
    return result;
}

static void take_orders(int channel, const void *unused)
{
    struct order order;
    int fd = -1;
    (void)unused;
    while (channel_read(channel, &order, sizeof order)) {
        int result = obey(&order, &fd);
        if (!channel_write(channel, &result, sizeof result))
            return;
    }
}

int stranger(uid_t uid)
{
    return recruit(uid, take_orders, NULL);
}

void tell(int channel, struct order order)
{
    assert_true(channel_write(channel, &order, sizeof order));
}

int answer(int channel)
{
    int result;
    assert_true(channel_read(channel, &result, sizeof result));
    return result;
}

int ask(int channel, struct order order)
{
    tell(channel, order);
    return answer(channel);
}
