/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkp for C++17 and up: owners, containers and exceptions over <kp/kp.h>, and no
 * behaviour of its own. What a call means, its results and the rules for threads and
 * fork() stand there.
 *
 *     kp::Spec spec;
 *     spec.argv = {"mitmdump", "--listen-host", "127.0.0.1", "-q"};
 *     spec.port = 8080;
 *
 *     kp::Proxy proxy = kp::spawn(spec);        // throws kp::Error
 *     kp::Environment env = proxy.env();
 *     ... posix_spawn(&pid, "/usr/bin/curl", nullptr, nullptr, args, env.get()) ...
 *                                               // end of scope: the proxy is gone
 *
 * What throws has a twin, try_..., that doesn't: it writes the kp_error that it is given
 * on failure only, and is all that there is under -fno-exceptions. It is noexcept where it
 * does not wait: a thread that is cancelled in a wait unwinds its host's frames. It also
 * serves the host that goes on without its proxy, since an empty Proxy is one:
 *
 *     kp_error error;
 *     kp::Proxy proxy = kp::try_spawn(spec, error);
 *     if (!proxy)
 *         std::fprintf(stderr, "going on without a proxy: %s\n", error.message);
 *     kp::Environment env = proxy.env();        // without one: the host's own
 *
 * A proxy that runs already is attached to:
 *
 *     kp::Spec spec = kp::Spec::attach(8080);
 *     spec.flags |= KP_SPEC_PROBE_HTTP;
 *     kp::Proxy proxy = kp::spawn(spec);        // and never signalled
 *
 * Durations. Where one is optional, none is the default. Zero means zero, and a
 *   negative one counts as zero, so "deadline - now" can be passed as it is. A spec
 *   can't say zero: the least that it says is one millisecond. What is longer than C
 *   can say (24 days in a call, 49 in a spec) is cut to that.
 */
#ifndef KP_KP_HPP
#define KP_KP_HPP

#if __cplusplus < 201703L
#error "kp.hpp needs C++17"
#endif

#include <kp/kp.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#ifdef __cpp_exceptions
#include <stdexcept>
#endif

namespace kp {

/* What to run and how: kp_spec, whose comments hold for the fields of the same name. The
 * library copies all of it at the start. A string that holds a NUL byte, which C would
 * cut short, is KP_ERR_INVALID. */
struct Spec {
    std::vector<std::string> argv{};        /* program, arguments */
    std::vector<std::string> env{};         /* "NAME=value", for the proxy alone */
    std::optional<std::string> cwd{};       /* none: the host's */
    std::optional<std::string> ca_bundle{}; /* none: the children keep their own roots */
    std::optional<std::string> no_proxy{};  /* none: KP_DEFAULT_NO_PROXY; "" is not none */
    std::optional<std::string> port_env{};  /* none: KP_PORT_ENV */
    std::uint32_t flags = 0;                /* KP_SPEC_* */
    std::optional<std::chrono::milliseconds> startup_timeout{};
    std::optional<std::chrono::milliseconds> stop_grace{};
    std::optional<int> log_fd{}; /* none: the host's standard error; 0 is KP_ERR_INVALID */
    std::uint32_t port = 0;      /* 0: an ephemeral one */

    /* For a proxy that runs already: KP_SPEC_ATTACH. Say the rest by ca_bundle, no_proxy and
     * startup_timeout, and by |= of KP_SPEC_PROBE_HTTP and KP_SPEC_ANY_LISTENER to flags. */
    static Spec attach(std::uint32_t port) noexcept
    {
        Spec spec;
        spec.flags = KP_SPEC_ATTACH;
        spec.port = port;
        return spec;
    }
};

/* How a proxy's process ended: as in kp_error, -1 and 0 where that is not known. */
struct ExitStatus {
    int code;
    int signal;
};

#ifdef __cpp_exceptions
/* A kp_error as an exception; what() is its message. Visible, so that a program can catch
 * what a shared library of its own has thrown. */
class [[gnu::visibility("default")]] Error;
class Error : public std::runtime_error {
  public:
    explicit Error(const kp_error &error) : std::runtime_error(error.message), error_(error) {}

    kp_result code() const noexcept { return error_.code; }
    int sys_errno() const noexcept { return error_.sys_errno; }
    int exit_code() const noexcept { return error_.exit_code; }
    int term_signal() const noexcept { return error_.term_signal; }
    const char *output() const noexcept { return error_.output; }
    const kp_error &get() const noexcept { return error_; }

