/* SPDX-License-Identifier: Apache-2.0 */
#include "stopping.h"
#include <unistd.h>

kp_spec with_grace(char *const *argv, uint32_t grace_ms)
{
    kp_spec spec = spec_for(argv);
    spec.stop_grace_ms = grace_ms;
    return spec;
}

pid_t group_of(const struct scene *scene)
{
    return getpgid(kp_handle_pid(scene->proxy));
}

int64_t stop(struct scene *scene, int grace_ms)
{
    int64_t begin = now_ms();
    pid_t group = group_of(scene);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, grace_ms));
    get_exited(scene);
    int64_t took = now_ms() - begin;
    assert_int_equal(group_size(group), 0);
    assert_false(process_lives(kp_handle_pid(scene->proxy)));
    assert_false(port_answers(kp_handle_port(scene->proxy)));
    return took;
}

int64_t free_now(struct scene *scene)
{
    pid_t group = group_of(scene), pid = kp_handle_pid(scene->proxy);
    int64_t begin = now_ms();
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    int64_t took = now_ms() - begin;
    assert_false(process_lives(pid));
    assert_true(group < 0 || group_size(group) == 0);
    assert_string_equal(census_leaks(&scene->before), "");
    return took;
}

bool left_out_without_pidfds(const char *test)
{
    return left_out_under_valgrind(test) || left_out_on_posix(test);
}

void assert_exit(const struct scene *scene, int exit_code, int signal_number)
{
    int found_code = 77, found_signal = 77;
    assert_int_equal(kp_handle_exit_status(scene->proxy, &found_code, &found_signal), 1);
    assert_int_equal(found_code, exit_code);
    assert_int_equal(found_signal, signal_number);
}
