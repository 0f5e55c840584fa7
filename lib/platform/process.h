// SPDX-License-Identifier: Apache-2.0
// Processes: start them, learn of their end, signal them, find those of a group.
// What returns int returns 0 or an error number.
#pragma once

#include "exit.h"
#include "platform/fd.h"
#include <stddef.h>
#include <sys/types.h>

namespace kpi::sys {

struct Process {
    pid_t pid = 0; // 0: none
    Fd end;        // readable once it has ended; empty where the system has no such descriptor
};

struct Launch {
    const char *program; // looked up in the host's PATH where it has no slash
    char *const *argv;
    char *const *env;
    const char *cwd;    // NULL: the host's
    int input;          // becomes descriptor 0; -1: the null device
    int output;         // becomes descriptors 1 and 2; -1: the null device
    pid_t group;        // to join; 0: it leads a new one
    bool block_signals; // start with every signal but SIGCHLD blocked, else with none
};

// Starts a program with default signal dispositions and no descriptor above 2. `child.end` stays
// empty where the system has none to give. Lost: it has ended, was reaped by somebody else, and its
// number may be another's by now.
int spawn(const Launch &launch, Process &child, bool &lost);

// Whether a child of the host has ended; it stays a zombie, so that its number stays its own.
// Gone: it was reaped by somebody else, and nobody knows its exit any more. Ended, but not yet
// reap()'s, and with an unknown exit: somebody who traces it has not let go of it.
enum class Life { Alive, Ended, Gone };
Life look(const Process &child, Exit &exit);
bool reap(const Process &child); // false: there is still something to reap, later

// Whether a process that need not be a child has ended; it has an `end`.
bool is_over(const Process &process);

// Through the descriptor, which can't hit a stranger. ENOSYS: not possible here.
int signal(const Process &process, int signo);
int signal_group(const Process &leader, int signo); // also when the leader was reaped
bool signals_groups(const Process &leader);         // whether signal_group() can

// By number: only for one that is known to be pinned.
int signal_number(pid_t pid, int signo);
int signal_group_number(pid_t group, int signo);

pid_t group_of(pid_t pid); // -1: no such process

// Nice values.
constexpr int kLowestPriority = 19;
int own_nice();
int group_nice(pid_t group); // the lowest of its members; zombies count. 20: no such group
void set_nice(pid_t pid, int nice);

// The idle class of input and output, which makes no difference to a process that has none: a mark
// that a group can be asked for without a search. Members that are zombies or of any other class
// are not idle.
void set_idle(pid_t pid);
bool group_is_idle(pid_t group); // false also where it can't be told, true where there is no such
                                 // class

// The living members of a group, but for `guard`, up to `size` of them. Each comes with its `end`
// where the system has one. Unknown: the system does not show its processes.
enum class Search { Nobody, Somebody, Unknown };
Search find_members(pid_t group, pid_t guard, Process *members, size_t size, size_t &found);

} // namespace kpi::sys
