/* SPDX-License-Identifier: Apache-2.0 */
/* Ports and sockets of the tests' own. */
#include "support.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t make_address(const char *text, uint16_t port, union address *out)
{
    memset(out, 0, sizeof *out);
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons(port);
    if (inet_pton(AF_INET, text, &out->v4.sin_addr) == 1)
        return sizeof out->v4;
    memset(out, 0, sizeof *out);
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(port);
    return inet_pton(AF_INET6, text, &out->v6.sin6_addr) == 1 ? sizeof out->v6 : 0;
}

static int close_keeping_errno(int fd)
{
    int kept = errno;
    close(fd);
    errno = kept;
    return -1;
}

/* Bound to both families where the address is of IPv6: as servers do it. */
static void set_options(int fd, int family, int options)
{
    int on = 1, off = 0;
    if (options & BIND_REUSEADDR)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (options & BIND_REUSEPORT)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
}

int bind_socket(const char *text, uint16_t port, int options)
{
    union address address;
    socklen_t size = make_address(text, port, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set_options(fd, address.any.sa_family, options);
    if (bind(fd, &address.any, size) != 0)
        return close_keeping_errno(fd);
    if ((options & BIND_LISTEN) && listen(fd, 16) != 0)
        return close_keeping_errno(fd);
    return fd;
}

/* At random, so that tests that run beside each other do not meet. */
uint16_t free_port(void)
{
    static unsigned seed;
    if (seed == 0)
        seed = (unsigned)getpid() * 2654435761u ^ (unsigned)time(NULL);
    for (int tries = 0; tries < 1000; tries++) {
        uint16_t port = (uint16_t)(12000 + rand_r(&seed) % 20000);
        int fd = bind_socket("0.0.0.0", port, BIND_PLAIN);
        if (fd >= 0) {
            close(fd);
            return port;
        }
    }
    fail_msg("no free port");
    return 0;
}

int connect_to(uint16_t port)
{
    union address address;
    socklen_t size = make_address("127.0.0.1", port, &address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, &address.any, size) == 0)
        return fd;
    return close_keeping_errno(fd);
}

bool ask_to_exit(uint16_t port)
{
    int fd = connect_to(port);
    bool asked = fd >= 0 && write(fd, "?", 1) == 1;
    if (fd >= 0)
        close(fd);
    return asked;
}

bool port_answers(uint16_t port)
{
    int fd = connect_to(port);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}
