/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop of connect() to a closed port that the kernel hands out succeeds after a while, by
 * connecting to itself: the kernel chose the same port as the source. The library's probes
 * never do, be the port reserved or not.
 */
#include "../support.h"
#include "network.h"
#include "stranger.h"
#include "tally.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of a few ports each is chosen soon. Where the range can't be narrowed it takes some tens
 * of thousands of attempts. */
enum { LOW = 40000, HIGH = 40127, NAIVE_MAX = 200000, PROBES_MIN = 30000 };

static bool is_alone; /* in a network of its own */

/* One that connect() chooses: the kernel gives those of the first one's parity to it, and the
 * others to bind(0). */
static uint16_t closed_port(void)
{
    uint16_t low, high;
    handed_out_ports(&low, &high);
    for (uint16_t port = (uint16_t)(low + 64); port < high; port = (uint16_t)(port + 2)) {
        int fd = bind_socket("0.0.0.0", port, BIND_PLAIN);
        if (fd < 0)
            continue;
        close(fd);
        return port;
    }
    fail_msg("no closed port");
    return 0;
}

static bool is_connected_to_itself(int fd)
{
    struct sockaddr_in own, other;
    socklen_t own_size = sizeof own, other_size = sizeof other;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &own_size), 0);
    assert_int_equal(getpeername(fd, (struct sockaddr *)&other, &other_size), 0);
    return own.sin_port == other.sin_port && own.sin_addr.s_addr == other.sin_addr.s_addr;
}

/* How many attempts the naive loop needed. */
static unsigned connect_until_it_works(uint16_t port)
{
    for (unsigned tries = 1; tries <= NAIVE_MAX; tries++) {
        int fd = connect_to(port);
        if (fd < 0)
            continue;
        bool is_itself = is_connected_to_itself(fd);
        close_at_once(fd); /* or the port would be taken for a minute */
        assert_true(is_itself);
        return tries;
    }
    fail_msg("%d attempts were not enough", NAIVE_MAX);
    return 0;
}

static kp_spec spec_of_nobody(char *const *never, uint16_t port, uint32_t flags)
{
    kp_spec spec = quiet_spec(flags & KP_SPEC_ATTACH ? NULL : never);
    if (flags & KP_SPEC_ATTACH)
        spec.log_fd = 0;
    spec.port = port;
    spec.flags = flags;
    spec.startup_timeout_ms = 50000;
    return spec;
}

static void print_probes(uint32_t flags, unsigned steps, uint64_t made, uint64_t failed)
{
    const char *way = flags & KP_SPEC_ATTACH       ? " that attaches"
                      : flags & KP_SPEC_NO_RESERVE ? " without reservation"
                                                   : "";
    printf("# libkp%s: %u steps, %llu probes, %llu refused\n", way, steps, (unsigned long long)made,
           (unsigned long long)failed);
}

/* Each early step makes a probe. The kernel has counted them, and those that were refused: a
 * probe that had connected to itself would be missing there, be it taken for a proxy or not. */
static void probe_in_vain(struct scene *scene, uint16_t port, uint32_t flags, unsigned probes)
{
    assert_result(KP_OK, start(scene, spec_of_nobody(FIXTURE("never"), port, flags)));
    struct attempts_to_connect before = attempts_to_connect();
    for (unsigned i = 0; i < probes; i++)
        assert_result(KP_AGAIN, kp_handle_step(scene->proxy, &scene->error));
    struct attempts_to_connect after = attempts_to_connect();
    uint64_t made = after.made - before.made, failed = after.failed - before.failed;
    print_probes(flags, probes, made, failed);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_STARTING);
    assert_true(made >= probes);
    if (is_alone)
        assert_int_equal(made, failed);
}

static void compare(struct scene *scene, uint32_t flags)
{
    uint16_t port = closed_port();
    unsigned tries = connect_until_it_works(port);
    printf("# a naive loop connected to itself on port %u at attempt %u\n", port, tries);
    probe_in_vain(scene, port, flags, tries > PROBES_MIN ? tries : PROBES_MIN);
}

static void a_naive_loop_does_and_probes_do_not(void **state)
{
    compare(*state, 0);
}

static void nor_do_they_without_a_reservation(void **state)
{
    compare(*state, KP_SPEC_NO_RESERVE);
}

static void nor_do_they_where_a_proxy_should_run_already(void **state)
{
    compare(*state, KP_SPEC_ATTACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE(a_naive_loop_does_and_probes_do_not),
        HOSTILE(nor_do_they_without_a_reservation),
        HOSTILE(nor_do_they_where_a_proxy_should_run_already),
    };
    is_alone = own_network();
    if (!is_alone || !narrow_ports(LOW, HIGH))
        printf("# on as many ports as there are%s\n", is_alone ? "" : ", among others");
    quiet_spec(NULL);
    return RUN(tests);
}
