// SPDX-License-Identifier: Apache-2.0
// What the files here, which every system shares, need from the one that they run on.
#pragma once

#include "platform/process.h"
#include <signal.h>
#include <spawn.h>

namespace kpi {

// Closes every descriptor above 2 in the child; 0 or an error number.
int close_others(posix_spawn_file_actions_t &actions);

// Readable once the process has ended; empty where there is none to be had, and errno says why
// (ESRCH: the number is nobody's).
Fd open_end(pid_t pid);

// waitid(2) for one child.
int wait_for(const sys::Process &child, siginfo_t &info, int options);

// A pipe through which little or nothing goes.
void make_small(const Fd &pipe);

// Where the source of a probe is chosen by connect().
int choose_port_late(const Fd &socket);

// The folder that has the process's own descriptors by number.
extern const char kOwnDescriptors[];

} // namespace kpi