  private:
    kp_error error_;
};
#endif

/* Not for users. */
namespace detail {

using Milliseconds = std::optional<std::chrono::milliseconds>;

template <typename Integer>
Integer whole_ms(std::chrono::milliseconds time) noexcept
{
    const std::int64_t most = std::numeric_limits<Integer>::max();
    return static_cast<Integer>(std::clamp<std::int64_t>(time.count(), 0, most));
}

/* As a field of kp_spec, where 0 is the default. */
inline std::uint32_t spec_ms(Milliseconds time) noexcept
{
    return time ? std::max(whole_ms<std::uint32_t>(*time), std::uint32_t{1}) : 0;
}

/* As an argument of a call, where -1 is the default. */
inline int call_ms(Milliseconds time) noexcept
{
    return time ? whole_ms<int>(*time) : -1;
}

/* A kp_spec, filled by name, that points into the Spec it was made from. */
class RawSpec {
  public:
    /* false: *error says why. */
    bool fill(const Spec &from, kp_error &error) noexcept
    {
        error_ = &error;
        raw_.size = sizeof raw_;
        raw_.flags = from.flags;
        raw_.startup_timeout_ms = spec_ms(from.startup_timeout);
        raw_.stop_grace_ms = spec_ms(from.stop_grace);
        raw_.port = from.port;
        return list(raw_.argv, argv_, from.argv, "argv") && list(raw_.env, env_, from.env, "env") &&
               text(raw_.cwd, from.cwd, "cwd") &&
               text(raw_.ca_bundle, from.ca_bundle, "ca_bundle") &&
               text(raw_.no_proxy, from.no_proxy, "no_proxy") &&
               text(raw_.port_env, from.port_env, "port_env") && log_fd(from.log_fd);
    }

    const kp_spec *get() const noexcept { return &raw_; }

  private:
    using Pointers = std::unique_ptr<char *[]>;

    bool list(char *const *&field, Pointers &to, const std::vector<std::string> &from,
              const char *name) noexcept
    {
        to.reset(new (std::nothrow) char *[from.size() + 1]);
        if (!to)
            return fail(KP_ERR_NO_MEMORY, name, ": out of memory");
        for (std::size_t i = 0; i < from.size(); i++) {
            if (!whole(from[i], name))
                return false;
            to[i] = const_cast<char *>(from[i].c_str()); /* C only reads it */
        }
        to[from.size()] = nullptr;
        field = to.get();
        return true;
    }

    bool text(const char *&field, const std::optional<std::string> &from, const char *name) noexcept
    {
        field = from ? from->c_str() : nullptr;
        return !from || whole(*from, name);
    }

    bool log_fd(std::optional<int> fd) noexcept
    {
        raw_.log_fd = fd.value_or(0);
        return !fd || *fd != 0 ||
               fail(KP_ERR_INVALID, "log_fd", " can't be descriptor 0: duplicate it");
    }

    bool whole(const std::string &string, const char *name) noexcept
    {
        return string.find('\0') == std::string::npos ||
               fail(KP_ERR_INVALID, name, " must not hold a NUL byte");
    }

    bool fail(kp_result code, const char *name, const char *problem) noexcept
    {
        *error_ = kp_error{};
        error_->code = code;
        error_->exit_code = -1;
        std::snprintf(error_->message, sizeof error_->message, "spec.%s%s", name, problem);
        return false;
    }

    kp_spec raw_{};
    Pointers argv_;
    Pointers env_;
    kp_error *error_ = nullptr;
};

#ifdef __cpp_exceptions
inline kp_result check(kp_result result, const kp_error &error)
{
    if (result < 0)
        throw Error(error);
    return result;
}
#endif

} // namespace detail

/* Owns an environment of kp_env_new(); move-only. Change nothing in it. */
class Environment {
  public:
    Environment() noexcept = default;
    explicit Environment(char **env) noexcept : env_(env) {}

    /* For posix_spawn() and execve(); NULL when empty. */
    char *const *get() const noexcept { return env_.get(); }
    explicit operator bool() const noexcept { return env_ != nullptr; }

  private:
    struct Free {
        void operator()(char **env) const noexcept { kp_env_free(env); }
    };
    std::unique_ptr<char *[], Free> env_;
};

/* Owns one handle; move-only. Destroying it, or assigning to it, is kp_handle_free(): it
 * stops the proxy and waits for its end. An empty one (default, moved from, released, of
 * a start that failed) answers as C does to a NULL handle: KP_ERR_INVALID, 0, -1, "". */
class Proxy {
  public:
    Proxy() noexcept = default;
    explicit Proxy(kp_handle *handle) noexcept : handle_(handle) {}

