/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers that live without exec, as those of a prefork server: they use the proxy, and
 * don't keep it alive when their parent is killed.
 *
 *     prefork WORKERS PROXY [ARGUMENT...]
 */
#include <kp/kp.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static kp_handle *proxy;

/* In each forked child, whoever forks it: also a library of the host's. */
static void let_go(void)
{
    kp_handle_detach(proxy);
}

/* Stands for the requests of a real one: the port is known in a worker, too. */
static int work(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(kp_handle_port(proxy)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror(kp_handle_url(proxy));
        return 1;
    }
    close(fd);
    return 0;
}

static int fork_workers(int count)
{
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(work());
        if (pid < 0)
            return -1;
    }
    return 0;
}

/* How many have failed. The proxy is a child of this host too, and ends later. */
static int await_workers(int count)
{
    int failed = 0, status;
    for (int done = 0; done < count;) {
        pid_t pid = wait(&status);
        if (pid < 0)
            return count - done;
        if (pid == kp_handle_pid(proxy)) {
            fprintf(stderr, "the proxy has exited\n");
            return count - done;
        }
        failed += status != 0;
        done++;
    }
    return failed;
}

int main(int argc, char **argv)
{
    int workers = argc > 2 ? atoi(argv[1]) : 0;
    if (workers <= 0) {
        fprintf(stderr, "usage: prefork WORKERS PROXY [ARGUMENT...]\n");
        return 2;
    }
    kp_spec spec = {.size = sizeof spec, .argv = argv + 2};
    kp_error error;
    pthread_atfork(NULL, NULL, let_go);
    if (kp_spawn(&spec, &proxy, &error) != KP_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    int failed = fork_workers(workers) == 0 ? await_workers(workers) : workers;
    kp_handle_free(proxy);
    return failed == 0 ? 0 : 1;
}
