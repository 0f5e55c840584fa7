/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the veneer hands to C. The C library is this file: it keeps what it was called with,
 * and answers what the case wants.
 */
#include "check.hpp"

#include <cstring>
#include <kp/kp.hpp>
#include <string>
#include <type_traits>

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

namespace {

int started;
kp_spec seen;
std::string seen_argv, seen_env;
std::string seen_cwd, seen_ca_bundle, seen_no_proxy, seen_port_env;

kp_result answer;
int freed, detached, freed_env;
kp_state seen_until;
int seen_ms;
std::int64_t timeout_ns;
int exited;
bool no_memory;

char handle_memory;
kp_handle *const some_handle = reinterpret_cast<kp_handle *>(&handle_memory);
char *some_env[] = {nullptr};

std::string joined(char *const *list)
{
    std::string text = list != nullptr ? "" : "NULL";
    for (; list != nullptr && *list != nullptr; list++)
        text += std::string(*list) + "|";
    return text;
}

std::string text(const char *string)
{
    return string != nullptr ? string : "NULL";
}

kp_result answered(kp_error *error)
{
    if (answer < 0 && error != nullptr)
        *error = {answer, ENOENT, 7, 9, "the message", "the output", {}};
    return answer;
}

kp_result take(const kp_spec *spec, kp_handle **handle, kp_error *error)
{
    started++;
    seen = *spec;
    seen_argv = joined(spec->argv);
    seen_env = joined(spec->env);
    seen_cwd = text(spec->cwd);
    seen_ca_bundle = text(spec->ca_bundle);
    seen_no_proxy = text(spec->no_proxy);
    seen_port_env = text(spec->port_env);
    *handle = answer < 0 ? nullptr : some_handle;
    return answered(error);
}

} // namespace

kp_result kp_spawn(const kp_spec *spec, kp_handle **handle, kp_error *error)
{
    return take(spec, handle, error);
}

kp_result kp_start(const kp_spec *spec, kp_handle **handle, kp_error *error)
{
    return take(spec, handle, error);
}

int kp_handle_fd(kp_handle *handle)
{
    return handle == some_handle ? 5 : -1;
}

int64_t kp_handle_timeout_ns(const kp_handle *)
{
    return timeout_ns;
}

kp_result kp_handle_step(kp_handle *, kp_error *error)
{
    return answered(error);
}

kp_result kp_handle_wait(kp_handle *, kp_state until, int timeout_ms, kp_error *error)
{
    seen_until = until;
    seen_ms = timeout_ms;
    return answered(error);
}

kp_state kp_handle_state(const kp_handle *handle)
{
    return handle == some_handle ? KP_STATE_READY : 0;
}

uint16_t kp_handle_port(const kp_handle *handle)
{
    return handle == some_handle ? 8080 : 0;
}

pid_t kp_handle_pid(const kp_handle *handle)
{
    return handle == some_handle ? 4711 : 0;
}

const char *kp_handle_url(const kp_handle *handle)
{
    return handle == some_handle ? "http://127.0.0.1:8080" : "";
}

int kp_handle_exit_status(const kp_handle *, int *exit_code, int *term_signal)
{
    if (exited == 1) {
        *exit_code = 3;
        *term_signal = 15;
    }
    return exited;
}

kp_result kp_handle_stop(kp_handle *, int grace_ms)
{
    seen_ms = grace_ms;
    return answer;
}

kp_result kp_handle_restart(kp_handle *, kp_error *error)
{
    return answered(error);
}

void kp_handle_free(kp_handle *handle)
{
    freed += handle == some_handle;
}

void kp_handle_detach(kp_handle *handle)
{
    detached += handle == some_handle;
}

char **kp_env_new(const kp_handle *, char *const base[])
{
    return no_memory || base == nullptr ? nullptr : some_env;
}

void kp_env_free(char **env)
{
    freed_env += env == some_env;
}

