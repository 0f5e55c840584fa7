/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kp-run: run a command behind a proxy that is started for it and stopped after it, or
 * that runs already and is left alone.
 *
 * One poll() watches all there is to watch: the proxy's descriptor, and kp-run's signals,
 * COMMAND's SIGCHLD among them. Each turn then looks at everything, whatever woke it.
 */
#include "messages.hpp"
#include "options.hpp"
#include "signals.hpp"

#include <cerrno>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

namespace {

using Clock = std::chrono::steady_clock;

constexpr int exit_not_executable = 126;
constexpr int exit_not_found = 127;
constexpr int exit_by_signal = 128;

class Session {
  public:
    explicit Session(const Options &options) : options_(options) {}
    int run();

  private:
    void start_proxy();
    void step_proxy();
    void stop_proxy();
    void end_proxy();

    int run_command();
    int spawn_command(const kp::Environment &env);
    void reap_command();

    void turn();
    void await_event();
    void take_signals();
    void take_signal(const signalfd_siginfo &info);
    void forward(const signalfd_siginfo &info);

    const Options &options_;
    Signals signals_;
    int signals_taken_ = 0;
    int interrupted_ = 0; /* the signal that ended the start */
    kp::Proxy proxy_;     /* empty: going on without it */
    pid_t command_ = 0;   /* 0: does not run */
    int command_status_ = 0;
};

int Session::run()
{
    start_proxy();
    if (interrupted_ != 0)
        return exit_by_signal + interrupted_;
    if (!proxy_)
        std::fprintf(stderr, "kp-run: %s '%s' without the proxy\n",
                     options_.fail_open ? "running" : "not running", options_.command[0]);
    if (!proxy_ && !options_.fail_open)
        return exit_own_failure;

    const int status = run_command();
    stop_proxy();
    return status;
}

/* On failure all of the proxy is gone when it returns, and proxy_ is empty. */
void Session::start_proxy()
{
    const auto begin = Clock::now();
    kp_error error;
    proxy_ = kp::try_start(options_.spec, error);
    if (!proxy_ && error.code == KP_ERR_INVALID)
        throw kp::Error(error); /* the user's mistake, not the proxy's failure */
    if (!proxy_)
        tell_failure(error);

    while (proxy_.state() == KP_STATE_STARTING && interrupted_ == 0)
        turn();
    if (proxy_.state() != KP_STATE_READY || interrupted_ != 0) {
        end_proxy();
        proxy_ = kp::Proxy();
    } else if (options_.verbose) {
        tell_ready(proxy_, Clock::now() - begin);
    }
}

/* Tells what the proxy failed at, in each of its states. */
void Session::step_proxy()
{
    kp_error error;
    if (proxy_ && proxy_.try_step(error) < 0)
        tell_failure(error);
}

void Session::end_proxy()
{
    proxy_.stop();
    while (proxy_ && proxy_.state() != KP_STATE_EXITED)
        turn();
}

/* One that was ready. */
void Session::stop_proxy()
{
    const auto begin = Clock::now();
    end_proxy();
    if (options_.verbose)
        tell_gone(proxy_, Clock::now() - begin);
}

/* Returns what kp-run is to exit with. */
int Session::run_command()
{
    const kp::Environment env = proxy_.env();
    const int error = spawn_command(env);
    if (error != 0) {
        std::fprintf(stderr, "kp-run: '%s': %s\n", options_.command[0], std::strerror(error));
        if (error == EAGAIN || error == ENOMEM) /* no process could be made */
            return exit_own_failure;
        return error == ENOENT ? exit_not_found : exit_not_executable;
    }
    while (command_ != 0)
        turn();
    if (WIFSIGNALED(command_status_))
        return exit_by_signal + WTERMSIG(command_status_);
    return WEXITSTATUS(command_status_);
}

/* Returns an errno. Dispositions and descriptors are as they were given to kp-run. */
int Session::spawn_command(const kp::Environment &env)
{
    posix_spawnattr_t attributes;
    int error = posix_spawnattr_init(&attributes);
    if (error != 0)
        return error;
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &signals_.given_mask());
    pid_t pid;
    error =
        posix_spawnp(&pid, options_.command[0], nullptr, &attributes, options_.command, env.get());
    posix_spawnattr_destroy(&attributes);
    if (error == 0)
        command_ = pid;
    return error;
}

/* By its pid alone: proxy and guard are kp-run's children too, and the library's. */
void Session::reap_command()
{
    if (command_ != 0 && waitpid(command_, &command_status_, WNOHANG) == command_)
        command_ = 0;
}

void Session::turn()
{
    await_event();
    step_proxy();
    take_signals();
    reap_command();
}

void Session::await_event()
{
    pollfd watched[] = {{signals_.fd(), POLLIN, 0}, {proxy_.fd(), POLLIN, 0}};
    int timeout_ms = -1;
    if (watched[1].fd < 0) { /* no proxy, or no descriptor left for it */
        if (const auto due = proxy_.timeout())
            timeout_ms =
                static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(*due).count());
    }
    poll(watched, 2, timeout_ms);
}

void Session::take_signals()
{
    signalfd_siginfo info;
    while (signals_.next(info)) {
        if (info.ssi_signo != SIGCHLD)
            take_signal(info);
    }
}

/* While COMMAND runs, its own affair; before, an order to end. While the proxy is being
 * stopped the first signal finds that done already, and one more is impatience. */
void Session::take_signal(const signalfd_siginfo &info)
{
    signals_taken_++;
    if (command_ != 0)
        return forward(info);
    if (interrupted_ == 0)
        interrupted_ = static_cast<int>(info.ssi_signo);
    if (proxy_.state() == KP_STATE_STOPPING && signals_taken_ > 1)
        proxy_.stop(std::chrono::milliseconds(0));
}

/* What the kernel sent comes from the terminal, which has told COMMAND as well: it is in
 * kp-run's process group. Only of a hangup the leader of the session alone is told. */
void Session::forward(const signalfd_siginfo &info)
{
    const bool from_terminal = info.ssi_code == SI_KERNEL;
    const bool told_alone = info.ssi_signo == SIGHUP && getsid(0) == getpid();
    const bool from_command = !from_terminal && static_cast<pid_t>(info.ssi_pid) == command_;
    if ((!from_terminal || told_alone) && !from_command)
        kill(command_, static_cast<int>(info.ssi_signo));
}

/* Or what kp-run opens would become COMMAND's input and output. Close-on-exec: COMMAND finds
 * closed what kp-run found closed. */
void fill_standard_descriptors()
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR | O_CLOEXEC) != fd)
            throw std::system_error(errno, std::generic_category(), "/dev/null");
    }
}

} // namespace

int main(int argc, char *argv[])
try {
    fill_standard_descriptors();
    const Options options = read_options(argc, argv);
    return Session(options).run();
} catch (const std::exception &error) {
    std::fprintf(stderr, "kp-run: %s\n", error.what());
    return exit_own_failure;
}
