// SPDX-License-Identifier: Apache-2.0
#include "chance.h"
#include <algorithm>
#include <errno.h>
#include <iterator>
#include <signal.h>
#include <utility>

using namespace kpi;

namespace sim {

Chooser chooser;

namespace {

uint64_t own_events[SIM_EVENTS];

} // namespace

} // namespace sim

uint64_t *sim_events = sim::own_events;

namespace sim {

void count(sim_event event)
{
    ++sim_events[event];
}

// ---- what programs are like

namespace {

// Of one life. A reference stays good.
std::deque<sim_program> pool;

int64_t sometimes(uint32_t in, int64_t least, int64_t most)
{
    return chooser.once_in(in) ? chooser.between(least, most) : 0;
}

// What may be wrong with any of them.
void add_flaws(sim_program &program)
{
    program.deaf = chooser.once_in(6);
    program.obeys_after = sometimes(5, kMillisecond, 3 * kSecond);
    program.leaves_after = sometimes(7, kMicrosecond, 20 * kMillisecond);
    program.stops_after = sometimes(16, 10 * kMicrosecond, 300 * kMillisecond);
    program.stuck = chooser.once_in(48);
    program.dies_after = sometimes(20, kMillisecond, 3 * kSecond);
    program.traced_for = sometimes(16, kMillisecond, 4 * kSecond);
    program.acts_each = sometimes(3, 50 * kMicrosecond, 200 * kMillisecond);
    program.hidden = chooser.once_in(12);
    program.uid = chooser.once_in(10) ? 1000 : 0;
    program.exit_code = static_cast<int>(chooser.pick(4));
    program.exit_signal = chooser.once_in(5) ? SIGSEGV : 0;
}

// How it serves, if it does.
void add_service(sim_program &program)
{
    static const char *const answers[] = {"HTTP/1.1 200 OK\r\n", "HTTP/1.0 502 no\r\n\r\n",
                                          "220 ready\r\n", nullptr};
    program.says = answers[chooser.pick(3) == 0 ? 0 : chooser.pick(4)];
    program.keeps_open = chooser.once_in(8);
    program.hangs_up = chooser.once_in(20);
    program.plain = chooser.once_in(20);
    program.answers_after = sometimes(12, 10 * kMicrosecond, 400 * kMillisecond);
    program.blinks_for = sometimes(16, 10 * kMicrosecond, 400 * kMillisecond);
    program.dies_when_probed = chooser.once_in(20);
    program.unlisted = chooser.once_in(40);
}

int64_t soon()
{
    return chooser.between(20 * kMicrosecond, 20 * kMillisecond);
}

const sim_program *draw_child(int generation)
{
    sim_program &program = pool.emplace_back();
    program.name = "child";
    bool serves = chooser.pick(3) == 0;
    program.listens_after = serves ? soon() : 0;
    program.exits_after = sometimes(4, kMicrosecond, kSecond);
    add_service(program);
    add_flaws(program);
    if (generation < 2 && chooser.once_in(4)) {
        program.child = draw_child(generation + 1);
        program.children = 1 + static_cast<int>(chooser.pick(3));
    }
    return &program;
}

void draw_role(sim_program &program)
{
    static constexpr int kErrors[] = {ENOENT, EACCES, EAGAIN, ENOMEM};
    switch (chooser.pick(14)) {
    default:
        program.listens_after = soon();
        break;
    case 8:
        program.listens_after = chooser.between(kMillisecond, 400 * kMillisecond);
        break;
    case 9:
        break; // never
    case 10:
        program.exits_after = chooser.between(kMicrosecond, 100 * kMillisecond);
        break;
    case 11:
        program.child = draw_child(0);
        program.children = 1 + static_cast<int>(chooser.pick(20));
        break;
    case 12:
        program.listens_after = soon();
        program.exits_after = chooser.between(kMillisecond, 2 * kSecond);
        break;
    case 13:
        program.spawn_errno = chooser.once_in(3) ? kErrors[chooser.pick(4)] : 0;
        break;
    }
}

} // namespace

void teach_proxy()
{
    sim_program &program = pool.emplace_back();
    program.name = "proxy";
    program.says = "HTTP/1.1 200 OK\r\n";
    draw_role(program);
    if (chooser.pick(3) != 0) {
        add_service(program);
        add_flaws(program);
    }
    if (program.child == nullptr && chooser.once_in(3)) {
        program.child = draw_child(0);
        program.children = 1 + static_cast<int>(chooser.pick(3));
    }
    sim_teach(&program);
}

// ---- what they do

namespace {

constexpr size_t kMostProcesses = 60;

void fork_child(Being &parent, bool with_listener)
{
    if (lacks(kProcesses) || world.beings.size() >= kMostProcesses)
        return;
    const sim_program *program = parent.ours ? draw_child(2) : parent.program;
    size_t self = parent.self;
    size_t child = world.beings.size();
    be_born(*program, parent.pid, parent.group, parent.port);
    Being &born = world.beings[child];
    const Being &from = world.beings[self];
    born.ours = from.ours;
    born.left = from.left;
    born.nice = from.nice;
    born.idle = from.idle;
    if (born.pid <= 100)
        complain("a number that is none");
    note("process %d forks %d", from.pid, born.pid);
    if (with_listener && from.listening) {
        born.listening = true;
        born.answering = from.answering;
        born.socket = from.socket;
        born.socket_uid = from.socket_uid;
        born.opened_in = from.opened_in;
    }
}

void reap_children(const Being &parent)
{
    for (Being &being : world.beings)
        if (being.parent == parent.pid && being.state == Being::Zombie && !being.held) {
            note("process %d reaps %d", parent.pid, being.pid);
            being.state = Being::Gone;
            being.gone_in = world.turn;
        }
}

void listen_or_stop(Being &being)
{
    if (being.listening)
        stop_listening(being);
    else if (being.port != 0)
        try_to_listen(being);
}

// As by nice(1) and ionice(1), which does not make the guard's mark.
void renice(Being &being)
{
    note("process %d makes way for everybody", being.pid);
    being.nice = 19;
}

// Of somebody of its own, as a supervisor would.
void kill_sibling(const Being &being)
{
    for (Being &other : world.beings)
        if (other.group == being.group && other.self != being.self && !other.steady &&
            other.state == Being::Alive && chooser.pick(2) == 0) {
            note("process %d kills %d", being.pid, other.pid);
            return deliver(other, chooser.pick(2) == 0 ? SIGTERM : SIGKILL);
        }
}

void do_something(Being &being)
{
    if (being.steady || being.state != Being::Alive || being.doomed || being.stopped)
        return;
    switch (chooser.pick(12)) {
    case 1:
    case 2:
        return fork_child(being, false);
    case 3:
        return fork_child(being, true);
    case 4:
        count(SIM_LEFT_GROUP);
        return leave(being);
    case 5:
        return listen_or_stop(being);
    case 6:
        return end(being, {static_cast<int>(chooser.pick(3)), 0});
    case 7:
        being.stopped = true;
        return note("process %d is stopped", being.pid);
    case 8: // another program under the same number
        note("process %d executes another program", being.pid);
        stop_listening(being);
        being.program = draw_child(2);
        being.veiled = being.veiled || being.program->hidden != 0;
        return;
    case 9:
        return reap_children(being);
    case 10:
        return renice(being);
    case 11:
        return kill_sibling(being);
    default:
        return;
    }
}

// ---- strangers

const sim_program *draw_stranger()
{
    sim_program &program = pool.emplace_back();
    program.name = "stranger";
    program.deaf = 1;
    program.says = "HTTP/1.1 200 OK\r\n";
    program.uid = chooser.once_in(2) ? 1000 : 0;
    program.exits_after = sometimes(2, kMicrosecond, kSecond);
    program.acts_each = sometimes(3, 50 * kMicrosecond, 200 * kMillisecond);
    return &program;
}

bool was_ours(const Being &being)
{
    return std::any_of(world.beings.begin(), world.beings.end(), [&](const Being &other) {
        return other.self != being.self && other.ours && other.pid == being.pid;
    });
}

} // namespace

// By number alone, or with what a child of the host is taken for, the host's other children could
// not be told from what the library started: a host that waits for everybody must not have them get
// a number that is free but for a moment.
bool host_may_have_others()
{
    bool reaps = has(SIM_HOST_REAPS) || has(SIM_HOST_WAITS);
    return !has(SIM_REUSE) || !reaps;
}

void bear_stranger()
{
    if (world.beings.size() >= kMostProcesses)
        return;
    bool of_host = host_may_have_others() && chooser.pick(2) == 1;
    Being &being = be_born(*draw_stranger(), of_host ? kHost : kInit, 0, 0);
    being.ours = false;
    note("process %d, a stranger, is born%s", being.pid, of_host ? " to the host" : "");
    count(SIM_STRANGER_BORN);
    if (was_ours(being))
        count(SIM_STRANGER_TOOK_OURS);
}

void let_stranger_listen(uint16_t port)
{
    if (port == 0 || is_reserved_from(port, true))
        return;
    count(SIM_STRANGER_LISTENED);
    if (chooser.pick(3) == 0) {
        note("somebody who can't be seen listens on %u", port);
        world.occupied.insert({port, {chooser.pick(2) == 0 ? 1000u : 0u, world.turn}});
        return;
    }
    if (is_listened_on(port))
        return;
    size_t self = world.beings.size();
    bear_stranger();
    if (self == world.beings.size())
        return;
    world.beings[self].port = port;
    try_to_listen(world.beings[self]);
}

// ---- what happens in the middle of a call

namespace {

constexpr int64_t kMoment = 200 * kMicrosecond;

void schedule_next()
{
    bool never = world.calm == 0;
    world.quiet_calls = never ? 0 : 1 + static_cast<long>(chooser.between(0, world.calm));
}

void let_time_pass(int64_t time)
{
    world.stalled += time;
    run_until(world.now + time);
}

Being *any_living(bool ours)
{
    size_t at = chooser.pick(static_cast<uint32_t>(world.beings.size() + 1));
    for (size_t i = 0; i < world.beings.size(); ++i) {
        Being &being = world.beings[(at + i) % world.beings.size()];
        if (being.state == Being::Alive && being.ours == ours)
            return &being;
    }
    return nullptr;
}

void interfere(Being &being)
{
    static constexpr int kSignals[] = {SIGKILL, SIGTERM, SIGSTOP, SIGCONT};
    int signo = kSignals[chooser.pick(4)];
    note("an outsider sends signal %d to process %d", signo, being.pid);
    count(SIM_OUTSIDER_KILLED);
    if (being.pipe != 0 && signo == SIGKILL)
        count(SIM_GUARD_KILLED);
    deliver(being, signo);
}

void begin_or_end_shortage()
{
    if (world.short_of != 0) {
        note("no shortage any more");
        world.short_of = 0;
        return;
    }
    world.short_of = 1u << chooser.pick(4);
    world.was_short |= world.short_of;
    note("the host is short of %s", world.short_of == kDescriptors ? "descriptors"
                                    : world.short_of == kMemory    ? "memory"
                                    : world.short_of == kProcesses ? "processes"
                                                                   : "watches");
    count(SIM_SHORTAGE);
}

void stall()
{
    int64_t time = chooser.between(kMillisecond, 8 * kSecond);
    note("the host does not run for %.3f ms", static_cast<double>(time) * 1e-6);
    count(SIM_HOST_STALLED);
    let_time_pass(time);
}

uint16_t port_of_proxy()
{
    for (const Descriptor &descriptor : world.table)
        if (descriptor.kind == Descriptor::Reservation || descriptor.kind == Descriptor::Probe)
            return descriptor.port;
    return 0;
}

void something_happens()
{
    switch (chooser.pick(20)) {
    default:
        return let_time_pass(chooser.between(0, kMoment));
    case 4:
    case 5:
    case 6:
    case 7: { // as if what is to come came now
        int64_t before = world.now;
        happen_next(before + 2 * kMillisecond);
        world.stalled += world.now - before;
        return;
    }
    case 8:
    case 9:
    case 10:
        if (Being *being = any_living(true))
            do_something(*being);
        return;
    case 11:
    case 12:
        if (Being *being = any_living(true))
            interfere(*being);
        return;
    case 13:
    case 14:
        return bear_stranger();
    case 15:
        return let_stranger_listen(port_of_proxy());
    case 16:
        return begin_or_end_shortage();
    case 17:
    case 18:
        count(SIM_HOST_KILLED_IN_CALL);
        return try_host_death();
    case 19:
        return chooser.once_in(8) ? stall() : bear_stranger();
    }
}

void happen_meanwhile()
{
    ++world.happened;
    something_happens();
    schedule_next();
}

} // namespace

void begin_by_chance()
{
    static constexpr int64_t kCalms[] = {0, 400, 100, 20};
    pool.clear();
    unsigned quirks = 0;
    if (chooser.pick(3) != 0)
        for (unsigned bit = 0; bit < 11; ++bit)
            quirks |= (chooser.once_in(bit == 9 ? 2 : 7) ? 1u : 0u) << bit;
    if ((quirks & SIM_SHORT) != 0 && chooser.once_in(4))
        quirks |= SIM_DIAG_REFUSED;
    sim_begin(chooser.pick(256), quirks & ~unsigned{SIM_SHORT}); // a shortage passes
    world.by_chance = true;
    world.calm = kCalms[chooser.pick(4)];
    meanwhile = happen_meanwhile;
    act = do_something;
    schedule_next();
}

} // namespace sim
