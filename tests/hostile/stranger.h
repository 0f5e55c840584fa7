/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes of the test's own that stand for others on the machine. They are ended by
 * hostile_close, by their id, and by the kernel when the test's process dies. They must be
 * there before the first handle is: a fork holds the pipes of guards.
 */
#ifndef KP_TESTS_HOSTILE_STRANGER_H
#define KP_TESTS_HOSTILE_STRANGER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { NOBODY = 65534 }; /* a uid that is nobody's of these tests */

/* Scenes whose strangers are ended too. */
int hostile_open(void **state);
int hostile_close(void **state);
#define HOSTILE(name) cmocka_unit_test_setup_teardown(name, hostile_open, hostile_close)

/* Starts a process as `uid` that runs `body` with its end of a channel. Returns the other
 * end, or -1 where this process may not become that user. */
int recruit(uid_t uid, void (*body)(int channel, const void *data), const void *data);

/* Reads or writes it whole; false: the other end is gone. */
bool channel_read(int channel, void *data, size_t size);
bool channel_write(int channel, const void *data, size_t size);

/* ---- A stranger that takes orders: one socket at a time ------------------ */

enum act { ACT_BIND, ACT_LISTEN, ACT_TAKE /* both */, ACT_CLOSE };
enum {
    WITH_REUSEADDR = 1 << 0,
    WITH_REUSEPORT = 1 << 1,
    WITH_FREEBIND = 1 << 2,
    WITH_TRANSPARENT = 1 << 3,
    WITH_DEVICE = 1 << 4, /* lo */
    WITH_V6ONLY = 1 << 5
};

struct order {
    enum act act;
    int options;
    uint16_t port;
    char address[46];
};

struct order order_for(enum act act, const char *address, uint16_t port, int options);

/* The addresses whose listener receives what is sent to 127.0.0.1. */
enum { LOOPBACKS = 5 };
extern const char *const loopbacks[LOOPBACKS];

int stranger(uid_t uid);

/* The stranger's errno; 0: done. EOPNOTSUPP: it may not set one of the options. */
int ask(int channel, struct order order);
void tell(int channel, struct order order);
int answer(int channel);

#endif