    kp_handle *get() const noexcept { return handle_.get(); }
    [[nodiscard]] kp_handle *release() noexcept { return handle_.release(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    /* kp_handle_fd(): watch it for reading, and step when it is. */
    int fd() noexcept { return kp_handle_fd(get()); }

    /* For hosts that can't watch it: until the next step is due; none: see kp.h. */
    std::optional<std::chrono::nanoseconds> timeout() const noexcept
    {
        const std::int64_t ns = kp_handle_timeout_ns(get());
        return ns < 0 ? std::nullopt : std::optional(std::chrono::nanoseconds(ns));
    }

    kp_result try_step(kp_error &error) noexcept { return kp_handle_step(get(), &error); }

    /* `until` is KP_STATE_READY or KP_STATE_EXITED; without a time-out it waits for ever. */
    [[nodiscard]] kp_result
    try_wait(kp_state until, std::optional<std::chrono::milliseconds> timeout, kp_error &error)
    {
        return kp_handle_wait(get(), until, detail::call_ms(timeout), &error);
    }

    kp_state state() const noexcept { return kp_handle_state(get()); }
    std::uint16_t port() const noexcept { return kp_handle_port(get()); }
    pid_t pid() const noexcept { return kp_handle_pid(get()); }
    const char *url() const noexcept { return kp_handle_url(get()); } /* the proxy's */

    /* None: it has not exited. */
    std::optional<ExitStatus> exit_status() const noexcept
    {
        ExitStatus status{-1, 0};
        const int exited = kp_handle_exit_status(get(), &status.code, &status.signal);
        return exited == 1 ? std::optional(status) : std::nullopt;
    }

    /* Returns at once. Without a grace the spec's; zero is SIGKILL now. */
    kp_result stop(std::optional<std::chrono::milliseconds> grace = std::nullopt) noexcept
    {
        return kp_handle_stop(get(), detail::call_ms(grace));
    }

    /* In a forked child: kp_handle_detach(). */
    void detach() noexcept { kp_handle_detach(get()); }

    [[nodiscard]] kp_result try_restart(kp_error &error) noexcept
    {
        return kp_handle_restart(get(), &error);
    }

    /* For the children: `base` (NULL: the host's environment) and the way to the proxy; of
     * an empty Proxy the base as it is. Empty: no memory, so don't start the child. */
    [[nodiscard]] Environment try_env(char *const *base = nullptr) const noexcept
    {
        return Environment(kp_env_new(get(), base));
    }

#ifdef __cpp_exceptions
    /* The same, but failures are thrown: what they return is KP_OK or KP_AGAIN. */
    kp_result step()
    {
        kp_error error;
        return detail::check(try_step(error), error);
    }

    [[nodiscard]] kp_result wait(kp_state until,
                                 std::optional<std::chrono::milliseconds> timeout = std::nullopt)
    {
        kp_error error;
        return detail::check(try_wait(until, timeout, error), error);
    }

    void restart()
    {
        kp_error error;
        detail::check(try_restart(error), error);
    }

    [[nodiscard]] Environment env(char *const *base = nullptr) const
    {
        Environment env = try_env(base);
        if (!env)
            throw std::bad_alloc();
        return env;
    }
#endif

  private:
    struct Free {
        void operator()(kp_handle *handle) const noexcept { kp_handle_free(handle); }
    };
    std::unique_ptr<kp_handle, Free> handle_;
};

/* kp_spawn() and kp_start(). An empty Proxy: it failed, and error says why. */
[[nodiscard]] inline Proxy try_spawn(const Spec &spec, kp_error &error)
{
    detail::RawSpec raw;
    kp_handle *handle = nullptr;
    if (raw.fill(spec, error))
        kp_spawn(raw.get(), &handle, &error);
    return Proxy(handle);
}

[[nodiscard]] inline Proxy try_start(const Spec &spec, kp_error &error) noexcept
{
    detail::RawSpec raw;
    kp_handle *handle = nullptr;
    if (raw.fill(spec, error))
        kp_start(raw.get(), &handle, &error);
    return Proxy(handle);
}

#ifdef __cpp_exceptions
[[nodiscard]] inline Proxy spawn(const Spec &spec)
{
    kp_error error;
    Proxy proxy = try_spawn(spec, error);
    if (!proxy)
        throw Error(error);
    return proxy;
}

[[nodiscard]] inline Proxy start(const Spec &spec)
{
    kp_error error;
    Proxy proxy = try_start(spec, error);
    if (!proxy)
        throw Error(error);
    return proxy;
}
#endif

} // namespace kp

#endif
