// SPDX-License-Identifier: Apache-2.0
// pidfds, by number: glibc has them only since 2.36.
#pragma once

#include "platform/fd.h"
#include <sys/types.h>

namespace kpi {

constexpr int kPidfdId = 3;                // P_PIDFD of waitid(), Linux 5.4
constexpr unsigned kSignalGroup = 1u << 2; // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9

// Empty where there is none to be had: ESRCH, EMFILE, ENOSYS before Linux 5.3, under valgrind 3.19
// and under strict seccomp filters.
Fd open_pidfd(pid_t pid);

// 0 or an error number; ENOSYS: not possible here.
int signal_pidfd(const Fd &pidfd, int signo, unsigned flags);

} // namespace kpi
