/* SPDX-License-Identifier: Apache-2.0 */
/* A proxy's life through the veneer, on the real library: proxy FIXTURE_PROXY */
#include "check.hpp"
#include "net.hpp"

#include <csignal>
#include <cstring>
#include <initializer_list>
#include <kp/kp.hpp>
#include <poll.h>
#include <pthread.h>
#include <string>
#include <unistd.h>

namespace {

const char *fixture;

kp::Spec fixture_spec(std::initializer_list<std::string> mode)
{
    kp::Spec spec;
    spec.argv = {fixture};
    spec.argv.insert(spec.argv.end(), mode);
    spec.log_fd = STDERR_FILENO;
    return spec;
}

bool is_gone(pid_t pid)
{
    return kill(pid, 0) == -1 && errno == ESRCH;
}

/* "" also where the name is not there. */
std::string value_of(const kp::Environment &env, const char *name)
{
    const std::size_t length = std::strlen(name);
    for (char *const *entry = env.get(); entry != nullptr && *entry != nullptr; entry++) {
        if (std::strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    }
    return "";
}

/* A host's loop, with nothing but the descriptor. */
kp_result step_through(kp::Proxy &proxy, kp_state until, kp_error &error)
{
    kp_result result = KP_AGAIN;
    while (result >= 0 && proxy.state() != until) {
        pollfd watched{proxy.fd(), POLLIN, 0};
        CHECK(poll(&watched, 1, 10000) == 1);
        result = proxy.try_step(error);
    }
    return result;
}

void spawn_gives_a_ready_proxy()
{
    kp_error error;
    pid_t pid = 0;
    {
        kp::Proxy proxy = kp::try_spawn(fixture_spec({"serve"}), error);
        CHECK(bool(proxy));
        CHECK(proxy.state() == KP_STATE_READY);
        pid = proxy.pid();
        CHECK(pid > 0 && !is_gone(pid));
        CHECK(proxy.url() == "http://127.0.0.1:" + std::to_string(proxy.port()));
        CHECK(!proxy.exit_status());
    }
    CHECK(is_gone(pid));
}

void a_moved_proxy_lives_on()
{
    kp_error error;
    kp::Proxy proxy;
    {
        kp::Proxy inner = kp::try_spawn(fixture_spec({"serve"}), error);
        proxy = std::move(inner);
    }
    CHECK(proxy.try_step(error) == KP_OK && proxy.state() == KP_STATE_READY);
    const pid_t pid = proxy.pid();
    proxy = kp::Proxy();
    CHECK(is_gone(pid));
}

void stepped_through_its_life()
{
    kp_error error;
    kp::Proxy proxy = kp::try_start(fixture_spec({"late", "30"}), error);
    CHECK(proxy.state() == KP_STATE_STARTING);
    CHECK(step_through(proxy, KP_STATE_READY, error) == KP_OK);
    CHECK(proxy.stop() == KP_OK);
    CHECK(step_through(proxy, KP_STATE_EXITED, error) == KP_OK);
    CHECK(is_gone(proxy.pid()));
    CHECK(proxy.exit_status() && proxy.exit_status()->signal == SIGTERM);
}

void waited_for_and_restarted()
{
    kp_error error;
    kp::Proxy proxy = kp::try_start(fixture_spec({"serve"}), error);
    const std::uint16_t port = proxy.port();
    const pid_t first = proxy.pid();
    CHECK(proxy.try_restart(error) == KP_ERR_STATE);
    CHECK(proxy.try_wait(KP_STATE_READY, std::nullopt, error) == KP_OK);
    CHECK(proxy.try_wait(KP_STATE_EXITED, std::chrono::milliseconds(0), error) == KP_AGAIN);
    CHECK(proxy.stop() == KP_OK);
    CHECK(proxy.try_wait(KP_STATE_EXITED, std::chrono::seconds(10), error) == KP_OK);

    CHECK(proxy.try_restart(error) == KP_OK);
    CHECK(proxy.try_wait(KP_STATE_READY, std::chrono::seconds(10), error) == KP_OK);
    CHECK(proxy.port() == port && proxy.pid() != first);
    CHECK(!proxy.exit_status());
}

void an_exit_is_told()
{
    kp_error error;
    kp::Proxy proxy = kp::try_start(fixture_spec({"die-after", "1000"}), error);
    CHECK(step_through(proxy, KP_STATE_READY, error) == KP_OK);
    CHECK(step_through(proxy, KP_STATE_EXITED, error) == KP_ERR_EXITED);
    CHECK(error.code == KP_ERR_EXITED && error.exit_code == 3);
    CHECK(step_through(proxy, KP_STATE_EXITED, error) >= 0);
    CHECK(proxy.exit_status() && proxy.exit_status()->code == 3);
}

void no_grace_is_sigkill()
{
    kp_error error;
    kp::Spec spec = fixture_spec({"deaf"});
    spec.stop_grace = std::chrono::hours(1);
    kp::Proxy proxy = kp::try_spawn(spec, error);
    CHECK(proxy.stop(std::chrono::milliseconds(0)) == KP_OK);
    CHECK(proxy.try_wait(KP_STATE_EXITED, std::chrono::seconds(10), error) == KP_OK);
    CHECK(proxy.exit_status() && proxy.exit_status()->signal == SIGKILL);
}

void no_grace_in_the_spec_is_sigkill_too()
{
    kp_error error;
    kp::Spec spec = fixture_spec({"slow-stop", "60000"});
    spec.stop_grace = std::chrono::milliseconds(0);
    kp::Proxy proxy = kp::try_spawn(spec, error);
    CHECK(proxy.stop() == KP_OK);
    CHECK(proxy.try_wait(KP_STATE_EXITED, std::chrono::seconds(10), error) == KP_OK);
    CHECK(proxy.exit_status() && proxy.exit_status()->signal == SIGKILL);
}

void no_time_to_start()
{
    kp_error error;
    kp::Spec spec = fixture_spec({"never"});
    spec.startup_timeout = std::chrono::milliseconds(0);
    spec.stop_grace = std::chrono::milliseconds(0);
    CHECK(!kp::try_spawn(spec, error));
    CHECK(error.code == KP_ERR_TIMED_OUT);
}

void failures_are_told()
{
    kp_error error;
    CHECK(!kp::try_spawn(fixture_spec({"exit", "7"}), error));
    CHECK(error.code == KP_ERR_EXITED && error.exit_code == 7);

    kp::Spec spec;
    CHECK(!kp::try_spawn(spec, error) && error.code == KP_ERR_INVALID);
    CHECK(std::strcmp(error.message, "command must not be empty") == 0);
    spec.argv = {"/nonexistent/proxy"};
    CHECK(!kp::try_start(spec, error));
    CHECK(error.code == KP_ERR_SPAWN && error.sys_errno == ENOENT);
    spec.argv = {"true"};
    spec.port = 65536;
    CHECK(!kp::try_start(spec, error) && error.code == KP_ERR_INVALID);
    spec.port = 0;
    spec.log_fd = -1;
    CHECK(!kp::try_start(spec, error) && error.code == KP_ERR_INVALID);
}

void the_spec_reaches_the_proxy()
{
    kp_error error;
    kp::Spec spec = fixture_spec({"serve"});
    spec.port_env = "THE_PORT";
    spec.env = {"FIXTURE_PORT_ENV=THE_PORT"};
    spec.cwd = "/";
    spec.no_proxy = "";
    spec.ca_bundle = "/etc/ca.pem";
    kp::Proxy proxy = kp::try_spawn(spec, error);
    CHECK(bool(proxy));
    char link[64], folder[64] = "";
    std::snprintf(link, sizeof link, "/proc/%d/cwd", proxy.pid());
    CHECK(readlink(link, folder, sizeof folder - 1) == 1 && folder[0] == '/');
    const kp::Environment env = proxy.try_env();
    CHECK(value_of(env, "HTTPS_PROXY") == proxy.url() &&
          value_of(env, "http_proxy") == proxy.url());
    CHECK(value_of(env, "NO_PROXY") == "");
    CHECK(value_of(env, "SSL_CERT_FILE") == "/etc/ca.pem");
}

void the_environment_of_children()
{
    char home[] = "HOME=/home/me", other[] = "HTTPS_PROXY=http://other:1";
    char *base[] = {home, other, nullptr};
    kp_error error;
    kp::Environment env;
    {
        kp::Proxy proxy = kp::try_spawn(fixture_spec({"serve"}), error);
        env = proxy.try_env(base);
        CHECK(value_of(env, "HTTPS_PROXY") == proxy.url());
    }
    CHECK(value_of(env, "HOME") == "/home/me"); /* it outlives the proxy */
    CHECK(value_of(env, "NO_PROXY") == KP_DEFAULT_NO_PROXY);
    CHECK(value_of(env, "SSL_CERT_FILE") == "");
}

void an_empty_proxy_changes_nothing()
{
    char other[] = "HTTPS_PROXY=http://other:1";
    char *base[] = {other, nullptr};
    kp::Proxy none;
    const kp::Environment env = none.try_env(base);
    CHECK(env && std::strcmp(env.get()[0], other) == 0 && env.get()[1] == nullptr);
    CHECK(value_of(none.try_env(), "PATH") != "");
    kp_error error;
    CHECK(none.fd() == -1 && none.port() == 0 && none.pid() == 0 && none.url()[0] == '\0');
    CHECK(!none.timeout() && !none.exit_status());
    CHECK(none.try_step(error) == KP_ERR_INVALID && none.stop() == KP_ERR_INVALID);
    CHECK(none.try_wait(KP_STATE_READY, std::nullopt, error) == KP_ERR_INVALID);
    CHECK(none.try_restart(error) == KP_ERR_INVALID);
}

bool answers(const kp::Environment &env)
{
    return answer_of(value_of(env, "HTTPS_PROXY")).find("HTTP/1.1 200 ") == 0;
}

void attached_to_and_left_alone()
{
    kp_error error;
    kp::Proxy running = kp::try_spawn(fixture_spec({"serve"}), error);
    {
        kp::Spec spec = kp::Spec::attach(running.port());
        spec.no_proxy = "";
        spec.flags |= KP_SPEC_PROBE_HTTP;
        kp::Proxy proxy = kp::try_spawn(spec, error);
        CHECK(proxy.state() == KP_STATE_READY && proxy.port() == running.port());
        CHECK(proxy.pid() == 0 && !proxy.exit_status());
        const kp::Environment env = proxy.try_env();
        CHECK(value_of(env, "NO_PROXY") == "" && answers(env));

        CHECK(proxy.stop() == KP_OK);
        CHECK(proxy.try_wait(KP_STATE_EXITED, std::chrono::seconds(0), error) == KP_OK);
        CHECK(!proxy.exit_status() && answers(env));
        CHECK(proxy.try_restart(error) == KP_OK && proxy.state() == KP_STATE_STARTING);
        CHECK(step_through(proxy, KP_STATE_READY, error) == KP_OK);
    }
    CHECK(running.try_wait(KP_STATE_EXITED, std::chrono::seconds(0), error) == KP_AGAIN);
    CHECK(answers(running.try_env()));
}

void nobody_to_attach_to()
{
    kp_error error;
    const Socket nobody = bound(0);
    kp::Spec spec = kp::Spec::attach(port_of(nobody));
    spec.startup_timeout = std::chrono::milliseconds(150);
    CHECK(!kp::try_spawn(spec, error) && error.code == KP_ERR_TIMED_OUT);
}

void another_protocol_is_no_proxy()
{
    kp_error error;
    kp::Proxy running = kp::try_spawn(fixture_spec({"say", "220 hello\\r\\n"}), error);
    kp::Spec spec = kp::Spec::attach(running.port());
    CHECK(bool(kp::try_spawn(spec, error)));
    spec.flags |= KP_SPEC_PROBE_HTTP;
    CHECK(!kp::try_spawn(spec, error) && error.code == KP_ERR_NOT_HTTP);
    CHECK(running.try_step(error) == KP_OK && running.state() == KP_STATE_READY);
}

/* A listener of this host's own, where the proxy was to have one. */
kp_result start_beside_a_stranger(std::uint32_t flags, kp_error &error)
{
    kp::Spec spec = fixture_spec({"never"});
    spec.flags = flags;
    kp::Proxy proxy = kp::try_start(spec, error);
    const Socket stranger = listening(proxy.port());
    return step_through(proxy, KP_STATE_READY, error);
}

void a_strangers_listener()
{
    kp_error error;
    CHECK(start_beside_a_stranger(0, error) == KP_ERR_FOREIGN_LISTENER);
    CHECK(start_beside_a_stranger(KP_SPEC_ANY_LISTENER, error) == KP_OK);
}

void what_attach_can_not_have()
{
    const auto invalid = [](void (*change)(kp::Spec &)) {
        kp_error error;
        kp::Spec spec = kp::Spec::attach(8080);
        change(spec);
        return !kp::try_start(spec, error) && error.code == KP_ERR_INVALID;
    };
    CHECK(invalid([](kp::Spec &spec) { spec.port = 0; }));
    CHECK(invalid([](kp::Spec &spec) { spec.port = 65536; }));
    CHECK(invalid([](kp::Spec &spec) { spec.argv = {"true"}; }));
    CHECK(invalid([](kp::Spec &spec) { spec.env = {"A=B"}; }));
    CHECK(invalid([](kp::Spec &spec) { spec.cwd = "/"; }));
    CHECK(invalid([](kp::Spec &spec) { spec.log_fd = STDERR_FILENO; }));
    CHECK(invalid([](kp::Spec &spec) { spec.flags |= KP_SPEC_CLEAR_ENV; }));
    CHECK(invalid([](kp::Spec &spec) { spec.flags |= KP_SPEC_NO_GUARD; }));
    CHECK(invalid([](kp::Spec &spec) { spec.flags |= KP_SPEC_NO_RESERVE; }));
}

#ifdef __cpp_exceptions
void thrown_and_caught()
{
    bool thrown = false;
    try {
        (void)kp::spawn(fixture_spec({"exit", "7"}));
    } catch (const kp::Error &error) {
        thrown = true;
        CHECK(error.code() == KP_ERR_EXITED && error.exit_code() == 7);
        CHECK(std::strstr(error.what(), "did not bind") != nullptr);
    }
    CHECK(thrown);
}

/* A host's error unwinds: nothing of the proxy is left. */
void unwinding_stops_the_proxy()
{
    pid_t pid = 0;
    try {
        kp::Proxy proxy = kp::start(fixture_spec({"serve"}));
        pid = proxy.pid();
        CHECK(proxy.wait(KP_STATE_READY) == KP_OK);
        CHECK(proxy.step() == KP_OK);
        CHECK(value_of(proxy.env(), "HTTP_PROXY") == proxy.url());
        proxy.restart(); /* not in READY */
        CHECK(false);
    } catch (const std::runtime_error &) {
        CHECK(is_gone(pid));
    }
}

struct Witness {
    bool &unwound;
    ~Witness() { unwound = true; }
};

void *spawn_in_vain(void *unwound)
{
    Witness witness{*static_cast<bool *>(unwound)};
    kp::Spec spec = fixture_spec({"never"});
    spec.startup_timeout = std::chrono::minutes(1);
    (void)kp::spawn(spec);
    return nullptr;
}

void *wait_in_vain(void *unwound)
{
    Witness witness{*static_cast<bool *>(unwound)};
    kp::Proxy proxy = kp::start(fixture_spec({"serve"}));
    (void)proxy.wait(KP_STATE_EXITED);
    return nullptr;
}

/* Wherever it is by then: its destructors run, and the end of a proxy is waited for in one. */
void a_cancelled_thread_unwinds()
{
    for (void *(*body)(void *) : {spawn_in_vain, wait_in_vain}) {
        bool unwound = false;
        pthread_t thread;
        void *result = nullptr;
        CHECK(pthread_create(&thread, nullptr, body, &unwound) == 0);
        while (!has_children())
            usleep(1000);
        pthread_cancel(thread);
        CHECK(pthread_join(thread, &result) == 0);
        CHECK(result == PTHREAD_CANCELED);
        CHECK(unwound);
    }
}
#endif

const Case cases[] = {
    {"spawn gives a ready proxy", spawn_gives_a_ready_proxy},
    {"a moved proxy lives on", a_moved_proxy_lives_on},
    {"stepped through its life", stepped_through_its_life},
    {"waited for and restarted", waited_for_and_restarted},
    {"an exit is told", an_exit_is_told},
    {"no grace is SIGKILL", no_grace_is_sigkill},
    {"no grace in the spec is SIGKILL too", no_grace_in_the_spec_is_sigkill_too},
    {"no time to start", no_time_to_start},
    {"failures are told", failures_are_told},
    {"the spec reaches the proxy", the_spec_reaches_the_proxy},
    {"the environment of children", the_environment_of_children},
    {"an empty proxy changes nothing", an_empty_proxy_changes_nothing},
    {"attached to and left alone", attached_to_and_left_alone},
    {"nobody to attach to", nobody_to_attach_to},
    {"another protocol is no proxy", another_protocol_is_no_proxy},
    {"a stranger's listener", a_strangers_listener},
    {"what attach can not have", what_attach_can_not_have},
#ifdef __cpp_exceptions
    {"thrown and caught", thrown_and_caught},
    {"unwinding stops the proxy", unwinding_stops_the_proxy},
    {"a cancelled thread unwinds", a_cancelled_thread_unwinds},
#endif
};

} // namespace

int main(int argc, char *argv[])
{
    if (argc != 2)
        return 2;
    fixture = argv[1];
    return run_cases(cases);
}
