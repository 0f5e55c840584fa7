/* SPDX-License-Identifier: Apache-2.0 */
#include "messages.hpp"

#include <csignal>
#include <cstdio>
#include <string>

namespace {

long long in_ms(std::chrono::nanoseconds time)
{
    return std::chrono::round<std::chrono::milliseconds>(time).count();
}

std::string describe(const kp::ExitStatus &status)
{
    if (status.signal != 0)
        return "killed by signal " + std::to_string(status.signal);
    if (status.code < 0)
        return "exited with unknown status";
    return "exited with status " + std::to_string(status.code);
}

} // namespace

void tell_failure(const kp_error &error)
{
    std::fprintf(stderr, "kp-run: %s\n", error.message);
    if (error.output[0] != '\0')
        std::fprintf(stderr, "kp-run: the proxy's last lines:\n%s\n", error.output);
}

void tell_stopped(const kp::Proxy &proxy, int signal)
{
    const bool prints = signal == SIGTTOU;
    std::fprintf(stderr, "kp-run: proxy %ld was stopped by signal %d%s\n",
                 static_cast<long>(proxy.pid()), signal,
                 prints ? ": the terminal stops background output (stty tostop); use --log" : "");
}

void tell_ready(const kp::Proxy &proxy, std::chrono::nanoseconds after)
{
    if (proxy.pid() == 0)
        std::fprintf(stderr, "kp-run: attached to %s after %lld ms\n", proxy.url(), in_ms(after));
    else
        std::fprintf(stderr, "kp-run: proxy %ld is ready on %s after %lld ms\n",
                     static_cast<long>(proxy.pid()), proxy.url(), in_ms(after));
}

void tell_gone(const kp::Proxy &proxy, std::chrono::nanoseconds after)
{
    if (const auto status = proxy.exit_status())
        std::fprintf(stderr, "kp-run: proxy %ld is gone after %lld ms: %s\n",
                     static_cast<long>(proxy.pid()), in_ms(after), describe(*status).c_str());
}
