/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A proxy that does nothing but become ready, at a known moment.
 *
 *     listener DELAY_US STAMP
 *
 * Listens on 127.0.0.1:$KODA_PROXY_PORT after DELAY_US microseconds, writes the moment of it
 * (CLOCK_MONOTONIC, in nanoseconds) as 8 bytes into the file STAMP, and waits to be killed.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LIFETIME_S = 60, SPIN_NS = 200000, SECOND_NS = 1000000000 };

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND_NS + time.tv_nsec;
}

static _Noreturn void cannot(const char *what)
{
    perror(what);
    exit(1);
}

/* Mapped and touched beforehand: nothing but the store lies between listen() and the stamp. */
static volatile int64_t *map_stamp(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        cannot(path);
    int64_t *stamp = mmap(NULL, sizeof *stamp, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (stamp == MAP_FAILED)
        cannot("mmap");
    close(fd);
    *stamp = 0;
    return stamp;
}

static int bind_port(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(port == NULL ? "0" : port)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof address) != 0)
        cannot("bind");
    return fd;
}

/* A sleep alone would be late by the timer's slack. */
static void wait_until(int64_t moment)
{
    int64_t early = moment - SPIN_NS;
    struct timespec until = {.tv_sec = early / SECOND_NS, .tv_nsec = early % SECOND_NS};
    if (now_ns() < early)
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
            ;
    while (now_ns() < moment)
        ;
}

int main(int argc, char **argv)
{
    int64_t start = now_ns();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(LIFETIME_S);
    if (argc != 3) {
        fputs("usage: listener DELAY_US STAMP\n", stderr);
        return 2;
    }
    volatile int64_t *stamp = map_stamp(argv[2]);
    int fd = bind_port(getenv("KODA_PROXY_PORT"));
    wait_until(start + atoll(argv[1]) * 1000);
    if (listen(fd, SOMAXCONN) != 0)
        cannot("listen");
    *stamp = now_ns();
    for (;;)
        pause();
}
