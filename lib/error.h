// SPDX-License-Identifier: Apache-2.0
// The one place that makes errors. Each maker writes *error whole (NULL is fine) and returns the
// code, so that a failure is one `return`.
#pragma once

#include "exit.h"
#include "kp/kp.h"
#include <sys/types.h>

namespace kpi {

// The proxy's place: what a message begins with.
struct Place {
    uint16_t port;
    bool attached; // the proxy was not started by the library
};

// Another process that listens there, as far as it can be seen.
struct Stranger {
    enum { None, User, Program } known = None;
    uid_t uid = 0;
    pid_t pid = 0;
    char name[32] = "";
};

kp_result fail_invalid(kp_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
kp_result fail_no_memory(kp_error *error);
kp_result fail_system(kp_error *error, int sys_errno, const char *doing);
kp_result fail_state(kp_error *error, const char *why);
kp_result fail_forked(kp_error *error);

kp_result fail_port_in_use(kp_error *error, uint16_t port, const Stranger &stranger);
kp_result fail_foreign(kp_error *error, const Place &place, const Stranger &stranger);
kp_result fail_untold(kp_error *error, const Place &place); // it is not known who listens
// `cwd`: the directory that could not be entered; NULL: it was the program.
kp_result fail_spawn(kp_error *error, int sys_errno, const char *name, const char *cwd);
kp_result fail_guard_spawn(kp_error *error, int sys_errno);
kp_result fail_guard_ended(kp_error *error);

struct Ended {
    Place place;
    Exit exit;
    int64_t after; // nanoseconds since the start
    bool was_ready;
    bool reserved; // the port was, and it can't be said that the proxy did bind beside that
    Stranger stranger;
    const char *output; // its last words; "": unknown
};
kp_result fail_exited(kp_error *error, const Ended &ended);

struct TimedOut {
    Place place;
    int64_t after;
    int connect_errno;  // of the last probe
    bool unanswered;    // it was neither accepted nor refused
    bool stopped;       // the proxy, or a member of its group, is
    bool busy;          // it has used the processors to the end
    bool reserved;      // the port was
    char elsewhere[64]; // where it listens instead; "": nowhere
};
kp_result fail_timed_out(kp_error *error, const TimedOut &timed_out);

// Whether connect() fails so for a reason that no proxy can cure.
bool is_out_of_reach(int connect_errno);
kp_result fail_out_of_reach(kp_error *error, const Place &place, int connect_errno);

// `what`: it did instead of answering; `text`: what it said, or "".
kp_result fail_not_http(kp_error *error, uint16_t port, const char *what, const char *text);
kp_result fail_given_up(kp_error *error, pid_t pid);

// Whether a function of the interface may return a result.
enum class Call { Start, Spawn, Step, Wait, Stop, Restart };
bool may_return(Call call, kp_result result);

} // namespace kpi
