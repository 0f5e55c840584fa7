/* SPDX-License-Identifier: Apache-2.0 */
/* What kp-run says of the proxy, on standard error. */
#ifndef KP_RUN_MESSAGES_HPP
#define KP_RUN_MESSAGES_HPP

#include <chrono>
#include <kp/kp.hpp>

void tell_failure(const kp_error &error);

void tell_stopped(const kp::Proxy &proxy, int signal);

/* `after`: since its start, or since it was to stop. */
void tell_ready(const kp::Proxy &proxy, std::chrono::nanoseconds after);
void tell_gone(const kp::Proxy &proxy, std::chrono::nanoseconds after);

#endif
