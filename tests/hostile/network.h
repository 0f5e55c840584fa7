/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network that the hostile tests play in: a namespace of their own, in which the kernel
 * hands out a few thousand ports, so that collisions are quick and certain, and nobody else
 * is met. What is there is read from /proc, which the library does not do for sockets.
 */
#ifndef KP_TESTS_HOSTILE_NETWORK_H
#define KP_TESTS_HOSTILE_NETWORK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Moves this process, which must have one thread, into a namespace of this kind (CLONE_NEW*) of
 * its own. Without privileges that comes with a user namespace, in which one stays who one is.
 * False: not allowed here. */
bool own_namespace(int kind);

/* Moves this process, which must have one thread, into a network of its own whose loopback
 * is up. False: not allowed here. */
bool own_network(void);

/* The ports that the kernel hands out from now on; false: they could not be changed. */
bool narrow_ports(uint16_t low, uint16_t high);

/* Those that it hands out now. */
void handed_out_ports(uint16_t *low, uint16_t *high);

/* The exit status for a program whose tests all need what is not there, told in TAP. */
int leave_out_all(const char *reason);

/* The same for a part of a test: with KP_TEST_REQUIRE=1 the test fails. Always true. */
bool left_out_here(const char *part, const char *reason);

/* The listeners that a connection to 127.0.0.1:port may reach: those whose socket the
 * process `proxy` holds, and all others. */
struct listeners {
    unsigned own, foreign;
};
struct listeners listeners_at(uint16_t port, pid_t proxy);

/* Waits until `proxy` itself listens there; false: PATIENCE_MS were not enough. */
bool eventually_listens(uint16_t port, pid_t proxy);

/* Closes a connection so that nothing of it stays in TIME_WAIT. */
void close_at_once(int fd);

/* How many connections this network has tried to open so far, and how many of them came to
 * nothing. */
struct attempts_to_connect {
    uint64_t made, failed;
};
struct attempts_to_connect attempts_to_connect(void);

#endif
