/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A proxy that is started some hundred thousand times: linked statically, it is there in a third of
 * a millisecond. It listens on 127.0.0.1 at $KODA_PROXY_PORT and answers each client with a status
 * line; it ends itself after a minute. Its modes:
 *
 *   serve    that
 *   beside   the same on the other port of a pair (the last bit)
 *   talk     answer with something else
 *   exit     print a line, exit with status 3
 *   never    do nothing
 *   deaf     serve, ignore SIGTERM
 *   worker   serve, with a child in the group that ends some time after a SIGTERM
 *   private  serve, and let none but root's see what it holds
 *   leave    let a child serve that has left the group
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LIFETIME_S = 60 };

static bool is(const char *mode, const char *name)
{
    return strcmp(mode, name) == 0;
}

static int open_listener(unsigned other)
{
    const char *port = getenv("KODA_PROXY_PORT");
    struct sockaddr_in address = {.sin_family = AF_INET};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_port = htons((uint16_t)(port == NULL ? 0u : (unsigned)atoi(port) ^ other));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 100) != 0)
        _exit(4);
    return fd;
}

/* One client after the other: each speaks first, or closes. */
static _Noreturn void serve(int listener, const char *answer)
{
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        char question[512];
        if (read(client, question, sizeof question) > 0)
            (void)!write(client, answer, strlen(answer));
        close(client);
    }
}

static void end_late(int signo)
{
    (void)signo;
    nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    _exit(0);
}

static void fork_worker(void)
{
    signal(SIGTERM, end_late);
    if (fork() == 0) {
        alarm(LIFETIME_S);
        for (;;)
            pause();
    }
    signal(SIGTERM, SIG_DFL);
}

static void hand_to_stranger(void)
{
    if (fork() == 0) {
        alarm(LIFETIME_S);
        setsid();
        return;
    }
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    const char *mode = argc < 2 ? "serve" : argv[1];
    alarm(LIFETIME_S);
    if (is(mode, "exit")) {
        (void)!write(2, "no such option\n", 15);
        return 3;
    }
    if (is(mode, "never"))
        for (;;)
            pause();
    if (is(mode, "deaf"))
        signal(SIGTERM, SIG_IGN);
    if (is(mode, "private"))
        prctl(PR_SET_DUMPABLE, 0);
    if (is(mode, "worker"))
        fork_worker();
    if (is(mode, "leave"))
        hand_to_stranger();
    serve(open_listener(is(mode, "beside")),
          is(mode, "talk") ? "220 ready\r\n" : "HTTP/1.1 403 Forbidden\r\n\r\n");
}
