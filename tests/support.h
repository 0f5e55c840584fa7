/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all tests share.
 *
 * A scene is what one test plays in: a folder of its own, the handle that it drives, and
 * the census of descriptors and processes from before it. The teardown frees the handle
 * and takes the census again: a test after which there is one descriptor, one child or one
 * process of a proxy more than before has failed, whatever it asserted.
 *
 * A way is how a test drives a handle: with the calls that block, by stepping whenever the
 * descriptor is readable, by stepping on time. EACH_WAY runs a test once for each.
 */
#ifndef KP_TESTS_SUPPORT_H
#define KP_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <kp/kp.h>

/* How long anything may take before it counts as never. */
enum { PATIENCE_MS = 20000 };

/* ---- Scenes ------------------------------------------------------------- */

enum { MAX_FDS = 256, MARK_SIZE = 64 };

struct census {
    int fd[MAX_FDS];
    size_t fds, children;
    char mark[MARK_SIZE]; /* a variable that every process of the scene's inherits */
};

struct scene {
    struct way *way;
    kp_handle *proxy; /* the teardown frees these two */
    kp_handle *second;
    kp_error error; /* of the call that failed last */
    char dir[32];
    struct census before;
};

int scene_open(void **state);
int scene_close(void **state);

/* The path of a file in the scene's folder; valid until the test ends. */
char *scene_path(const struct scene *scene, const char *name);

struct census census_take(void);

/* What there is more (or less) of than then, in words; "" when all is as it was. */
const char *census_leaks(const struct census *before);

/* Kills what the scene's marked processes left; how many there were. */
size_t census_end_strays(const struct census *before);

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_open, scene_close)
#define TEST_WAY(name, label, way)                                                                 \
    {                                                                                              \
#name " [" label "]", name, scene_open, scene_close, way                                   \
    }
#define EACH_GUARDED_WAY(name)                                                                     \
    TEST_WAY(name, "blocking", &ways[0]), TEST_WAY(name, "descriptor", &ways[1]),                  \
        TEST_WAY(name, "clock", &ways[2])
#define EACH_WAY(name) EACH_GUARDED_WAY(name), TEST_WAY(name, "no guard", &ways[3])

#define RUN(tests) cmocka_run_group_tests(tests, NULL, NULL)

/* ---- Ways --------------------------------------------------------------- */

struct way {
    uint32_t flags;                   /* for the spec */
    bool blocks;                      /* with the calls that do, where there is one */
    bool (*pause)(kp_handle *handle); /* until a step is due; false: nothing came in time */
};

extern struct way ways[4];

/* kp_start with the scene's flags; the handle is the scene's. */
kp_result start(struct scene *scene, kp_spec spec);

/* What kp_spawn does, in the scene's way: nothing is left after a failure. */
kp_result spawn(struct scene *scene, kp_spec spec);

/* What kp_handle_wait(handle, until, PATIENCE_MS) does, in the scene's way. */
kp_result reach(struct scene *scene, kp_state until);

/* The same, asserted. */
void get_ready(struct scene *scene, kp_spec spec);
void get_exited(struct scene *scene);

/* Steps until a failure is told and returns it; KP_OK when it went to EXITED without one. */
kp_result step_until_told(struct scene *scene, kp_error *error);

/* ---- Specs -------------------------------------------------------------- */

/* An array of strings that ends with NULL, as argv and env want it. */
#define WORDS(...) words((const char *[]){__VA_ARGS__, NULL})
#define FIXTURE(...) WORDS(fixture(), __VA_ARGS__)
#define SHELL(script) WORDS("/bin/sh", "-c", script, fixture()) /* $0 is the fixture */

char *const *words(void *list);
const char *fixture(void);
void use_fixture(const char *path); /* from now on; not copied */
kp_spec spec_for(char *const *argv);

/* ---- Assertions --------------------------------------------------------- */

#define assert_result(expected, result) assert_result_at(expected, result, __FILE__, __LINE__)
#define assert_contains(text, part) assert_contains_at(text, part, __FILE__, __LINE__)
#define assert_starts_with(text, start) assert_starts_with_at(text, start, __FILE__, __LINE__)

void assert_result_at(kp_result expected, kp_result result, const char *file, int line);
void assert_contains_at(const char *text, const char *part, const char *file, int line);
void assert_starts_with_at(const char *text, const char *start, const char *file, int line);

/* An error that nobody has written since error_fill. */
void error_fill(kp_error *error);
bool error_untouched(const kp_error *error);

/* cmocka 1.1.5 tells a skipped test as "not ok" in TAP: a test that can't hold in some place
 * says so and returns; a comment in it says why. */
bool left_out(const char *test, const char *place);
bool left_out_under_valgrind(const char *test);
bool under_valgrind(void);

/* Whether the library was built on lib/posix: no kp_handle_fd(), and nobody knows who listens. */
bool left_out_on_posix(const char *test);
bool on_posix(void);

/* ---- Forked hosts ------------------------------------------------------- */

/* Runs `body` in a forked child, where only CHECK may assert; the child's exit status, or
 * 128 and its signal. */
int in_child(void (*body)(struct scene *), struct scene *scene);

/* In a child cmocka's assertions would go on with the parent's tests. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            check_failed(__FILE__, __LINE__, #condition);                                          \
    } while (0)
_Noreturn void check_failed(const char *file, int line, const char *condition);

/* Where its words go; the standard error, unless a child has closed that. */
extern int check_output;

/* ---- Time, files, ports ------------------------------------------------- */

int64_t now_ms(void);
void sleep_ms(int64_t ms);

size_t file_read(const char *path, char *buffer, size_t size); /* terminates it, too */
void file_write(const char *path, const char *text, unsigned mode);
bool file_exists(const char *path);

/* A port that nobody has, outside of the range that the kernel hands out. */
uint16_t free_port(void);

/* A socket bound to this address and port, or -1 and errno. Options: SO_* of one's own. */
enum { BIND_PLAIN = 0, BIND_REUSEADDR = 1, BIND_REUSEPORT = 2, BIND_LISTEN = 4 };
int bind_socket(const char *address, uint16_t port, int options);

/* A connection to 127.0.0.1:port, or -1. */
int connect_to(uint16_t port);
bool port_answers(uint16_t port);

/* Has the fixture of the mode exit-when-asked exit: by itself, and once it was seen ready. */
bool ask_to_exit(uint16_t port);

#endif
