/* SPDX-License-Identifier: Apache-2.0 */
#include "forked.h"
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

kp_spec with_grace(char *const *argv, uint32_t grace_ms)
{
    kp_spec spec = spec_for(argv);
    spec.stop_grace_ms = grace_ms;
    return spec;
}

/* What a host without the descriptor does. Who waits by the clock must not make it. */
static void fall_back_to_the_clock(struct scene *scene)
{
    static struct way by_clock;
    bool by_descriptor = !scene->way->blocks && scene->way->pause == ways[1].pause;
    if (!by_descriptor || kp_handle_fd(scene->proxy) >= 0)
        return;
    by_clock = ways[2];
    by_clock.flags = scene->way->flags;
    scene->way = &by_clock;
}

kp_result reach_somehow(struct scene *scene, kp_state until)
{
    fall_back_to_the_clock(scene);
    return reach(scene, until);
}

kp_result told_somehow(struct scene *scene)
{
    fall_back_to_the_clock(scene);
    return step_until_told(scene, &scene->error);
}

void check_ready(struct scene *scene, kp_spec spec)
{
    CHECK_RESULT(KP_OK, start(scene, spec));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_READY));
    CHECK(port_answers(kp_handle_port(scene->proxy)));
}

int64_t check_stop(struct scene *scene, int grace_ms)
{
    int64_t begin = now_ms();
    CHECK_RESULT(KP_OK, kp_handle_stop(scene->proxy, grace_ms));
    CHECK_RESULT(KP_OK, reach_somehow(scene, KP_STATE_EXITED));
    CHECK(kp_handle_exit_status(scene->proxy, NULL, NULL) == 1);
    return now_ms() - begin;
}

int64_t check_free(struct scene *scene)
{
    int64_t begin = now_ms();
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    return now_ms() - begin;
}

const char *install_program(const struct scene *scene, const char *program, const char *name,
                            const char *mode)
{
    int status = -1;
    const char *path = scene_path(scene, name);
    char *const *command = WORDS("install", "-m", mode, program, path);
    assert_int_equal(chmod(scene->dir, 0711), 0);
    pid_t pid = fork();
    if (pid == 0) {
        execvp(command[0], command);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    return path;
}
