/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kp-run: run a command behind a proxy that is started for it and stopped after it, or
 * that runs already and is left alone.
 *
 * One poll() watches all there is to watch: the proxy's descriptor, and kp-run's signals,
 * COMMAND's SIGCHLD among them. Each turn then looks at everything, whatever woke it.
 */
#include "command.hpp"
#include "messages.hpp"
#include "options.hpp"
#include "signals.hpp"
#include "terminal.hpp"

#include <cerrno>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

namespace {

using Clock = std::chrono::steady_clock;

constexpr int exit_not_executable = 126;
constexpr int exit_not_found = 127;
constexpr int exit_by_signal = 128;

/* What kp-run is to end with. */
struct Outcome {
    int status;
    int signal = 0; /* 0: with the status; else by it */
};

class Session {
  public:
    explicit Session(const Options &options) : options_(options) {}
    Outcome run();

  private:
    void start_proxy();
    void step_proxy();
    void look_at_proxy();
    void stop_proxy();
    void end_proxy();

    Outcome run_command();
    void stop_with_command();
    void restore_terminal();

    void turn();
    void await_event();
    void take_signals();
    void take_signal(const signalfd_siginfo &info);
    void take_for_oneself(int number);
    void reap_orphans();

    const Options &options_;
    Signals signals_;
    Terminal terminal_;
    int orders_taken_ = 0; /* signals to end */
    int interrupted_ = 0;  /* the signal that ended the start */
    kp::Proxy proxy_;      /* empty: going on without it */
    pid_t guard_ = 0;
    bool told_of_stop_ = false;
    Command command_;
};

Outcome Session::run()
{
    start_proxy();
    if (interrupted_ != 0)
        return {exit_by_signal + interrupted_, interrupted_};
    if (!proxy_)
        std::fprintf(stderr, "kp-run: %s '%s' without the proxy\n",
                     options_.fail_open ? "running" : "not running", options_.command[0]);
    if (!proxy_ && !options_.fail_open)
        return {exit_own_failure};

    const Outcome outcome = run_command();
    restore_terminal();
    stop_proxy();
    return outcome;
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
    if (proxy_.pid() > 0)
        guard_ = getpgid(proxy_.pid()); /* it leads the proxy's group */

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

/* A proxy that prints to the terminal from the background may be stopped for it (stty tostop):
 * COMMAND would wait for it in vain. */
void Session::look_at_proxy()
{
    siginfo_t info{};
    const auto pid = static_cast<id_t>(proxy_.pid());
    if (pid == 0 || told_of_stop_ || waitid(P_PID, pid, &info, WSTOPPED | WNOHANG) != 0 ||
        info.si_pid == 0)
        return;
    told_of_stop_ = true;
    tell_stopped(proxy_, info.si_status);
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

Outcome Session::run_command()
{
    const kp::Environment env = proxy_.env();
    const int error = command_.start(options_.command, env, signals_.given_mask());
    if (error != 0) {
        std::fprintf(stderr, "kp-run: '%s': %s\n", options_.command[0], std::strerror(error));
        if (error == EAGAIN || error == ENOMEM) /* no process could be made */
            return {exit_own_failure};
        return {error == ENOENT ? exit_not_found : exit_not_executable};
    }
    while (command_.runs())
        turn();
    if (const int signal = command_.term_signal())
        return {exit_by_signal + signal, signal};
    return {command_.exit_code()};
}

/* So that a shell has its prompt back, and continues both. */
void Session::stop_with_command()
{
    stop_by(command_.stopped_by());
    terminal_.look();
}

/* An interactive COMMAND has a process group of its own in the foreground, which may be dead. */
void Session::restore_terminal()
{
    const pid_t group = terminal_.foreground();
    if (group > 0 && group != getpgrp() && (command_.led(group) || kill(-group, 0) != 0))
        terminal_.take_back();
}

void Session::turn()
{
    await_event();
    step_proxy();
    look_at_proxy();
    take_signals();
    const int stopped_before = command_.stopped_by();
    command_.look();
    if (command_.stopped_by() != 0 && stopped_before == 0)
        stop_with_command();
    reap_orphans();
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

/* While COMMAND runs, its own affair. A broken pipe is kp-run's, whose warning it was. */
void Session::take_signal(const signalfd_siginfo &info)
{
    const int number = static_cast<int>(info.ssi_signo);
    if (static_cast<pid_t>(info.ssi_pid) == getpid() && info.ssi_code != SI_KERNEL)
        return;
    if (default_of(number) == Default::end)
        orders_taken_++;
    if (!command_.runs())
        return take_for_oneself(number);
    if (number == SIGCONT)
        terminal_.look();
    if (!command_.knows(info))
        command_.hand_on(info);
}

/* An order to end, before COMMAND runs. While the proxy is being stopped the first one finds
 * that done already, and one more is impatience. */
void Session::take_for_oneself(int number)
{
    if (default_of(number) == Default::stop)
        return stop_by(number);
    if (default_of(number) == Default::ignore)
        return;
    if (interrupted_ == 0)
        interrupted_ = number;
    if (proxy_.state() == KP_STATE_STOPPING && orders_taken_ > 1)
        proxy_.stop(std::chrono::milliseconds(0));
}

/* As pid 1, or as a subreaper, kp-run inherits what COMMAND has orphaned. The library's own
 * children are left to it. */
void Session::reap_orphans()
{
    int is_subreaper = 0;
    prctl(PR_GET_CHILD_SUBREAPER, &is_subreaper);
    if (getpid() != 1 && is_subreaper == 0)
        return;
    for (;;) {
        siginfo_t info{};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0 ||
            info.si_pid == proxy_.pid() || info.si_pid == guard_ || command_.is(info.si_pid))
            return;
        waitpid(info.si_pid, nullptr, 0);
    }
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
    const Outcome outcome = Session(options).run();
    if (outcome.signal != 0)
        die_of(outcome.signal);
    return outcome.status;
} catch (const std::exception &error) {
    std::fprintf(stderr, "kp-run: %s\n", error.what());
    return exit_own_failure;
}
