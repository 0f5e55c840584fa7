// SPDX-License-Identifier: Apache-2.0
#include "error.h"
#include "deadline.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

namespace kpi {

namespace {

// strerror_r() returns a string in glibc and an int elsewhere.
[[maybe_unused]] const char *described(const char *text, const char *)
{
    return text;
}
[[maybe_unused]] const char *described(int result, const char *buffer)
{
    return result == 0 ? buffer : "unknown error";
}

class Description {
  public:
    explicit Description(int sys_errno)
        : text_(described(strerror_r(sys_errno, buffer_, sizeof buffer_), buffer_))
    {
    }
    const char *text() const { return text_; }

  private:
    char buffer_[128] = {};
    const char *text_;
};

class Whoever {
  public:
    explicit Whoever(const Stranger &stranger)
    {
        if (stranger.known == Stranger::Program)
            snprintf(text_, sizeof text_, "process %ld (%s) of uid %lu",
                     static_cast<long>(stranger.pid), stranger.name,
                     static_cast<unsigned long>(stranger.uid));
        else if (stranger.known == Stranger::User)
            snprintf(text_, sizeof text_, "a process of uid %lu",
                     static_cast<unsigned long>(stranger.uid));
    }
    const char *text() const { return text_; }

  private:
    char text_[96] = "";
};

class Subject {
  public:
    explicit Subject(const Place &place)
    {
        snprintf(text_, sizeof text_, "%s 127.0.0.1:%u",
                 place.attached ? "no proxy to attach to on" : "external proxy did not bind",
                 place.port);
    }
    const char *text() const { return text_; }

  private:
    char text_[64];
};

// Not %f: its decimal point is the host's locale's.
class Duration {
  public:
    explicit Duration(int64_t ns)
    {
        long long ms = (ns + kMillisecond / 2) / kMillisecond;
        if (ms < 1000)
            snprintf(text_, sizeof text_, "%lld ms", ms);
        else
            snprintf(text_, sizeof text_, "%lld.%lld s", (ms + 50) / 1000, (ms + 50) % 1000 / 100);
    }
    const char *text() const { return text_; }

