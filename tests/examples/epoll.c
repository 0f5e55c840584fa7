/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One proxy in an edge-triggered epoll loop, until it ends or somebody sends SIGINT or
 * SIGTERM. The loop has no timer: the handle's descriptor tells of everything.
 *
 *     epoll PROXY [ARGUMENT...]
 */
#include <kp/kp.h>

#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void watch(int loop, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = fd};
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

/* The proxy gets an empty mask all the same. */
static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The first signal asks the proxy to end, the second kills it. */
static void on_signal(int signals, kp_handle *proxy)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info)
        kp_handle_stop(proxy, kp_handle_state(proxy) == KP_STATE_STOPPING ? 0 : -1);
}

/* Steps once, and says what has changed. */
static void on_due_step(kp_handle *proxy)
{
    kp_error error;
    kp_state before = kp_handle_state(proxy);
    if (kp_handle_step(proxy, &error) < 0)
        fprintf(stderr, "%s\n", error.message);
    if (before != KP_STATE_READY && kp_handle_state(proxy) == KP_STATE_READY)
        printf("ready: %s\n", kp_handle_url(proxy));
}

static void run(kp_handle *proxy)
{
    int loop = epoll_create1(EPOLL_CLOEXEC), signals = open_signals();
    struct epoll_event event;
    watch(loop, signals);
    watch(loop, kp_handle_fd(proxy)); /* readable at once: the first step is due */
    while (kp_handle_state(proxy) != KP_STATE_EXITED)
        if (epoll_wait(loop, &event, 1, -1) == 1) {
            if (event.data.fd == signals)
                on_signal(signals, proxy);
            else
                on_due_step(proxy);
        }
    close(signals);
    close(loop);
}

int main(int argc, char **argv)
{
    kp_spec spec = {.size = sizeof spec, .argv = argv + 1};
    kp_handle *proxy;
    kp_error error;
    int exit_code = -1, signal_number = 0;
    if (argc < 2 || kp_start(&spec, &proxy, &error) != KP_OK) {
        fprintf(stderr, "%s\n", argc < 2 ? "usage: epoll PROXY [ARGUMENT...]" : error.message);
        return 1;
    }
    run(proxy);
    kp_handle_exit_status(proxy, &exit_code, &signal_number);
    printf("ended: status %d, signal %d\n", exit_code, signal_number);
    kp_handle_free(proxy);
    return 0;
}
