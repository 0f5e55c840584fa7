// SPDX-License-Identifier: Apache-2.0
// The C interface: checks arguments, and that the handle is this process's, and calls down.
#include "deadline.h"
#include "environment.h"
#include "error.h"
#include "handle.h"
#include "platform/cancel.h"
#include "platform/clock.h"
#include "platform/host.h"
#include "spec.h"
#include <assert.h>
#include <new>
#include <stdlib.h>

using namespace kpi;

namespace {

kp_result permitted(Call call, kp_result result)
{
    assert(may_return(call, result));
    (void)call;
    return result;
}

kp_result check_handle(const kp_handle *handle, kp_error *error)
{
    if (handle == nullptr)
        return fail_invalid(error, "handle must not be NULL");
    return handle->is_foreign() ? fail_forked(error) : KP_OK;
}

void destroy(kp_handle *handle)
{
    handle->~kp_handle();
    free(handle);
}

kp_handle *create(const kp_spec &checked, kp_error *error)
{
    kp_spec *spec = copy_spec(checked);
    void *place = spec == nullptr ? nullptr : malloc(sizeof(kp_handle));
    if (place == nullptr) {
        free(spec);
        fail_no_memory(error);
        return nullptr;
    }
    return new (place) kp_handle(spec);
}

kp_result start(const kp_spec *spec, kp_handle **handle, kp_error *error)
{
    if (handle == nullptr)
        return fail_invalid(error, "handle must not be NULL");
    *handle = nullptr;
    kp_spec checked;
    kp_result result = check_spec(spec, checked, error);
    if (result != KP_OK)
        return result;
    kp_handle *made = create(checked, error);
    if (made == nullptr)
        return KP_ERR_NO_MEMORY;
    result = made->open_log(error);
    if (result == KP_OK)
        result = made->start(error);
    if (result != KP_OK) {
        destroy(made);
        return result;
    }
    *handle = made;
    return KP_OK;
}

int64_t grace_of(const kp_handle &handle, int grace_ms)
{
    return (grace_ms < 0 ? int64_t{handle.spec().stop_grace_ms} : grace_ms) * kMillisecond;
}

// A call that waits. If the thread is cancelled meanwhile, no destructor of the library's runs.
struct Wait {
    kp_state until;
    Deadline limit;
    bool interruptible;
    kp_error *error;
    kp_handle *handle = nullptr;
    sys::Waiter waiter{interruptible};
    kp_result result = KP_OK;
};

void run(void *data)
{
    Wait &wait = *static_cast<Wait *>(data);
    wait.result =
        wait.handle->wait(wait.until, wait.limit, wait.interruptible, wait.waiter, wait.error);
}

void leave(void *data)
{
    static_cast<Wait *>(data)->~Wait();
}

void leave_and_free(void *data)
{
    kp_handle *handle = static_cast<Wait *>(data)->handle;
    leave(data);
    kp_handle_free(handle);
}

kp_result spawn(const kp_spec *spec, kp_handle **handle, kp_error *error)
{
    Wait wait = {KP_STATE_READY, Deadline::never(), false, error};
    kp_result result = start(spec, handle, error);
    if (result != KP_OK)
        return result;
    wait.handle = *handle;
    *handle = nullptr;
    sys::call_cancellable(run, leave_and_free, &wait);
    if (wait.result == KP_OK)
        *handle = wait.handle;
    else
        kp_handle_free(wait.handle);
    return wait.result;
}

kp_result check_wait(const kp_handle *handle, kp_state until, int timeout_ms, kp_error *error)
{
    kp_result result = check_handle(handle, error);
    if (result != KP_OK)
        return result;
    if (until != KP_STATE_READY && until != KP_STATE_EXITED)
        return fail_invalid(error, "kp_handle_wait waits for READY or EXITED, not for %d", until);
    if (timeout_ms < -1)
        return fail_invalid(error, "timeout_ms must be -1 or more, not %d", timeout_ms);
    if (until == KP_STATE_READY && handle->state() > KP_STATE_READY)
        return fail_state(error, "the proxy is stopping or has exited: it won't become ready");
    return KP_OK;
}

kp_result wait(kp_handle *handle, kp_state until, int timeout_ms, kp_error *error)
{
    kp_result result = check_wait(handle, until, timeout_ms, error);
    if (result != KP_OK)
        return result;
    Deadline limit =
        timeout_ms < 0 ? Deadline::never() : Deadline::after(sys::now(), timeout_ms * kMillisecond);
    Wait wait = {until, limit, true, error, handle};
    sys::call_cancellable(run, leave, &wait);
    return wait.result;
}

kp_result restart(kp_handle *handle, kp_error *error)
{
    kp_result result = check_handle(handle, error);
    if (result != KP_OK)
        return result;
    if (handle->state() != KP_STATE_EXITED)
        return fail_state(error, "the proxy has not exited yet: it can't be restarted");
    return handle->start(error);
}

} // namespace