namespace {

void forget()
{
    started = freed = detached = freed_env = exited = 0;
    answer = KP_OK;
    no_memory = false;
}

kp::Spec true_spec()
{
    kp::Spec spec;
    spec.argv = {"true"};
    return spec;
}

void hand_over(const kp::Spec &spec)
{
    kp_error error;
    CHECK(bool(kp::try_start(spec, error)));
}

void new_sets_defaults()
{
    hand_over(true_spec());
    CHECK(seen.size == sizeof(kp_spec));
    CHECK(seen_argv == "true|");
    CHECK(seen_env == "");
    CHECK(seen.cwd == nullptr && seen.ca_bundle == nullptr);
    CHECK(seen.no_proxy == nullptr && seen.port_env == nullptr);
    CHECK(seen.flags == 0 && seen.port == 0 && seen.log_fd == 0 && seen.reserved == 0);
    CHECK(seen.startup_timeout_ms == 0 && seen.stop_grace_ms == 0);
}

void each_field_has_its_own_place()
{
    kp::Spec spec;
    spec.argv = {"program", "", "argument"};
    spec.env = {"A=1", "B="};
    spec.cwd = "/cwd";
    spec.ca_bundle = "/ca";
    spec.no_proxy = "";
    spec.port_env = "PORT";
    spec.flags = KP_SPEC_CLEAR_ENV | KP_SPEC_NO_GUARD;
    spec.startup_timeout = std::chrono::seconds(11);
    spec.stop_grace = milliseconds(12);
    spec.log_fd = 13;
    spec.port = 70000; /* the library's to refuse, not ours to wrap */
    hand_over(spec);
    CHECK(seen_argv == "program||argument|");
    CHECK(seen_env == "A=1|B=|");
    CHECK(seen_cwd == "/cwd");
    CHECK(seen_ca_bundle == "/ca");
    CHECK(seen.no_proxy != nullptr && seen_no_proxy == "");
    CHECK(seen_port_env == "PORT");
    CHECK(seen.flags == (KP_SPEC_CLEAR_ENV | KP_SPEC_NO_GUARD));
    CHECK(seen.startup_timeout_ms == 11000);
    CHECK(seen.stop_grace_ms == 12);
    CHECK(seen.log_fd == 13);
    CHECK(seen.port == 70000);
}

void attach_sets_flag_and_port_alone()
{
    static_assert(std::is_aggregate<kp::Spec>::value, "as it is without that function");
    hand_over(kp::Spec::attach(8080));
    CHECK(seen.flags == KP_SPEC_ATTACH && seen.port == 8080);
    CHECK(seen_argv == "" && seen_env == "");
    CHECK(seen.cwd == nullptr && seen.ca_bundle == nullptr);
    CHECK(seen.no_proxy == nullptr && seen.port_env == nullptr);
    CHECK(seen.log_fd == 0 && seen.startup_timeout_ms == 0 && seen.stop_grace_ms == 0);
    hand_over(kp::Spec::attach(70000));
    CHECK(seen.port == 70000);
}

std::uint32_t as_spec(milliseconds time)
{
    kp::Spec spec = true_spec();
    spec.startup_timeout = spec.stop_grace = time;
    hand_over(spec);
    CHECK(seen.startup_timeout_ms == seen.stop_grace_ms);
    return seen.startup_timeout_ms;
}

void spec_durations_never_wrap()
{
    CHECK(as_spec(milliseconds(0)) == 1);
    CHECK(as_spec(milliseconds(-1)) == 1);
    CHECK(as_spec(milliseconds::min()) == 1);
    CHECK(as_spec(milliseconds(1)) == 1);
    CHECK(as_spec(milliseconds(4294967295)) == UINT32_MAX);
    CHECK(as_spec(milliseconds(4294967296)) == UINT32_MAX);
    CHECK(as_spec(milliseconds::max()) == UINT32_MAX);
}

void call_durations_never_wrap()
{
    kp_error error;
    kp::Proxy proxy(some_handle);
    CHECK(proxy.try_wait(KP_STATE_EXITED, std::nullopt, error) == KP_OK);
    CHECK(seen_until == KP_STATE_EXITED && seen_ms == -1);
    CHECK(proxy.try_wait(KP_STATE_READY, milliseconds(-1), error) == KP_OK);
    CHECK(seen_until == KP_STATE_READY && seen_ms == 0);
    CHECK(proxy.try_wait(KP_STATE_READY, hours(24 * 365), error) == KP_OK && seen_ms == INT32_MAX);
    CHECK(proxy.stop() == KP_OK && seen_ms == -1);
    CHECK(proxy.stop(milliseconds(0)) == KP_OK && seen_ms == 0);
    CHECK(proxy.stop(milliseconds(-5)) == KP_OK && seen_ms == 0);
    CHECK(proxy.stop(milliseconds(1234)) == KP_OK && seen_ms == 1234);
    CHECK(proxy.stop(milliseconds::max()) == KP_OK && seen_ms == INT32_MAX);
}

void refused(const kp::Spec &spec, const char *field)
{
    kp_error error;
    std::memset(&error, 0x55, sizeof error);
    CHECK(!kp::try_start(spec, error));
    CHECK(!kp::try_spawn(spec, error));
    CHECK(started == 0);
    CHECK(error.code == KP_ERR_INVALID && error.exit_code == -1);
    CHECK(error.sys_errno == 0 && error.term_signal == 0 && error.output[0] == '\0');
    CHECK(std::strncmp(error.message, field, std::strlen(field)) == 0);
}

void strings_are_never_cut()
{
    using namespace std::string_literals;
    const std::string cut = "cut\0short"s;
    kp::Spec spec = true_spec();
    spec.argv.push_back(cut);
    refused(spec, "spec.argv ");
    spec = true_spec();
    spec.env = {"A=1", "B="s + cut};
    refused(spec, "spec.env ");
    spec = true_spec();
    spec.cwd = cut;
    refused(spec, "spec.cwd ");
    spec = true_spec();
    spec.ca_bundle = cut;
    refused(spec, "spec.ca_bundle ");
    spec = true_spec();
    spec.no_proxy = cut;
    refused(spec, "spec.no_proxy ");
    spec = true_spec();
    spec.port_env = cut;
    refused(spec, "spec.port_env ");
}

void descriptor_zero_is_not_the_default()
{
    kp::Spec spec = true_spec();
    spec.log_fd = 0;
    refused(spec, "spec.log_fd ");
    spec.log_fd = -1; /* the library's to refuse */
    hand_over(spec);
    CHECK(seen.log_fd == -1);
}

void failures_are_told()
{
    answer = KP_ERR_SPAWN;
    kp_error error;
    CHECK(!kp::try_spawn(true_spec(), error));
    CHECK(error.code == KP_ERR_SPAWN && error.sys_errno == ENOENT);
    kp::Proxy proxy(some_handle);
    answer = KP_ERR_EXITED;
    CHECK(proxy.try_step(error) == KP_ERR_EXITED && error.code == KP_ERR_EXITED);
    answer = KP_ERR_TIMED_OUT;
    CHECK(proxy.try_wait(KP_STATE_READY, std::nullopt, error) == KP_ERR_TIMED_OUT);
    answer = KP_ERR_STATE;
    CHECK(proxy.try_restart(error) == KP_ERR_STATE && error.code == KP_ERR_STATE);
    answer = KP_AGAIN;
    CHECK(proxy.try_step(error) == KP_AGAIN && error.code == KP_ERR_STATE);
}

void a_handle_is_freed_once()
{
    static_assert(!std::is_copy_constructible<kp::Proxy>::value, "move-only");
    static_assert(!std::is_copy_assignable<kp::Proxy>::value, "move-only");
    static_assert(std::is_nothrow_move_constructible<kp::Proxy>::value, "for containers");
    static_assert(std::is_nothrow_move_assignable<kp::Proxy>::value, "for containers");
    {
        kp::Proxy first(some_handle);
        kp::Proxy second = std::move(first);
        CHECK(!first && first.get() == nullptr);
        CHECK(second && second.get() == some_handle);
        first = std::move(second);
        CHECK(first && !second);
        CHECK(freed == 0);
        first = kp::Proxy();
        CHECK(freed == 1);
    }
    CHECK(freed == 1);
    {
        kp::Proxy proxy(some_handle);
        CHECK(proxy.release() == some_handle && !proxy);
    }
    CHECK(freed == 1);
    kp::Proxy(nullptr);
    CHECK(freed == 1);
}

void a_handle_is_detached_and_kept()
{
    static_assert(noexcept(kp::Proxy().detach()), "for pthread_atfork()");
    kp::Proxy proxy(some_handle);
    proxy.detach();
    CHECK(detached == 1 && freed == 0);
    CHECK(proxy.get() == some_handle);
    kp::Proxy().detach();
    CHECK(detached == 1);
}

void looks()
{
    kp::Proxy proxy(some_handle);
    CHECK(proxy.fd() == 5);
    CHECK(proxy.state() == KP_STATE_READY);
    CHECK(proxy.port() == 8080);
    CHECK(proxy.pid() == 4711);
    CHECK(std::strcmp(proxy.url(), "http://127.0.0.1:8080") == 0);
    timeout_ns = -1;
    CHECK(!proxy.timeout());
    timeout_ns = 0;
    CHECK(proxy.timeout() == nanoseconds(0));
    timeout_ns = 5000000000;
    CHECK(proxy.timeout() == std::chrono::seconds(5));
    CHECK(!proxy.exit_status());
    exited = 1;
    CHECK(proxy.exit_status() && proxy.exit_status()->code == 3);
    CHECK(proxy.exit_status() && proxy.exit_status()->signal == 15);
}

void an_environment_is_freed_once()
{
    static_assert(!std::is_copy_constructible<kp::Environment>::value, "move-only");
    static_assert(std::is_nothrow_move_constructible<kp::Environment>::value, "for containers");
    {
        kp::Environment env = kp::Proxy().try_env(some_env);
        CHECK(env && env.get() == some_env);
        kp::Environment moved = std::move(env);
        CHECK(!env && moved);
        CHECK(freed_env == 0);
    }
    CHECK(freed_env == 1);
    no_memory = true;
    CHECK(!kp::Proxy().try_env(some_env));
}

#ifdef __cpp_exceptions
template <typename Call>
kp_result thrown_by(Call call)
{
    try {
        call();
    } catch (const kp::Error &error) {
        CHECK(std::strcmp(error.what(), "the message") == 0);
        CHECK(error.sys_errno() == ENOENT && error.get().sys_errno == ENOENT);
        CHECK(error.exit_code() == 7 && error.term_signal() == 9);
        CHECK(std::strcmp(error.output(), "the output") == 0);
        return error.code();
    }
    return KP_OK;
}

void failures_are_thrown()
{
    static_assert(std::is_base_of<std::runtime_error, kp::Error>::value, "catch what you know");
    kp::Proxy proxy(some_handle);
    answer = KP_ERR_GUARD;
    CHECK(thrown_by([] { (void)kp::spawn(true_spec()); }) == KP_ERR_GUARD);
    CHECK(thrown_by([] { (void)kp::start(true_spec()); }) == KP_ERR_GUARD);
    CHECK(thrown_by([&] { proxy.step(); }) == KP_ERR_GUARD);
    CHECK(thrown_by([&] { (void)proxy.wait(KP_STATE_EXITED); }) == KP_ERR_GUARD);
    CHECK(thrown_by([&] { proxy.restart(); }) == KP_ERR_GUARD);
    answer = KP_AGAIN;
    CHECK(proxy.step() == KP_AGAIN);
    CHECK(proxy.wait(KP_STATE_READY, milliseconds(5)) == KP_AGAIN && seen_ms == 5);
    CHECK(thrown_by([&] { proxy.restart(); }) == KP_OK);
}

void no_memory_is_thrown()
{
    no_memory = true;
    bool thrown = false;
    try {
        (void)kp::Proxy().env(some_env);
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
}
#endif

template <void (*test)()>
void afresh()
{
    forget();
    test();
}

const Case cases[] = {
    {"new_sets_defaults", afresh<new_sets_defaults>},
    {"each field has its own place", afresh<each_field_has_its_own_place>},
    {"attach sets flag and port alone", afresh<attach_sets_flag_and_port_alone>},
    {"a spec's durations never wrap", afresh<spec_durations_never_wrap>},
    {"a call's durations never wrap", afresh<call_durations_never_wrap>},
    {"strings are never cut", afresh<strings_are_never_cut>},
    {"descriptor 0 is not the default", afresh<descriptor_zero_is_not_the_default>},
    {"failures are told", afresh<failures_are_told>},
    {"a handle is freed once", afresh<a_handle_is_freed_once>},
    {"a handle is detached and kept", afresh<a_handle_is_detached_and_kept>},
    {"what is looked at", afresh<looks>},
    {"an environment is freed once", afresh<an_environment_is_freed_once>},
#ifdef __cpp_exceptions
    {"failures are thrown", afresh<failures_are_thrown>},
    {"no memory is thrown", afresh<no_memory_is_thrown>},
#endif
};

} // namespace

int main()
{
    return run_cases(cases);
}