  private:
    char text_[32];
};

void blank(kp_error *error, kp_result code, int sys_errno)
{
    memset(error, 0, sizeof *error);
    error->code = code;
    error->sys_errno = sys_errno;
    error->exit_code = -1;
}

// One line: what a user's file or program is called may hold anything.
void one_line(char *text)
{
    for (; *text != '\0'; ++text)
        if (static_cast<unsigned char>(*text) < ' ' || *text == 0x7f)
            *text = '?';
}

__attribute__((format(printf, 4, 0))) kp_result
write_error(kp_error *error, kp_result code, int sys_errno, const char *format, va_list arguments)
{
    if (error != nullptr) {
        blank(error, code, sys_errno);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        one_line(error->message);
    }
    return code;
}

__attribute__((format(printf, 4, 5))) kp_result make(kp_error *error, kp_result code, int sys_errno,
                                                     const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_error(error, code, sys_errno, format, arguments);
    va_end(arguments);
    return code;
}

bool is_shortage(int sys_errno)
{
    return sys_errno == EAGAIN || sys_errno == ENOMEM || sys_errno == EMFILE || sys_errno == ENFILE;
}

constexpr char kInUse[] =
    "; if its address was in use, it binds without SO_REUSEADDR and needs KP_SPEC_NO_RESERVE";

bool speaks_of_the_address(const char *text)
{
    constexpr char kWords[][12] = {"address", "in use", "addrinuse", "bind"};
    for (const char(&word)[12] : kWords)
        if (strcasestr(text, word) != nullptr)
            return true;
    return false;
}

// 2 is what shells end with at a syntax error, and programs at a wrong option; 255, Perl and ssh.
bool may_lack_its_address(const Ended &ended)
{
    int code = ended.exit.code;
    bool is_plain = code > 0 && code != 2 && code < 126;
    return is_plain && ended.reserved && ended.stranger.known == Stranger::None &&
           (ended.output[0] == '\0' || speaks_of_the_address(ended.output));
}

const char *exit_hint(const Ended &ended)
{
    if (ended.exit.code == 0)
        return "; a proxy must stay in the foreground, and its standard input is empty";
    if (ended.exit.code == 127)
        return "; 127 means that a program was not found";
    return may_lack_its_address(ended) ? kInUse : "";
}

// Where nothing else is known.
const char *time_hint(const TimedOut &timed_out)
{
    if (timed_out.busy)
        return "; it is still busy, and may need a longer start-up time";
    return timed_out.reserved ? kInUse : "";
}

// "exited with status 1", "killed by signal 9"
void describe_exit(const Exit &exit, char *text, size_t size)
{
    if (exit.signal != 0)
        snprintf(text, size, "killed by signal %d", exit.signal);
    else if (exit.code >= 0)
        snprintf(text, size, "exited with status %d", exit.code);
    else
        snprintf(text, size, "exited with unknown status");
}

} // namespace

kp_result fail_invalid(kp_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_error(error, KP_ERR_INVALID, 0, format, arguments);
    va_end(arguments);
    return KP_ERR_INVALID;
}

kp_result fail_no_memory(kp_error *error)
{
    return make(error, KP_ERR_NO_MEMORY, ENOMEM, "out of memory");
}

kp_result fail_system(kp_error *error, int sys_errno, const char *doing)
{
    return make(error, KP_ERR_SYSTEM, sys_errno, "%s: %s", doing, Description(sys_errno).text());
}

kp_result fail_state(kp_error *error, const char *why)
{
    return make(error, KP_ERR_STATE, 0, "%s", why);
}

kp_result fail_forked(kp_error *error)
{
    return make(error, KP_ERR_FORKED, 0,
                "the handle was made by another process; after fork() it can only be freed");
}

kp_result fail_port_in_use(kp_error *error, uint16_t port, const Stranger &stranger)
{
    if (stranger.known == Stranger::None)
        return make(error, KP_ERR_PORT_IN_USE, EADDRINUSE,
                    "port %u is taken: 127.0.0.1:%u is in use, perhaps by a former connection",
                    port, port);
    return make(error, KP_ERR_PORT_IN_USE, EADDRINUSE,
                "port %u is taken: 127.0.0.1:%u is in use by %s", port, port,
                Whoever(stranger).text());
}

kp_result fail_foreign(kp_error *error, const Place &place, const Stranger &stranger)
{
    return make(error, KP_ERR_FOREIGN_LISTENER, 0,
                "%s: %s listens there%s; KP_SPEC_ANY_LISTENER accepts it", Subject(place).text(),
                Whoever(stranger).text(),
                place.attached ? ", neither root's nor the host's own" : "");
}

kp_result fail_untold(kp_error *error, const Place &place)
{
    return make(error, KP_ERR_FOREIGN_LISTENER, 0,
                "%s: somebody listens there, and the host is not told who (netlink and /proc are "
                "closed to it); KP_SPEC_ANY_LISTENER accepts it",
                Subject(place).text());
}

kp_result fail_spawn(kp_error *error, int sys_errno, const char *name, const char *cwd)
{
    kp_result code = is_shortage(sys_errno) ? KP_ERR_SYSTEM : KP_ERR_SPAWN;
    Description why(sys_errno);
    if (cwd == nullptr)
        return make(error, code, sys_errno, "spawn external proxy \"%.200s\": %s", name,
                    why.text());
    return make(error, code, sys_errno, "spawn external proxy \"%.120s\": cwd \"%.200s\": %s", name,
                cwd, why.text());
}

kp_result fail_guard_spawn(kp_error *error, int sys_errno)
{
    if (is_shortage(sys_errno))
        return fail_system(error, sys_errno, "start the guard (/bin/sh)");
    return make(error, KP_ERR_GUARD, sys_errno,
                "start the guard (/bin/sh): %s; KP_SPEC_NO_GUARD does without",
                Description(sys_errno).text());
}

kp_result fail_guard_ended(kp_error *error)
{
    return make(error, KP_ERR_GUARD, 0,
                "the guard (/bin/sh) ended before the proxy was ready; KP_SPEC_NO_GUARD does "
                "without");
}

kp_result fail_exited(kp_error *error, const Ended &ended)
{
    char how[64];
    describe_exit(ended.exit, how, sizeof how);
    bool listened = ended.stranger.known != Stranger::None;
    if (ended.was_ready)
        make(error, KP_ERR_EXITED, 0, "external proxy on 127.0.0.1:%u: %s after %s",
             ended.place.port, how, Duration(ended.after).text());
    else
        make(error, KP_ERR_EXITED, 0,
             "external proxy did not bind 127.0.0.1:%u: %s after %s%s%s%s%s", ended.place.port, how,
             Duration(ended.after).text(), exit_hint(ended), listened ? "; " : "",
             Whoever(ended.stranger).text(), listened ? " listens there" : "");
    if (error != nullptr) {
        error->exit_code = ended.exit.code;
        error->term_signal = ended.exit.signal;
    }
    return KP_ERR_EXITED;
}

kp_result fail_timed_out(kp_error *error, const TimedOut &timed_out)
{
    Subject subject(timed_out.place);
    Duration time(timed_out.after);
    int connect_errno = timed_out.connect_errno;
    if (timed_out.stopped)
        return make(error, KP_ERR_TIMED_OUT, connect_errno,
                    "%s: timed out after %s; it is stopped: does it wait for a terminal?",
                    subject.text(), time.text());
    if (timed_out.elsewhere[0] != '\0')
        return make(error, KP_ERR_TIMED_OUT, connect_errno,
                    "%s: timed out after %s; it listens on %s instead", subject.text(), time.text(),
                    timed_out.elsewhere);
    if (timed_out.unanswered)
        return make(error, KP_ERR_TIMED_OUT, 0,
                    "%s: timed out after %s with a connection unanswered: is its backlog full?",
                    subject.text(), time.text());
    if (connect_errno == 0)
        return make(error, KP_ERR_TIMED_OUT, 0,
                    "%s: timed out after %s; connections are accepted, but no listener is to be "
                    "seen; KP_SPEC_ANY_LISTENER does without",
                    subject.text(), time.text());
    if (connect_errno == ECONNREFUSED)
        return make(error, KP_ERR_TIMED_OUT, connect_errno, "%s: timed out after %s%s",
                    subject.text(), time.text(), time_hint(timed_out));
    return make(error, KP_ERR_TIMED_OUT, connect_errno, "%s: timed out after %s (connect: %s)",
                subject.text(), time.text(), Description(connect_errno).text());
}

namespace {

bool is_refused_by_a_rule(int connect_errno)
{
    return connect_errno == EACCES || connect_errno == EPERM;
}

} // namespace

bool is_out_of_reach(int connect_errno)
{
    return connect_errno == ENETUNREACH || connect_errno == EHOSTUNREACH ||
           connect_errno == ENETDOWN || connect_errno == EADDRNOTAVAIL ||
           is_refused_by_a_rule(connect_errno);
}

kp_result fail_out_of_reach(kp_error *error, const Place &place, int connect_errno)
{
    return make(error, KP_ERR_SYSTEM, connect_errno, "%s: 127.0.0.1 can't be reached (%s): %s",
                Subject(place).text(), Description(connect_errno).text(),
                is_refused_by_a_rule(connect_errno)
                    ? "does a sandbox or a packet filter forbid it to the host?"
                    : "is the loopback interface up?");
}

kp_result fail_not_http(kp_error *error, uint16_t port, const char *what, const char *text)
{
    bool said = text[0] != '\0';
    return make(error, KP_ERR_NOT_HTTP, 0,
                "what listens on 127.0.0.1:%u is not an HTTP proxy: asked to CONNECT, it %s%s%s%s",
                port, what, said ? ": \"" : "", text, said ? "\"" : "");
}

kp_result fail_given_up(kp_error *error, pid_t pid)
{
    return make(error, KP_ERR_SYSTEM, 0,
                "process %ld of the external proxy could not be killed and was given up",
                static_cast<long>(pid));
}

namespace {

struct Permit {
    Call call;
    kp_result result;
};

// Every code that each function may return, beside KP_OK.
constexpr Permit kPermits[] = {
    {Call::Start, KP_ERR_INVALID},
    {Call::Start, KP_ERR_STATE},
    {Call::Start, KP_ERR_NO_MEMORY},
    {Call::Start, KP_ERR_SYSTEM},
    {Call::Start, KP_ERR_PORT_IN_USE},
    {Call::Start, KP_ERR_SPAWN},
    {Call::Start, KP_ERR_GUARD},

    {Call::Spawn, KP_ERR_INVALID},
    {Call::Spawn, KP_ERR_STATE},
    {Call::Spawn, KP_ERR_NO_MEMORY},
    {Call::Spawn, KP_ERR_SYSTEM},
    {Call::Spawn, KP_ERR_PORT_IN_USE},
    {Call::Spawn, KP_ERR_SPAWN},
    {Call::Spawn, KP_ERR_GUARD},
    {Call::Spawn, KP_ERR_EXITED},
    {Call::Spawn, KP_ERR_TIMED_OUT},
    {Call::Spawn, KP_ERR_FOREIGN_LISTENER},
    {Call::Spawn, KP_ERR_NOT_HTTP},

    {Call::Step, KP_AGAIN},
    {Call::Step, KP_ERR_INVALID},
    {Call::Step, KP_ERR_FORKED},
    {Call::Step, KP_ERR_SYSTEM},
    {Call::Step, KP_ERR_GUARD},
    {Call::Step, KP_ERR_EXITED},
    {Call::Step, KP_ERR_TIMED_OUT},
    {Call::Step, KP_ERR_FOREIGN_LISTENER},
    {Call::Step, KP_ERR_NOT_HTTP},

    {Call::Wait, KP_AGAIN},
    {Call::Wait, KP_ERR_INVALID},
    {Call::Wait, KP_ERR_FORKED},
    {Call::Wait, KP_ERR_SYSTEM},
    {Call::Wait, KP_ERR_GUARD},
    {Call::Wait, KP_ERR_EXITED},
    {Call::Wait, KP_ERR_TIMED_OUT},
    {Call::Wait, KP_ERR_STATE},
    {Call::Wait, KP_ERR_FOREIGN_LISTENER},
    {Call::Wait, KP_ERR_NOT_HTTP},

    {Call::Stop, KP_ERR_INVALID},
    {Call::Stop, KP_ERR_FORKED},

    {Call::Restart, KP_ERR_INVALID},
    {Call::Restart, KP_ERR_FORKED},
    {Call::Restart, KP_ERR_STATE},
    {Call::Restart, KP_ERR_NO_MEMORY},
    {Call::Restart, KP_ERR_SYSTEM},
    {Call::Restart, KP_ERR_PORT_IN_USE},
    {Call::Restart, KP_ERR_SPAWN},
    {Call::Restart, KP_ERR_GUARD},
};

} // namespace

bool may_return(Call call, kp_result result)
{
    if (result == KP_OK)
        return true;
    for (const Permit &permit : kPermits)
        if (permit.call == call && permit.result == result)
            return true;
    return false;
}

} // namespace kpi