kp_result kp_start(const kp_spec *spec, kp_handle **handle, kp_error *error)
{
    sys::Uncancelled uncancelled;
    return permitted(Call::Start, start(spec, handle, error));
}

kp_result kp_spawn(const kp_spec *spec, kp_handle **handle, kp_error *error)
{
    return permitted(Call::Spawn, spawn(spec, handle, error));
}

int kp_handle_fd(kp_handle *handle)
{
    sys::Uncancelled uncancelled;
    return check_handle(handle, nullptr) == KP_OK ? handle->fd() : -1;
}

int64_t kp_handle_timeout_ns(const kp_handle *handle)
{
    return check_handle(handle, nullptr) == KP_OK ? handle->timeout() : -1;
}

kp_result kp_handle_step(kp_handle *handle, kp_error *error)
{
    sys::Uncancelled uncancelled;
    kp_result result = check_handle(handle, error);
    return permitted(Call::Step, result == KP_OK ? handle->step(error) : result);
}

kp_result kp_handle_wait(kp_handle *handle, kp_state until, int timeout_ms, kp_error *error)
{
    return permitted(Call::Wait, wait(handle, until, timeout_ms, error));
}

kp_state kp_handle_state(const kp_handle *handle)
{
    return handle == nullptr ? 0 : handle->state();
}

uint16_t kp_handle_port(const kp_handle *handle)
{
    return handle == nullptr ? uint16_t{0} : handle->port();
}

pid_t kp_handle_pid(const kp_handle *handle)
{
    return handle == nullptr ? 0 : handle->proxy().pid();
}

const char *kp_handle_url(const kp_handle *handle)
{
    return handle == nullptr ? "" : handle->url();
}

int kp_handle_exit_status(const kp_handle *handle, int *exit_code, int *term_signal)
{
    if (handle == nullptr || !handle->proxy().was_ended())
        return 0;
    if (exit_code != nullptr)
        *exit_code = handle->proxy().exit().code;
    if (term_signal != nullptr)
        *term_signal = handle->proxy().exit().signal;
    return 1;
}

kp_result kp_handle_stop(kp_handle *handle, int grace_ms)
{
    sys::Uncancelled uncancelled;
    kp_result result = check_handle(handle, nullptr);
    if (result == KP_OK && grace_ms < -1)
        result = KP_ERR_INVALID;
    if (result == KP_OK)
        handle->stop(grace_of(*handle, grace_ms));
    return permitted(Call::Stop, result);
}

kp_result kp_handle_restart(kp_handle *handle, kp_error *error)
{
    sys::Uncancelled uncancelled;
    return permitted(Call::Restart, restart(handle, error));
}

void kp_handle_free(kp_handle *handle)
{
    sys::Uncancelled uncancelled;
    if (handle == nullptr)
        return;
    if (!handle->is_foreign()) {
        sys::Waiter waiter(false);
        handle->stop(grace_of(*handle, -1));
        handle->wait(KP_STATE_EXITED, Deadline::never(), false, waiter, nullptr);
        handle->reap(); // one that was given up may have ended since
    }
    destroy(handle);
}

// Async-signal-safe: the generation that tells a child is read from a page that is there since the
// handle was made.
void kp_handle_detach(kp_handle *handle)
{
    if (handle != nullptr && handle->is_foreign())
        handle->let_go();
}

char **kp_env_new(const kp_handle *handle, char *const base[])
{
    char *const *under = base == nullptr ? sys::environment() : base;
    return handle == nullptr ? plain_environment(under)
                             : bouquet(handle->spec(), handle->url(), under);
}

void kp_env_free(char **env)
{
    free(env);
}

namespace {

struct Name {
    kp_result result;
    char text[24]; // a pointer would need a relocation
};

#define KP_NAME(result)                                                                            \
    {                                                                                              \
        result, #result                                                                            \
    }
constexpr Name kNames[] = {
    KP_NAME(KP_OK),
    KP_NAME(KP_AGAIN),
    KP_NAME(KP_ERR_INVALID),
    KP_NAME(KP_ERR_NO_MEMORY),
    KP_NAME(KP_ERR_SYSTEM),
    KP_NAME(KP_ERR_PORT_IN_USE),
    KP_NAME(KP_ERR_SPAWN),
    KP_NAME(KP_ERR_GUARD),
    KP_NAME(KP_ERR_EXITED),
    KP_NAME(KP_ERR_TIMED_OUT),
    KP_NAME(KP_ERR_FOREIGN_LISTENER),
    KP_NAME(KP_ERR_NOT_HTTP),
    KP_NAME(KP_ERR_STATE),
    KP_NAME(KP_ERR_FORKED),
};
#undef KP_NAME

} // namespace

const char *kp_result_name(kp_result result)
{
    for (const Name &name : kNames)
        if (name.result == result)
            return name.text;
    return "unknown";
}

const char *kp_version(void)
{
    return KP_VERSION;
}
