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
bool telling = getenv("KP_SIM_HISTORY") != nullptr;
int planted = 0;

namespace {

char own_complaint[kComplaint];

} // namespace

char *complaint = own_complaint;
void (*meanwhile)() = nullptr;
void (*at_turn_end)() = nullptr;
void (*act)(Being &being) = nullptr;

namespace {

constexpr int64_t kReaction = 20 * kMicrosecond;
constexpr int64_t kInitPause = 10 * kMillisecond;
constexpr long kMostCallsAtOnce = 20000;

// What every program of a user's namespace would come up against, too.
constexpr size_t kMostBeings = 120;

void write_time()
{
    fprintf(stderr, "%14.6f ms  %s", static_cast<double>(world.now - kSecond) * 1e-6,
            world.hostless ? "        | " : "");
}

} // namespace

void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(complaint, kComplaint, format, arguments);
    va_end(arguments);
    fprintf(stderr, "sim: at %.6f s, call %ld: %s\n",
            static_cast<double>(world.now - kSecond) * 1e-9, world.counts.calls, complaint);
    abort();
}

void note(const char *format, ...)
{
    if (!telling)
        return;
    write_time();
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

bool has(unsigned what)
{
    return (world.quirks & what) != 0;
}

bool lacks(unsigned what)
{
    return (world.short_of & what) != 0;
}

bool is_planted(int fault)
{
    return planted == fault;
}

// ---- processes

Being *newest(pid_t pid)
{
    for (size_t i = world.beings.size(); i-- > 0;)
        if (world.beings[i].pid == pid)
            return &world.beings[i];
    return nullptr;
}

Being &find(pid_t pid)
{
    Being *being = newest(pid);
    if (being == nullptr)
        complain("there never was a process %d", pid);
    return *being;
}

// One that was reaped in this turn has a number that nobody got yet.
Being &known(pid_t pid, const char *what)
{
    Being &being = find(pid);
    bool gone = being.state == Being::Gone && (being.reaped_by_us || being.gone_in != world.turn);
    if (gone || !being.ours)
        complain("%s: process %d is a stranger", what, pid);
    return being;
}

bool has_number(const Being &being)
{
    return being.state != Being::Gone;
}

bool is_member(const Being &being)
{
    return being.ours && !being.left;
}

// Short, and the same each time but for a seed.
int64_t reaction()
{
    if (world.seed == 0)
        return kReaction;
    world.seed = world.seed * 6364136223846793005u + 1442695040888963407u;
    return kMicrosecond + static_cast<int64_t>(world.seed >> 33) % (200 * kMicrosecond);
}

namespace {

void vanish(Being &being)
{
    being.state = Being::Gone;
    being.gone_in = world.turn;
}

void bury_or_keep(Being &being)
{
    if (being.state != Being::Zombie || being.held)
        return;
    bool slow = (being.parent == kInit && has(SIM_SLOW_INIT)) ||
                (being.parent == kHost && has(SIM_HOST_WAITS));
    if (slow)
        being.when[kBuried] = world.now + (world.by_chance ? 50 * reaction() : kInitPause);
    else if (being.parent == kInit ||
             (being.parent == kHost && (has(SIM_HOST_REAPS) || !being.ours)))
        vanish(being);
}

// The guard's helper, without which the script goes on to its trap.
void tell_guard(const Being &helper)
{
    if (!helper.steady || helper.pipe != 0)
        return;
    Being &guard = world.beings[helper.band];
    if (guard.state == Being::Alive && guard.self != helper.self)
        guard.when[kKills] = world.now + reaction();
}

} // namespace

// A parent other than host and init never waits: its zombies stay as long as it lives.
void end(Being &being, Exit exit)
{
    note("process %d (%s) ends: status %d, signal %d", being.pid, being.program->name, exit.code,
         exit.signal);
    being.exit = exit;
    being.state = Being::Zombie;
    being.stopped = false;
    stop_listening(being);
    being.when = {};
    for (int pipe : std::exchange(being.pipes, {}))
        let_go(pipe);
    tell_guard(being);
    orphan_children(being.pid);
    if (being.program->traced_for != 0) {
        being.held = true;
        ++world.counts.traced;
        being.when[kReleased] = world.now + being.program->traced_for;
    }
    bury_or_keep(being);
}

namespace {

void end_soon(Being &being, int signo, int64_t delay)
{
    int64_t at = world.now + std::max(delay, reaction());
    if (at >= being.when[kDies])
        return;
    being.when[kDies] = at;
    being.dies_of = signo;
    being.doomed = being.doomed || delay == 0;
}

} // namespace

void orphan_children(pid_t parent)
{
    for (Being &being : world.beings)
        if (being.parent == parent && being.state != Being::Gone) {
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
    if (being.doomed && signo != SIGKILL)
        return;
    if (signo == SIGKILL) {
        being.doomed = true;
        if (!being.program->stuck)
            end_soon(being, signo, being.program->dies_after);
    } else if (signo == SIGCONT) {
        being.stopped = false;
        deliver(being, std::exchange(being.waiting, 0));
    } else if (signo == SIGSTOP) {
        being.stopped = true;
    } else if (!being.steady && !being.program->deaf) {
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

int deliver_to_band(size_t founder, int signo)
{
    int result = ESRCH;
    for (Being &being : world.beings)
        if (being.band == founder && being.state != Being::Gone) {
            deliver(being, signo);
            result = 0;
        }
    return result;
}

namespace {

bool is_held(int pipe)
{
    for (const Descriptor &descriptor : world.table)
        if (descriptor.kind == Descriptor::PipeWrite && descriptor.pipe == pipe)
            return true;
    for (const Being &being : world.beings)
        if (std::find(being.pipes.begin(), being.pipes.end(), pipe) != being.pipes.end())
            return true;
    return false;
}

} // namespace

void let_go(int pipe)
{
    if (is_held(pipe))
        return;
    for (Being &being : world.beings)
        if (being.pipe == pipe && being.state == Being::Alive)
            being.when[kWakes] = world.now + reaction();
}

namespace {

int64_t after(int64_t delay)
{
    return delay == 0 ? kNever : world.now + delay;
}

// As the kernel does: not while it is a process's or a group's, and not at once.
bool is_free(pid_t number)
{
    for (const Being &being : world.beings) {
        bool names = being.pid == number || being.group == number;
        if (names && (being.state != Being::Gone || being.gone_in == world.turn))
            return false;
    }
    return true;
}

pid_t new_number()
{
    if (!has(SIM_REUSE))
        return ++world.last_pid;
    pid_t number = world.last_pid + 1;
    while (!is_free(number))
        ++number;
    world.counts.reused += newest(number) != nullptr;
    return number;
}

size_t founder_of(pid_t group)
{
    for (const Being &being : world.beings)
        if (being.group == group && being.state != Being::Gone)
            return being.band;
    return kNobody;
}

void plan(Being &being, const sim_program &program)
{
    being.when[kListens] = after(program.listens_after);
    being.when[kExits] = after(program.exits_after);
    being.when[kLeaves] = after(program.leaves_after);
    being.when[kStops] = after(program.stops_after);
    being.when[kActs] = after(program.acts_each);
}

} // namespace

Being &be_born(const sim_program &program, pid_t parent, pid_t group, uint16_t port)
{
    ++world.counts.spawns;
    pid_t number = new_number();
    size_t band = group == 0 ? world.beings.size() : founder_of(group);
    Being &being = world.beings.emplace_back();
    being.self = world.beings.size() - 1;
    being.pid = number;
    being.group = group == 0 ? number : group;
    being.band = band;
    being.parent = parent;
    being.program = &program;
    being.port = port;
    being.uid = program.uid;
    being.veiled = program.hidden != 0;
    being.born = world.now;
    being.nice = has(SIM_LOW_HOST) ? 19 : 0;
    std::fill(std::begin(being.told), std::end(being.told), -1);
    plan(being, program);
    for (int i = 0; i < program.children && world.beings.size() < kMostBeings; ++i)
        be_born(*program.child, being.pid, being.group, port);
    return being;
}

// ---- what a process does when it is time

// Who leads a group can't.
void leave(Being &being)
{
    if (being.group == being.pid)
        return;
    note("process %d leaves group %d", being.pid, being.group);
    being.group = being.pid;
    being.band = being.self;
    being.left = true;
    world.somebody_left = world.somebody_left || being.ours;
}

bool try_to_listen(Being &being)
{
    if (is_listened_on(being.port) || is_reserved_from(being.port, !being.program->plain))
        return false;
    note("process %d (%s, group %d) listens on %u", being.pid, being.program->name, being.group,
         being.port);
    being.listening = true;
    being.socket = ++world.last_socket;
    being.socket_uid = being.uid;
    being.opened_in = world.turn;
    being.answering = being.program->answers_after == 0;
    being.when[kAnswers] = after(being.program->answers_after);
    return true;
}

void stop_listening(Being &being)
{
    if (!being.listening)
        return;
    note("process %d listens no more", being.pid);
    being.listening = false;
    being.closed_in = world.turn;
}

namespace {

void do_die(Being &being)
{
    end(being, {-1, being.dies_of});
}

void do_leave(Being &being)
{
    leave(being);
}

void do_listen(Being &being)
{
    if (!being.listening && being.port != 0 && !try_to_listen(being))
        end(being, {1, 0}); // EADDRINUSE
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
    note("process %d is stopped", being.pid);
    being.stopped = true;
}

void do_release(Being &being)
{
    note("process %d is let go of by its tracer", being.pid);
    being.held = false;
    being.released_in = world.turn;
    bury_or_keep(being);
}

void do_be_buried(Being &being)
{
    note("process %d is reaped by its parent", being.pid);
    vanish(being);
}

const sim_program *helper()
{
    static const sim_program program = [] {
        sim_program made = {};
        made.name = "the guard's helper";
        return made;
    }();
    return &program;
}

// As the script has it: TERM and CONT to its own group, and after the grace KILL, by a child that
// waits for a sleep to end. One that can't be had leaves the trap on EXIT.
void do_wake(Being &guard)
{
    note("guard %d: the host is gone", guard.pid);
    deliver_to_band(guard.band, SIGTERM);
    deliver_to_band(guard.band, SIGCONT);
    if (lacks(kProcesses)) {
        guard.when[kKills] = world.now + reaction();
        return;
    }
    int64_t kills = world.now + guard.grace;
    pid_t parent = guard.pid;
    Being &child = be_born(*helper(), parent, parent, 0);
    child.steady = true;
    child.when[kKills] = kills;
}

void do_kill(Being &guard)
{
    note("guard %d: the grace is over", guard.pid);
    deliver_to_band(guard.band, SIGKILL);
}

void do_act(Being &being)
{
    being.when[kActs] = after(being.program->acts_each);
    act(being);
}

constexpr void (*kDeeds[])(Being &) = {do_die,  do_leave,   do_listen,   do_answer,
                                       do_exit, do_stop,    do_wake,     do_kill,
                                       do_act,  do_release, do_be_buried};
static_assert(std::size(kDeeds) == kDeedCount);

bool can(const Being &being, size_t deed)
{
    return deed == kDies || being.state != Being::Alive || !(being.stopped || being.doomed);
}

} // namespace

bool happen_next(int64_t until)
{
    Being *who = nullptr;
    size_t what = 0;
    int64_t first = kNever;
    for (Being &being : world.beings)
        for (size_t deed = 0; being.state != Being::Gone && deed < kDeedCount; ++deed)
            if (being.when[deed] < first && can(being, deed)) {
                who = &being;
                what = deed;
                first = being.when[deed];
            }
    if (who == nullptr || first > until)
        return false;
    move_clock(first);
    ++world.happened;
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

// Whether it is there to end the group: also where it was the library that ended it too early.
bool is_in_force(const Being &guard)
{
    bool is_guard = guard.steady && guard.band == guard.self;
    return is_guard && ((guard.state == Being::Alive && !guard.doomed) || guard.killed_by_us);
}

// What lives in a guard's group when the guard has had its time.
void check_orphans(const std::vector<bool> &in_force)
{
    for (const Being &being : world.beings)
        if (being.band < in_force.size() && in_force[being.band] && being.ours &&
            being.state == Being::Alive && !being.program->stuck && being.told[SIGKILL] < 0)
            complain("process %d (%s) outlives the host", being.pid, being.program->name);
}

// Of a group whose leader's parent is gone: SIGHUP and SIGCONT, if one of it is stopped.
void orphan_groups()
{
    for (size_t i = 0; i < world.beings.size(); ++i)
        if (world.beings[i].parent == kHost && world.beings[i].stopped) {
            deliver_to_band(world.beings[i].band, SIGHUP);
            deliver_to_band(world.beings[i].band, SIGCONT);
        }
}

void close_all_pipes()
{
    std::vector<int> pipes;
    for (Descriptor &descriptor : world.table) {
        if (descriptor.kind == Descriptor::PipeWrite)
            pipes.push_back(descriptor.pipe);
        descriptor.kind = Descriptor::Closed;
    }
    for (int pipe : pipes)
        let_go(pipe);
}

void run_until_workers_are_gone()
{
    for (size_t i = 0; i < world.beings.size(); ++i)
        while (world.beings[i].state == Being::Alive && !world.beings[i].pipes.empty())
            if (!happen_next(kNever))
                complain("a worker never ends");
}

void kill_host()
{
    note("what if the host were killed here:");
    world.hostless = true;
    int64_t grace = 0, died = world.now;
    std::vector<bool> in_force;
    world.counts.saved = 0;
    for (const Being &being : world.beings)
        in_force.push_back(is_in_force(being));
    orphan_groups();
    close_all_pipes();
    orphan_children(kHost);
    run_until_workers_are_gone();
    for (const Being &being : world.beings)
        grace = std::max(grace, being.grace);
    run_until(world.now + grace + 2 * kMillisecond);
    check_orphans(in_force);
    for (const Being &being : world.beings)
        world.counts.saved += being.state != Being::Alive && being.told[SIGTERM] >= died;
}

} // namespace

// The world is a value, so the host can die in it and live on in a copy.
void try_host_death()
{
    World other = world;
    kill_host();
    other.counts.saved += world.counts.saved;
    world = std::move(other);
    note("it was not");
}

void pass_point()
{
    ++world.counts.points;
    if (world.doubtful)
        try_host_death();
    if (world.quiet_calls > 0 && --world.quiet_calls == 0)
        meanwhile();
}

void enter(const char *call)
{
    ++world.counts.calls;
    if (++world.calls_at_once > kMostCallsAtOnce)
        complain("%s: the library spins", call);
    pass_point();
}

void begin_turn()
{
    ++world.turn;
    world.turn_began = world.now;
    world.happened = 0;
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
        return world.beings[descriptor.being].state != Being::Alive;
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
            stop_listening(being);
            being.when[kListens] = after(being.program->blinks_for);
        }
        if (being.program->dies_when_probed != 0)
            end(being, {9, 0});
        if (being.program->loses_guard_when_probed != 0)
            end(find(being.group), {-1, 9});
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
    if (being == nullptr)
        return probe.finished || world.occupied.count(probe.port) == 0;
    return being->program->hangs_up != 0 || (probe.finished && being->program->keeps_open == 0);
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
