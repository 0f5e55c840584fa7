// SPDX-License-Identifier: Apache-2.0
// Its processes, the clock by which they do what they do, and its descriptors.
#include "world.h"
#include <algorithm>
#include <errno.h>
#include <iterator>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utility>

using namespace kpi;

namespace sim {

World world;

namespace {

constexpr int64_t kReaction = 20 * kMicrosecond;
constexpr int64_t kInitPause = 10 * kMillisecond;
constexpr long kMostCallsAtOnce = 20000;

} // namespace

void complain(const char *format, ...)
{
    fprintf(stderr, "sim: at %.6f s, call %ld: ", static_cast<double>(world.now - kSecond) * 1e-9,
            world.counts.calls);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}

bool has(unsigned what)
{
    return (world.quirks & what) != 0;
}

// ---- processes

Being &find(pid_t pid)
{
    for (Being &being : world.beings)
        if (being.pid == pid)
            return being;
    complain("there never was a process %d", pid);
}

Being &known(pid_t pid, const char *what)
{
    Being &being = find(pid);
    if (being.state == Being::Gone)
        complain("%s: process %d is a stranger", what, pid);
    return being;
}

namespace {

// The one place of chance.
int64_t reaction()
{
    if (world.seed == 0)
        return kReaction;
    world.seed = world.seed * 6364136223846793005u + 1442695040888963407u;
    return kMicrosecond + static_cast<int64_t>(world.seed >> 33) % (200 * kMicrosecond);
}

void bury_or_keep(Being &being)
{
    if (being.state != Being::Zombie)
        return;
    if (being.parent == kInit && has(SIM_SLOW_INIT))
        being.when[kBuried] = world.now + kInitPause;
    else if (being.parent == kInit || (being.parent == kHost && has(SIM_HOST_REAPS)))
        being.state = Being::Gone;
}

// A parent other than host and init never waits: its zombies stay as long as it lives.
void end(Being &being, Exit exit)
{
    being.exit = exit;
    being.state = Being::Zombie;
    being.listening = false;
    being.when = {};
    orphan_children(being.pid);
    bury_or_keep(being);
}

void end_soon(Being &being, int signo, int64_t delay)
{
    int64_t at = world.now + std::max(delay, reaction());
    if (at >= being.when[kDies])
        return;
    being.when[kDies] = at;
    being.dies_of = signo;
}

} // namespace

void orphan_children(pid_t parent)
{
    for (Being &being : world.beings)
        if (being.parent == parent) {
            being.parent = kInit;
            bury_or_keep(being);
        }
}

void deliver(Being &being, int signo)
{
    if (being.state != Being::Alive || signo == 0)
        return;
    if (being.told[signo] < 0)
        being.told[signo] = world.now;
    if (signo == SIGKILL) {
        if (!being.program->stuck)
            end_soon(being, signo, 0);
    } else if (signo == SIGCONT) {
        being.stopped = false;
        deliver(being, std::exchange(being.waiting, 0));
    } else if (being.pipe == 0 && !being.program->deaf) {
        if (being.stopped)
            being.waiting = signo;
        else
            end_soon(being, signo, being.program->obeys_after);
    }
}

int deliver_to_group(pid_t group, int signo)
{
    int result = ESRCH;
    for (Being &being : world.beings)
        if (being.group == group && being.state != Being::Gone) {
            deliver(being, signo);
            result = 0;
        }
    return result;
}

void close_pipe(int pipe)
{
    for (Being &being : world.beings)
        if (being.pipe == pipe && being.state == Being::Alive)
            being.when[kWakes] = world.now + reaction();
}

namespace {

int64_t after(int64_t delay)
{
    return delay == 0 ? kNever : world.now + delay;
}

} // namespace

Being &be_born(const sim_program &program, pid_t parent, pid_t group, uint16_t port)
{
    ++world.counts.spawns;
    Being &being = world.beings.emplace_back();
    being.pid = ++world.last_pid;
    being.group = group == 0 ? being.pid : group;
    being.parent = parent;
    being.program = &program;
    being.port = port;
    being.nice = has(SIM_LOW_HOST) ? 19 : 0;
    std::fill(std::begin(being.told), std::end(being.told), -1);
    being.when[kListens] = after(program.listens_after);
    being.when[kExits] = after(program.exits_after);
    being.when[kLeaves] = after(program.leaves_after);
    being.when[kStops] = after(program.stops_after);
    for (int i = 0; i < program.children; ++i)
        be_born(*program.child, being.pid, being.group, port);
    return being;
}

// ---- what a process does when it is time

namespace {

void do_die(Being &being)
{
    end(being, {-1, being.dies_of});
}

void do_leave(Being &being)
{
    being.group = being.pid;
    being.left = true;
}

void do_listen(Being &being)
{
    if (is_listened_on(being.port) || is_reserved_from(being.port, !being.program->plain))
        return end(being, {1, 0}); // EADDRINUSE
    being.listening = true;
    being.answering = being.program->answers_after == 0;
    being.when[kAnswers] = after(being.program->answers_after);
}

void do_answer(Being &being)
{
    being.answering = true;
}

void do_exit(Being &being)
{
    const sim_program &program = *being.program;
    end(being, {program.exit_signal == 0 ? program.exit_code : -1, program.exit_signal});
}

void do_stop(Being &being)
{
    being.stopped = true;
}

void do_be_buried(Being &being)
{
    being.state = Being::Gone;
}

// As the script has it: TERM and CONT to its own group, and after the grace KILL.
void do_wake(Being &guard)
{
    deliver_to_group(guard.group, SIGTERM);
    deliver_to_group(guard.group, SIGCONT);
    guard.when[kKills] = world.now + guard.grace;
}

void do_kill(Being &guard)
{
    deliver_to_group(guard.group, SIGKILL);
}

constexpr void (*kDeeds[])(Being &) = {do_die,  do_leave, do_listen, do_answer,   do_exit,
                                       do_stop, do_wake,  do_kill,   do_be_buried};
static_assert(std::size(kDeeds) == kDeedCount);

} // namespace

bool happen_next(int64_t until)
{
    Being *who = nullptr;
    size_t what = 0;
    int64_t first = kNever;
    for (Being &being : world.beings)
        for (size_t deed = 0; deed < kDeedCount; ++deed)
            if (being.when[deed] < first && (deed == kDies || !being.stopped)) {
                who = &being;
                what = deed;
                first = being.when[deed];
            }
    if (who == nullptr || first > until)
        return false;
    move_clock(first);
    who->when[what] = kNever;
    kDeeds[what](*who);
    return true;
}

void move_clock(int64_t at)
{
    if (at <= world.now)
        return; // what a stopped process has missed happens when it is continued
    world.now = at;
    world.calls_at_once = 0;
}

void run_until(int64_t at)
{
    while (happen_next(at))
        ;
    move_clock(at);
}

// ---- the host's end

namespace {

// What lives in a guard's group when the guard has had its time.
void check_orphans()
{
    for (const Being &guard : world.beings)
        for (const Being &being : world.beings)
            if (guard.pipe != 0 && being.group == guard.pid && being.state == Being::Alive &&
                !being.program->stuck)
                complain("process %d (%s) outlives the host", being.pid, being.program->name);
}

void kill_host()
{
    int64_t grace = 0;
    for (Descriptor &descriptor : world.table) {
        if (descriptor.kind == Descriptor::PipeWrite)
            close_pipe(descriptor.pipe);
        descriptor.kind = Descriptor::Closed;
    }
    orphan_children(kHost);
    for (const Being &being : world.beings)
        grace = std::max(grace, being.grace);
    run_until(world.now + grace + kMillisecond);
    check_orphans();
}

} // namespace

// The world is a value, so the host can die in it and live on in a copy.
void pass_point()
{
    ++world.counts.points;
    if (!world.doubtful)
        return;
    World other = world;
    kill_host();
    world = std::move(other);
}

void enter(const char *call)
{
    ++world.counts.calls;
    if (++world.calls_at_once > kMostCallsAtOnce)
        complain("%s: the library spins", call);
    pass_point();
}

// ---- descriptors

int add(Descriptor descriptor)
{
    world.table.push_back(std::move(descriptor));
    ++world.counts.descriptors;
    return static_cast<int>(world.table.size()) - 1;
}

bool is_number(int fd)
{
    return fd >= 0 && fd < static_cast<int>(world.table.size()) &&
           world.table[static_cast<size_t>(fd)].kind != Descriptor::Closed;
}

Descriptor &use(int fd, const char *what)
{
    if (!is_number(fd))
        complain("%s: descriptor %d is closed", what, fd);
    return world.table[static_cast<size_t>(fd)];
}

Descriptor &use(int fd, Descriptor::Kind kind, const char *what)
{
    Descriptor &descriptor = use(fd, what);
    if (descriptor.kind != kind)
        complain("%s: descriptor %d is something else", what, fd);
    return descriptor;
}

bool is_ready(const sys::Watch &watch)
{
    Descriptor &descriptor = use(watch.fd, "wait");
    switch (descriptor.kind) {
    case Descriptor::End:
        return find(descriptor.pid).state != Being::Alive;
    case Descriptor::Probe:
        if (!watch.writable)
            return descriptor.said != nullptr || has_closed(descriptor);
        return !descriptor.pending || answer_at(descriptor.port) != EINPROGRESS;
    case Descriptor::Timer:
        return descriptor.due.passed(world.now);
    case Descriptor::Events:
        return is_ready({descriptor.timer, false}) ||
               std::any_of(descriptor.watches.begin(), descriptor.watches.end(), is_ready);
    default:
        complain("wait: nobody waits for descriptor %d", watch.fd);
    }
}

// ---- the port

bool is_listened_on(uint16_t port)
{
    return answer_at(port) != ECONNREFUSED;
}

const Being *listener_at(uint16_t port)
{
    const Being *found = nullptr;
    for (const Being &being : world.beings)
        if (being.listening && being.port == port)
            found = &being;
    return found;
}

void notice_probe(uint16_t port)
{
    for (Being &being : world.beings) {
        if (!being.listening || being.port != port)
            continue;
        if (being.program->blinks_for != 0 && !being.blinked) {
            being.blinked = true;
            being.listening = false;
            being.when[kListens] = after(being.program->blinks_for);
        }
        if (being.program->dies_when_probed != 0)
            end(being, {9, 0});
    }
}

int answer_at(uint16_t port)
{
    if (const Being *being = listener_at(port))
        return being->answering ? 0 : EINPROGRESS;
    return world.occupied.count(port) != 0 ? 0 : ECONNREFUSED;
}

bool has_closed(const Descriptor &probe)
{
    const Being *being = listener_at(probe.port);
    return being != nullptr ? being->program->hangs_up != 0 : world.occupied.count(probe.port) == 0;
}

bool is_reserved_from(uint16_t port, bool reuse)
{
    for (const Descriptor &socket : world.table)
        if (socket.kind == Descriptor::Reservation && socket.port == port)
            if (!reuse || !socket.open_to_others)
                return true;
    return false;
}

} // namespace sim
