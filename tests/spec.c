/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that is wrong with a spec is found before anything is started, and named. */
#include "support.h"
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define EMPTY_COMMAND "command must not be empty"

/* A spec with one thing wrong in it, and a word that the message must hold. */
struct wrong {
    kp_spec spec;
    const char *word;
};

static char true_word[] = "true", empty_word[] = "";
static char *true_argv[] = {true_word, NULL};
static char *nothing[] = {NULL};
static char *nameless[] = {empty_word, NULL};

static char no_equals[] = "JUST_A_NAME", no_name[] = "=value", sets_port[] = "KODA_PROXY_PORT=1";
static char sets_own_port[] = "OWN_PORT=1", sets_as_long[] = "OWN_PART=1", good[] = "GOOD=1";
static char *env_no_equals[] = {good, no_equals, NULL};
static char *env_no_name[] = {good, no_name, NULL};
static char *env_sets_port[] = {good, sets_port, NULL};
static char *env_sets_own_port[] = {sets_own_port, good, NULL};
static char *env_sets_others[] = {sets_port, sets_as_long, NULL};

#define SPEC(...)                                                                                  \
    {                                                                                              \
        .size = sizeof(kp_spec), .argv = true_argv, __VA_ARGS__                                    \
    }
#define WRONG(...) (&(struct wrong){__VA_ARGS__})

static void assert_says_invalid(const struct wrong *wrong, kp_result result, const kp_error *error)
{
    assert_result(KP_ERR_INVALID, result);
    assert_int_equal(error->code, KP_ERR_INVALID);
    assert_int_equal(error->exit_code, -1);
    assert_int_equal(error->term_signal, 0);
    assert_string_equal(error->output, "");
    assert_contains(error->message, wrong->word);
}

typedef kp_result start_fn(const kp_spec *, kp_handle **, kp_error *);

static void refuse(start_fn *begin, const struct wrong *wrong)
{
    char unset;
    kp_handle *handle = (kp_handle *)(void *)&unset;
    kp_error error;
    error_fill(&error);
    assert_says_invalid(wrong, begin(&wrong->spec, &handle, &error), &error);
    assert_null(handle);
    handle = (kp_handle *)(void *)&unset;
    assert_result(KP_ERR_INVALID, begin(&wrong->spec, &handle, NULL));
    assert_null(handle);
}

static void refuse_by_both(const struct wrong *wrong)
{
    refuse(kp_start, wrong);
    refuse(kp_spawn, wrong);
}

static void no_command(void **state)
{
    (void)state;
    refuse_by_both(WRONG({.size = sizeof(kp_spec)}, EMPTY_COMMAND));
    refuse_by_both(WRONG({.size = sizeof(kp_spec), .argv = nothing}, EMPTY_COMMAND));
    refuse_by_both(WRONG({.size = sizeof(kp_spec), .argv = nameless}, EMPTY_COMMAND));
}

static void sizes_that_make_no_sense(void **state)
{
    (void)state;
    refuse_by_both(WRONG({.size = 0, .argv = true_argv}, "size"));
    refuse_by_both(WRONG({.size = 1, .argv = true_argv}, "size"));
    refuse_by_both(WRONG({.size = offsetof(kp_spec, env) + 4, .argv = true_argv}, "size"));
    refuse_by_both(WRONG({.size = sizeof(size_t), .argv = true_argv}, ""));
    refuse_by_both(WRONG({.size = 4096 + sizeof(size_t), .argv = true_argv}, "size"));
}

/* What lies beyond the size that the caller knows is not read: its port would be an error. */
static void a_shorter_spec_is_filled_up_with_zeros(void **state)
{
    (void)state;
    struct wrong wrong = {{.size = offsetof(kp_spec, port), .port = 70000}, EMPTY_COMMAND};
    wrong.spec.reserved = 1;
    refuse_by_both(&wrong);
}

struct longer_spec {
    kp_spec spec;
    uint64_t tail[4];
};

static void a_longer_spec_may_end_in_zeros(void **state)
{
    (void)state;
    struct longer_spec longer = {{.size = sizeof longer}, {0}};
    kp_handle *handle;
    kp_error error;
    assert_result(KP_ERR_INVALID, kp_start(&longer.spec, &handle, &error));
    assert_string_equal(error.message, EMPTY_COMMAND);
}

static void a_longer_spec_with_unknown_fields(void **state)
{
    (void)state;
    struct longer_spec longer = {SPEC(.flags = 0), {0, 0, 0, 1}};
    kp_handle *handle;
    kp_error error;
    longer.spec.size = sizeof longer;
    assert_result(KP_ERR_INVALID, kp_start(&longer.spec, &handle, &error));
    assert_null(handle);
    assert_true(strstr(error.message, EMPTY_COMMAND) == NULL);
}

static void environment_entries(void **state)
{
    (void)state;
    refuse_by_both(WRONG(SPEC(.env = env_no_equals), "env"));
    refuse_by_both(WRONG(SPEC(.env = env_no_name), "env"));
    refuse_by_both(WRONG(SPEC(.env = env_sets_port), "KODA_PROXY_PORT"));
}

