/* SPDX-License-Identifier: Apache-2.0 */
/* The ways to drive a handle, and the starts and ends that are made of them. */
#include "support.h"
#include <poll.h>

static bool pause_on_clock(kp_handle *handle)
{
    int64_t ns = kp_handle_timeout_ns(handle);
    if (ns < 0)
        return false;
    sleep_ms(ns / 1000000 + (ns % 1000000 != 0));
    return true;
}

static bool pause_on_descriptor(kp_handle *handle)
{
    struct pollfd watched = {.fd = kp_handle_fd(handle), .events = POLLIN};
    if (watched.fd < 0 && on_posix())
        return pause_on_clock(handle);
    return poll(&watched, 1, PATIENCE_MS) == 1 && watched.revents == POLLIN;
}

/* Waiting for EXITED goes on through a failure of the proxy's. */
static bool ends_the_way(kp_result result, kp_state until)
{
    return result < 0 && (until == KP_STATE_READY || result == KP_ERR_SYSTEM);
}

static kp_result reach_by_steps(const struct way *way, kp_handle *handle, kp_state until,
                                kp_error *error)
{
    kp_error unused;
    int64_t end = now_ms() + PATIENCE_MS;
    while (kp_handle_state(handle) != until) {
        if (kp_handle_state(handle) > until)
            return KP_ERR_STATE;
        if (now_ms() > end || !way->pause(handle))
            return KP_AGAIN;
        kp_result result = kp_handle_step(handle, until == KP_STATE_READY ? error : &unused);
        if (ends_the_way(result, until))
            return result;
    }
    return KP_OK;
}

static kp_result reach_in_a_way(const struct way *way, kp_handle *handle, kp_state until,
                                kp_error *error)
{
    if (way->blocks)
        return kp_handle_wait(handle, until, PATIENCE_MS, error);
    return reach_by_steps(way, handle, until, error);
}

struct way ways[4] = {
    {.pause = pause_on_descriptor, .blocks = true},
    {.pause = pause_on_descriptor},
    {.pause = pause_on_clock},
    {.pause = pause_on_descriptor, .flags = KP_SPEC_NO_GUARD},
};

kp_result start(struct scene *scene, kp_spec spec)
{
    spec.flags |= scene->way->flags;
    return kp_start(&spec, &scene->proxy, &scene->error);
}

kp_result reach(struct scene *scene, kp_state until)
{
    return reach_in_a_way(scene->way, scene->proxy, until, &scene->error);
}

static void end_failed_start(struct scene *scene)
{
    kp_error unused;
    assert_result(KP_OK, reach_in_a_way(scene->way, scene->proxy, KP_STATE_EXITED, &unused));
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
}

kp_result spawn(struct scene *scene, kp_spec spec)
{
    if (scene->way->blocks)
        return kp_spawn(&spec, &scene->proxy, &scene->error);
    kp_result result = start(scene, spec);
    if (result != KP_OK)
        return result;
    result = reach(scene, KP_STATE_READY);
    if (result != KP_OK)
        end_failed_start(scene);
    return result;
}

void get_ready(struct scene *scene, kp_spec spec)
{
    assert_result(KP_OK, spawn(scene, spec));
    assert_non_null(scene->proxy);
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_READY);
}

void get_exited(struct scene *scene)
{
    assert_result(KP_OK, reach(scene, KP_STATE_EXITED));
    assert_int_equal(kp_handle_state(scene->proxy), KP_STATE_EXITED);
}

kp_result step_until_told(struct scene *scene, kp_error *error)
{
    int64_t end = now_ms() + PATIENCE_MS;
    while (now_ms() < end && kp_handle_state(scene->proxy) != KP_STATE_EXITED) {
        scene->way->pause(scene->proxy);
        kp_result result = kp_handle_step(scene->proxy, error);
        if (result < 0)
            return result;
    }
    return KP_OK;
}
