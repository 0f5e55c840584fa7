/* SPDX-License-Identifier: Apache-2.0 */
#include "network.h"
#include "../process.h"
#include "../support.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_RANGE "/proc/sys/net/ipv4/ip_local_port_range"

/* ---- The namespace ------------------------------------------------------- */

static bool write_to(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return written;
}

static bool map_id(const char *path, unsigned id)
{
    char line[64];
    snprintf(line, sizeof line, "%u %u 1", id, id);
    return write_to(path, line);
}

bool own_namespace(int kind)
{
    unsigned user = geteuid(), group = getegid();
    if (unshare(kind) == 0)
        return true;
    return unshare(CLONE_NEWUSER | kind) == 0 && write_to("/proc/self/setgroups", "deny") &&
           map_id("/proc/self/uid_map", user) && map_id("/proc/self/gid_map", group);
}

static bool raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    if (fd >= 0)
        close(fd);
    return up;
}

bool own_network(void)
{
    return own_namespace(CLONE_NEWNET) && raise_loopback();
}

bool narrow_ports(uint16_t low, uint16_t high)
{
    char line[32];
    snprintf(line, sizeof line, "%u %u", low, high);
    return write_to(PORT_RANGE, line);
}

void handed_out_ports(uint16_t *low, uint16_t *high)
{
    char line[64];
    file_read(PORT_RANGE, line, sizeof line);
    assert_int_equal(sscanf(line, "%hu %hu", low, high), 2);
}

/* ---- What is not there --------------------------------------------------- */

static bool must_be_there(void)
{
    const char *require = getenv("KP_TEST_REQUIRE");
    return require != NULL && strcmp(require, "1") == 0;
}

int leave_out_all(const char *reason)
{
    printf("1..0 # SKIP %s\n", reason);
    return must_be_there() ? EXIT_FAILURE : EXIT_SUCCESS;
}

bool left_out_here(const char *part, const char *reason)
{
    left_out(part, reason);
    if (must_be_there())
        fail_msg("%s is left out", part);
    return true;
}

/* ---- Listeners ----------------------------------------------------------- */

enum { STATE_LISTEN = 10 };

struct entry {
    char address[33];
    unsigned port, state;
    unsigned long inode;
};

/* A line of /proc/net/tcp or tcp6; false for the heading. */
static bool parse_entry(const char *line, struct entry *out)
{
    return sscanf(line, " %*u: %32[0-9A-F]:%4X %*[0-9A-F]:%*X %2X %*s %*s %*s %*u %*u %lu",
                  out->address, &out->port, &out->state, &out->inode) == 4;
}

/* An address is there as words in the order of the network, printed as numbers. */
static bool takes_loopback(const char *address)
{
    char loopback[9], mapping[25];
    snprintf(loopback, sizeof loopback, "%08X", htonl(INADDR_LOOPBACK));
    snprintf(mapping, sizeof mapping, "%08X%08X%08X", 0u, 0u, htonl(0xffff));
    if (strncmp(address, mapping, strlen(mapping)) == 0)
        address += strlen(mapping);
    return strspn(address, "0") == strlen(address) || strcmp(address, loopback) == 0;
}

static bool is_socket(int folder, const char *name, unsigned long inode)
{
    char target[64], wanted[64];
    ssize_t size = readlinkat(folder, name, target, sizeof target - 1);
    target[size < 0 ? 0 : size] = '\0';
    snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
    return strcmp(target, wanted) == 0;
}

static bool holds_socket(pid_t pid, unsigned long inode)
{
    char path[64];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder != NULL && !found && (entry = readdir(folder)) != NULL)
        found = is_socket(dirfd(folder), entry->d_name, inode);
    if (folder != NULL)
        closedir(folder);
    return found;
}

/* The kernel shows all listeners before all else. */
static void add_listeners(const char *path, uint16_t port, pid_t proxy, struct listeners *sum)
{
    char line[512];
    struct entry entry = {.state = STATE_LISTEN};
    FILE *file = fopen(path, "re");
    while (file != NULL && entry.state == STATE_LISTEN && fgets(line, sizeof line, file) != NULL) {
        if (!parse_entry(line, &entry) || entry.state != STATE_LISTEN || entry.port != port ||
            !takes_loopback(entry.address))
            continue;
        if (holds_socket(proxy, entry.inode))
            sum->own++;
        else
            sum->foreign++;
    }
    if (file != NULL)
        fclose(file);
}

/* The list is read in parts, and what others open and close meanwhile can hide an entry for
 * once: nobody is believed in only after some looks. */
struct listeners listeners_at(uint16_t port, pid_t proxy)
{
    struct listeners sum = {0};
    for (int looks = 0; looks < 20 && sum.own + sum.foreign == 0; looks++) {
        add_listeners("/proc/self/net/tcp", port, proxy, &sum);
        add_listeners("/proc/self/net/tcp6", port, proxy, &sum);
    }
    return sum;
}

struct wanted {
    uint16_t port;
    pid_t proxy;
};

static bool listens(const void *data)
{
    const struct wanted *wanted = data;
    return listeners_at(wanted->port, wanted->proxy).own > 0;
}

bool eventually_listens(uint16_t port, pid_t proxy)
{
    struct wanted wanted = {port, proxy};
    return eventually(listens, &wanted);
}

/* ---- Connections --------------------------------------------------------- */

void close_at_once(int fd)
{
    struct linger none = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(fd);
}

/* "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails ...", and under
 * it the numbers. */
struct attempts_to_connect attempts_to_connect(void)
{
    static char text[16384];
    unsigned long long made = 0, failed = 0;
    file_read("/proc/self/net/snmp", text, sizeof text);
    const char *names = strstr(text, "\nTcp: "), *numbers = NULL;
    if (names != NULL)
        numbers = strstr(names + 1, "\nTcp: ");
    if (numbers == NULL ||
        sscanf(numbers, " Tcp: %*d %*d %*d %*d %llu %*u %llu", &made, &failed) != 2)
        fail_msg("/proc/net/snmp is not what it was");
    return (struct attempts_to_connect){made, failed};
}