static void a_port_variable_of_ones_own(void **state)
{
    (void)state;
    refuse_by_both(WRONG(SPEC(.env = env_sets_own_port, .port_env = "OWN_PORT"), "OWN_PORT"));
    refuse_by_both(WRONG(SPEC(.port_env = ""), "port_env"));
    refuse_by_both(WRONG(SPEC(.port_env = "A=B"), "port_env"));
}

/* As of a shell's unset variable: clients would trust nobody. */
static void an_empty_ca_bundle(void **state)
{
    (void)state;
    refuse_by_both(WRONG(SPEC(.ca_bundle = ""), "ca_bundle"));
}

/* Only the variable that carries the port is the library's, by its whole name. */
static void the_default_port_variable_is_free_when_another_carries_the_port(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.env = env_sets_others;
    spec.port_env = "OWN_PORT";
    assert_result(KP_OK, start(scene, spec));
}

static void unknown_flags(void **state)
{
    (void)state;
    for (unsigned bit = 6; bit < 32; bit++)
        refuse_by_both(WRONG(SPEC(.flags = UINT32_C(1) << bit), "flag"));
}

#define ATTACH(...)                                                                                \
    {                                                                                              \
        .size = sizeof(kp_spec), .flags = KP_SPEC_ATTACH, .port = 1080, __VA_ARGS__                \
    }

static void what_attaching_has_no_use_for(void **state)
{
    (void)state;
    refuse_by_both(WRONG({.size = sizeof(kp_spec), .flags = KP_SPEC_ATTACH}, "port"));
    refuse_by_both(WRONG(ATTACH(.argv = true_argv), "argv"));
    refuse_by_both(WRONG(ATTACH(.argv = nameless), "argv"));
    refuse_by_both(WRONG(ATTACH(.env = env_sets_own_port), "env"));
    refuse_by_both(WRONG(ATTACH(.cwd = "/"), "cwd"));
    refuse_by_both(WRONG(ATTACH(.log_fd = 2), "log_fd"));
}

static void flags_that_do_not_go_with_attaching(void **state)
{
    (void)state;
    static const uint32_t others[] = {KP_SPEC_CLEAR_ENV, KP_SPEC_NO_GUARD, KP_SPEC_NO_RESERVE};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        refuse_by_both(
            WRONG({.size = sizeof(kp_spec), .flags = KP_SPEC_ATTACH | others[i], .port = 1080},
                  "KP_SPEC_ATTACH"));
}

static void ports_above_65535(void **state)
{
    (void)state;
    refuse_by_both(WRONG(SPEC(.port = 65536), "port"));
    refuse_by_both(WRONG(SPEC(.port = UINT32_MAX), "port"));
}

static int closed_descriptor(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(fd);
    return fd;
}

static void logs_that_are_not_open(void **state)
{
    (void)state;
    refuse_by_both(WRONG(SPEC(.log_fd = -1), "log_fd"));
    refuse_by_both(WRONG(SPEC(.log_fd = closed_descriptor()), "log_fd"));
    refuse_by_both(WRONG(SPEC(.log_fd = INT_MAX), "log_fd"));
}

static void a_log_that_can_only_be_read(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    refuse_by_both(WRONG(SPEC(.log_fd = fd), "not open for writing"));
    close(fd);
}

static void a_reserved_field_that_is_set(void **state)
{
    (void)state;
    refuse_by_both(WRONG(SPEC(.reserved = 1), "reserved"));
}

static void no_spec(void **state)
{
    struct scene *scene = *state;
    assert_result(KP_ERR_INVALID, kp_start(NULL, &scene->proxy, &scene->error));
    assert_int_equal(scene->error.code, KP_ERR_INVALID);
    assert_true(scene->error.message[0] != '\0');
    assert_result(KP_ERR_INVALID, kp_spawn(NULL, &scene->proxy, NULL));
}

static void no_place_for_the_handle(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    assert_result(KP_ERR_INVALID, kp_start(&spec, NULL, &scene->error));
    assert_int_equal(scene->error.code, KP_ERR_INVALID);
    assert_result(KP_ERR_INVALID, kp_spawn(&spec, NULL, NULL));
}

/* The program would leave a file behind. */
static void nothing_was_started(void **state)
{
    struct scene *scene = *state;
    const char *trace = scene_path(scene, "started");
    kp_spec spec = spec_for(WORDS("touch", trace));
    spec.flags = UINT32_C(1) << 30;
    assert_result(KP_ERR_INVALID, start(scene, spec));
    sleep_ms(50);
    assert_false(file_exists(trace));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(no_command),
        TEST(sizes_that_make_no_sense),
        TEST(a_shorter_spec_is_filled_up_with_zeros),
        TEST(a_longer_spec_may_end_in_zeros),
        TEST(a_longer_spec_with_unknown_fields),
        TEST(environment_entries),
        TEST(a_port_variable_of_ones_own),
        TEST(an_empty_ca_bundle),
        TEST(the_default_port_variable_is_free_when_another_carries_the_port),
        TEST(unknown_flags),
        TEST(what_attaching_has_no_use_for),
        TEST(flags_that_do_not_go_with_attaching),
        TEST(ports_above_65535),
        TEST(logs_that_are_not_open),
        TEST(a_log_that_can_only_be_read),
        TEST(a_reserved_field_that_is_set),
        TEST(no_spec),
        TEST(no_place_for_the_handle),
        TEST(nothing_was_started),
    };
    return RUN(tests);
}
