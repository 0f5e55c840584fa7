// SPDX-License-Identifier: Apache-2.0
// The platform's interfaces, on the world.
#include "life.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/host.h"
#include "platform/listener.h"
#include "platform/process.h"
#include "platform/socket.h"
#include "platform/wait.h"
#include "world.h"
#include <algorithm>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utility>

namespace kpi::sys {

using namespace sim;

namespace {

// By the descriptor where there is one: else by number, as long as that is its own.
Being &being_of(const Process &process, const char *what)
{
    if (!process.end)
        return find(process.pid);
    Being &being = world.beings[use(process.end.get(), Descriptor::End, what).being];
    if (being.pid != process.pid)
        complain("%s: the descriptor of %d for process %d", what, being.pid, process.pid);
    return being;
}

Fd make_end(const Being &being)
{
    bool none = has(SIM_NO_PIDFD) || lacks(kDescriptors);
    return none ? Fd() : Fd(add({.kind = Descriptor::End, .being = being.self}));
}

// ---- what the library's signals may do

// Everybody has the grace, and is asked first, unless the host is in a hurry.
void judge_kill(const Being &being)
{
    bool is_guard = being.pipe != 0 || being.state != Being::Alive || being.doomed;
    if (!world.by_chance || is_guard || being.self == world.outside)
        return;
    // Where nobody can look and the leader is a zombie, who is as nice as the guard can't be told
    // from other zombies.
    bool is_humble = being.nice > 0 && (has(SIM_NO_PROC) || world.was_short != 0);
    if (world.now < world.kill_due && !is_humble)
        complain("process %d (%s) is killed %.3f ms before its grace is over", being.pid,
                 being.program->name, static_cast<double>(world.kill_due - world.now) * 1e-6);
    if (being.told[SIGTERM] < 0 && being.born < world.told_at && world.kill_due > world.told_at &&
        is_member(being))
        complain("process %d (%s) is killed and was never asked", being.pid, being.program->name);
}

// What a library with a fault would send instead; 0: nothing.
int planted_signal(const Being &being, int signo)
{
    bool is_guard = being.pipe != 0;
    if (is_planted(SIM_GIVES_NO_GRACE) && signo == SIGTERM)
        return SIGKILL;
    bool none = (is_planted(SIM_NEVER_KILLS) && signo == SIGKILL && !is_guard) ||
                (is_planted(SIM_LEAVES_GUARD) && signo == SIGKILL && is_guard) ||
                (is_planted(SIM_ASKS_NOBODY) && signo != SIGKILL);
    return none ? 0 : signo;
}

void strike(Being &being, int signo, const char *how)
{
    if (!being.ours)
        complain("%s: signal %d for process %d (%s), a stranger", how, signo, being.pid,
                 being.program->name);
    if (signo == SIGTERM && world.told_at < 0) {
        world.told_at = world.now;
        if (world.kill_due == kNever) {
            world.kill_due = world.turn_began + world.grace;
            world.kill_by = world.now + world.grace;
        }
    }
    signo = planted_signal(being, signo);
    if (signo == SIGKILL) {
        judge_kill(being);
        being.killed_by_us = true;
    }
    deliver(being, signo);
}

// Whom `is_struck` finds.
template <typename Find>
int strike_each(int signo, const char *how, Find is_struck)
{
    int result = ESRCH;
    for (Being &being : world.beings)
        if (has_number(being) && is_struck(being)) {
            if (signo != 0)
                strike(being, signo, how);
            result = 0;
        }
    return result;
}

int answered(const char *call, long whom, int signo, int result)
{
    note("%s(%ld, %d) = %d", call, whom, signo, result);
    return result;
}

void become_guard(Being &being, const sys::Launch &launch)
{
    unsigned seconds, rest;
    const char *sleep = strstr(launch.argv[2], "sleep ");
    if (sleep == nullptr || sscanf(sleep, "sleep %u.%3u", &seconds, &rest) != 2)
        complain("the guard does not sleep: %s", launch.argv[2]);
    if (!launch.block_signals || strstr(launch.argv[2], "trap '' HUP INT QUIT TERM") == nullptr)
        complain("the guard does not outlast a SIGTERM");
    being.steady = true;
    being.pipe = use(launch.input, Descriptor::PipeRead, "spawn").pipe;
    being.grace = seconds * kSecond + rest * kMillisecond;
}

const sim_program *shell()
{
    static const sim_program program = [] {
        sim_program made = {};
        made.name = "/bin/sh";
        return made;
    }();
    return &program;
}

const sim_program *find_program(const char *name)
{
    for (const sim_program *program : world.programs)
        if (strcmp(program->name, name) == 0)
            return program;
    return strcmp(name, shell()->name) == 0 ? shell() : nullptr;
}

bool is_executable(const sim_program &program)
{
    bool is_late = program.executable_at != 0 && world.now >= program.executable_at;
    return program.spawn_errno == 0 || is_late;
}

uint16_t port_in(char *const *env)
{
    for (; *env != nullptr; ++env)
        if (strncmp(*env, KP_PORT_ENV "=", sizeof KP_PORT_ENV) == 0)
            return static_cast<uint16_t>(atoi(*env + sizeof KP_PORT_ENV));
    return 0;
}

} // namespace

int64_t now()
{
    enter("now");
    return world.now;
}

char **environment()
{
    static char path[] = "PATH=/bin";
    static char *list[] = {path, nullptr};
    return list;
}

uint64_t generation()
{
    return is_planted(SIM_MISSES_FORKS) ? 1 : world.generation;
}

bool spawns_among_its_own()
{
    return true;
}

void close_fd(int fd)
{
    enter("close_fd");
    Descriptor &closed = use(fd, "close_fd");
    for (const Descriptor &events : world.table)
        for (const Watch &watch : events.watches)
            if (events.kind == Descriptor::Events && watch.fd == fd && !world.is_child)
                complain("close_fd: descriptor %d is still watched", fd);
    if (is_planted(SIM_KEEPS_DESCRIPTOR) && world.counts.calls % 100 == 0)
        return;
    bool is_pipe = closed.kind == Descriptor::PipeWrite;
    closed.kind = Descriptor::Closed;
    if (is_pipe)
        let_go(closed.pipe);
    --world.counts.descriptors;
}

bool is_open(int fd)
{
    return is_number(fd);
}

bool is_inherited(int fd)
{
    return is_number(fd);
}

bool is_writable(int fd)
{
    return is_number(fd);
}

int duplicate(int fd, Fd &copy)
{
    enter("duplicate");
    if (lacks(kDescriptors))
        return EMFILE;
    Descriptor::Kind kind = use(fd, "duplicate").kind;
    size_t being = use(fd, "duplicate").being;
    copy.reset(add({.kind = kind, .being = being}));
    return 0;
}

// Every other time one of the proxy's own, which the library is not to keep. Nothing depends on it.
Fd reopen(int fd)
{
    bool own = !lacks(kDescriptors) && world.counts.calls % 2 == 0;
    return own ? Fd(add({.kind = use(fd, "reopen").kind})) : Fd();
}

int make_pipe(Fd &read_end, Fd &write_end)
{
    enter("make_pipe");
    if (lacks(kDescriptors))
        return ENFILE;
    int pipe = ++world.last_pipe;
    read_end.reset(add({.kind = Descriptor::PipeRead, .pipe = pipe}));
    write_end.reset(add({.kind = Descriptor::PipeWrite, .pipe = pipe}));
    return 0;
}

// The guard has the only end that can be read.
bool is_broken(const Fd &write_end)
{
    int pipe = use(write_end.get(), Descriptor::PipeWrite, "is_broken").pipe;
    if (pipe == world.late_pipe)
        return false;
    return std::none_of(world.beings.begin(), world.beings.end(), [pipe](const Being &being) {
        return being.pipe == pipe && being.state == Being::Alive;
    });
}

int check_directory(const char *path)
{
    return strcmp(path, "/") == 0 ? 0 : ENOENT;
}

int64_t regular_file_size(int)
{
    return -1;
}

size_t read_file(int, int64_t, char *, size_t)
{
    return 0;
}

namespace {

// In a host that reaps everybody a child may be gone before its descriptor can be opened.
void take_child(Being &being, const Launch &launch, Process &child, bool &lost)
{
    size_t self = being.self;
    (being.program == shell() ? world.guard : world.proxy) = self;
    if (being.program == shell())
        become_guard(being, launch);
    bool comes_late = is_planted(SIM_GUARD_COMES_LATE) && being.program == shell();
    if (comes_late)
        world.late_pipe = std::exchange(being.pipe, 0);
    enter("spawn: open its end");
    Being &born = world.beings[self];
    if (!comes_late && world.late_pipe != 0)
        world.beings[world.guard].pipe = std::exchange(world.late_pipe, 0);
    child.pid = born.pid;
    lost = born.state == Being::Gone;
    world.counts.lost += lost;
    world.lost = world.lost || lost;
    if (!lost)
        child.end = make_end(born);
}

} // namespace

// A zombie keeps the group that its number names, so it can still be joined.
int spawn(const Launch &launch, Process &child, bool &lost)
{
    lost = false;
    enter("spawn");
    const sim_program *program = find_program(launch.program);
    int result = 0;
    if (lacks(kProcesses))
        result = EAGAIN;
    else if (program == nullptr || !is_executable(*program))
        result = program == nullptr ? ENOENT : program->spawn_errno;
    else if (launch.group != 0 && deliver_to_group(launch.group, 0) != 0)
        result = EPERM;
    if (launch.output >= 0)
        use(launch.output, "spawn");
    if (result == 0)
        take_child(be_born(*program, kHost, launch.group, port_in(launch.env)), launch, child,
                   lost);
    note("spawn(%s, group %d) = %d, process %d%s", launch.program, launch.group, result,
         result == 0 ? child.pid : 0, lost ? ", gone already" : "");
    return result;
}

namespace {

// waitid() knows the host's own children alone.
bool is_child(const Being &being)
{
    return being.state != Being::Gone && being.parent == kHost;
}

Life life_of(const Process &child, Exit &exit)
{
    Being &being = being_of(child, "look");
    if (!is_child(being))
        return is_planted(SIM_TRUSTS_NUMBERS) ? Life::Ended : Life::Gone;
    if (being.state == Being::Alive || (being.held && !child.end))
        return Life::Alive;
    if (!being.held)
        exit = being.exit;
    return Life::Ended;
}

} // namespace

Life look(const Process &child, Exit &exit)
{
    enter("look");
    Life life = life_of(child, exit);
    note("look(%d) = %s", child.pid,
         life == Life::Alive   ? "lives"
         : life == Life::Ended ? "has ended"
                               : "is gone");
    return life;
}

bool reap(const Process &child)
{
    enter("reap");
    Being &being = being_of(child, "reap");
    bool by_host = has(SIM_HOST_REAPS) || has(SIM_HOST_WAITS);
    if (!is_child(being) && by_host)
        return true; // somebody else has reaped it, and perhaps the number is taken
    if (being.state != Being::Zombie)
        complain("reap: process %d %s", being.pid,
                 being.state == Being::Alive ? "lives" : "was reaped");
    note("reap(%d)%s", being.pid, being.held ? ": its tracer has it" : "");
    if (being.held)
        return false;
    if (is_planted(SIM_REAPS_NOBODY))
        return true;
    if (being.state == Being::Zombie) {
        being.state = Being::Gone;
        being.gone_in = world.turn;
        being.reaped_by_us = true;
    }
    return true;
}

bool is_over(const Process &process)
{
    enter("is_over");
    bool over = being_of(process, "is_over").state != Being::Alive;
    note("is_over(%d) = %d", process.pid, over);
    return over;
}

int signal(const Process &process, int signo)
{
    enter("signal");
    if (!process.end)
        return answered("signal", process.pid, signo, ENOSYS);
    ++world.counts.signals;
    Being &being = being_of(process, "signal");
    if (being.state == Being::Gone)
        return answered("signal", process.pid, signo, ESRCH);
    answered("signal", process.pid, signo, 0);
    strike(being, signo, "signal");
    return 0;
}

int signal_group(const Process &leader, int signo)
{
    enter("signal_group");
    if (!leader.end || has(SIM_NO_GROUP_SIGNAL))
        return answered("signal_group", leader.pid, signo, ENOSYS);
    world.counts.signals += signo != 0;
    size_t founder = being_of(leader, "signal_group").self;
    int result = strike_each(signo, "signal_group",
                             [founder](const Being &being) { return being.band == founder; });
    return answered("signal_group", leader.pid, signo, result);
}

bool signals_groups(const Process &leader)
{
    return leader.end && !has(SIM_NO_GROUP_SIGNAL);
}

int signal_number(pid_t pid, int signo)
{
    enter("signal_number");
    ++world.counts.signals;
    Being &being = known(pid, "signal_number");
    if (being.state == Being::Gone)
        return answered("signal_number", pid, signo, ESRCH);
    answered("signal_number", pid, signo, 0);
    strike(being, signo, "signal_number");
    return 0;
}

int signal_group_number(pid_t group, int signo)
{
    enter("signal_group_number");
    world.counts.signals += signo != 0;
    int result = strike_each(signo, "signal_group_number",
                             [group](const Being &being) { return being.group == group; });
    // Its last member may have gone since the library looked: nobody can have got its number yet.
    if (result != 0 && signo != 0 && world.happened == 0)
        complain("signal_group_number: group %d is a stranger's", group);
    return answered("signal_group_number", group, signo, result);
}

pid_t group_of(pid_t pid)
{
    enter("group_of");
    const Being &being = find(pid);
    pid_t group = being.state == Being::Gone ? -1 : being.group;
    note("group_of(%d) = %d", pid, group);
    return group;
}

int own_nice()
{
    return has(SIM_LOW_HOST) ? 19 : 0;
}

int group_nice(pid_t group)
{
    enter("group_nice");
    int lowest = 20;
    for (const Being &being : world.beings)
        if (being.group == group && being.state != Being::Gone)
            lowest = std::min(lowest, being.nice);
    note("group_nice(%d) = %d", group, lowest);
    return lowest;
}

void set_idle(pid_t pid)
{
    enter("set_idle");
    known(pid, "set_idle").idle = true;
}

bool group_is_idle(pid_t group)
{
    enter("group_is_idle");
    for (const Being &being : world.beings)
        if (being.group == group && being.state != Being::Gone && !being.idle)
            return false;
    return true;
}

void set_nice(pid_t pid, int nice)
{
    enter("set_nice");
    known(pid, "set_nice").nice = nice;
}

Search find_members(pid_t group, pid_t guard, Process *members, size_t size, size_t &found)
{
    enter("find_members");
    ++world.counts.searches;
    found = 0;
    bool blind = has(SIM_NO_PROC) || lacks(kDescriptors);
    for (const Being &being : world.beings)
        if (!blind && found < size && being.group == group && being.pid != guard &&
            being.state == Being::Alive) {
            members[found].pid = being.pid;
            members[found++].end = make_end(being);
        }
    note("find_members(%d): %s%zu", group, blind ? "can't be known, " : "", found);
    return blind ? Search::Unknown : found == 0 ? Search::Nobody : Search::Somebody;
}

int reserve_port(uint16_t &port, Fd &reservation)
{
    enter("reserve_port");
    if (lacks(kDescriptors))
        return ENFILE;
    if (port == 0)
        port = ++world.last_port;
    bool taken = is_listened_on(port) || is_reserved_from(port, true);
    note("reserve_port(%u)%s", port, taken ? ": it is in use" : "");
    if (taken)
        return EADDRINUSE;
    reservation.reset(add({.kind = Descriptor::Reservation, .port = port}));
    return 0;
}

bool can_share(uint16_t)
{
    return !has(SIM_NO_SHARE);
}

int open_reservation(const Fd &reservation, bool open)
{
    enter("open_reservation");
    note("open_reservation(%d)", open);
    if (is_planted(SIM_LEAVES_PORT_OPEN) && !open)
        return 0;
    use(reservation.get(), Descriptor::Reservation, "open_reservation").open_to_others = open;
    return 0;
}

int make_probe(bool from_other, Fd &probe)
{
    enter("make_probe");
    if (lacks(kDescriptors))
        return EMFILE;
    probe.reset(add({.kind = Descriptor::Probe, .from_other = from_other}));
    return 0;
}

const bool kReusesRefused = true;

int connect_probe(const Fd &probe, uint16_t port)
{
    enter("connect_probe");
    ++world.counts.probes;
    Descriptor &socket = use(probe.get(), Descriptor::Probe, "connect_probe");
    bool may_meet_itself =
        !socket.from_other && !is_reserved_from(port, false) && !is_listened_on(port);
    if (may_meet_itself && !world.by_chance)
        complain("connect_probe: it could meet itself on port %u", port);
    int result = world.now < world.cut_off_until ? world.cut_off_by : answer_at(port);
    bool is_third = has(SIM_MEETS_ITSELF) && result == ECONNREFUSED &&
                    !is_reserved_from(port, false) && world.counts.probes % 3 == 0;
    bool meets_itself = may_meet_itself && result == ECONNREFUSED && world.turn % 2 == 0;
    socket.met_itself = is_third || meets_itself;
    world.counts.met_itself += socket.met_itself;
    socket.port = port;
    if (socket.met_itself)
        result = 0;
    socket.pending = result == EINPROGRESS;
    const Being *being = listener_at(port);
    socket.being = result == 0 && being != nullptr ? being->self : kNobody;
    note("connect_probe(%u) = %d%s", port, result, socket.met_itself ? ", it has met itself" : "");
    if (result == 0 && !socket.met_itself)
        notice_probe(port);
    return result;
}

namespace {

bool is_veiled(const Being &being)
{
    return being.ours && being.veiled;
}

// One that has listened since before this turn, and could be told from the proxy's.
bool is_plain_stranger(const Being &being)
{
    bool blind = world.asks_anybody || has(SIM_NO_PROC) || has(SIM_NO_DIAG) ||
                 std::any_of(world.beings.begin(), world.beings.end(), is_veiled);
    return !being.ours && being.opened_in < world.turn && !blind;
}

} // namespace

int send_probe(const Fd &probe, const char *, size_t)
{
    enter("send_probe");
    Descriptor &socket = use(probe.get(), Descriptor::Probe, "send_probe");
    const Being *being = listener_at(socket.port);
    if (socket.met_itself || !is_listened_on(socket.port))
        return EPIPE;
    if (being != nullptr && is_plain_stranger(*being))
        complain("process %d, a stranger, is sent something", being->pid);
    socket.said = being != nullptr ? being->program->says : "HTTP/1.1 200 OK\r\n\r\n";
    note("send_probe: process %d is asked", being != nullptr ? being->pid : 0);
    return 0;
}

bool meets_itself(const Fd &probe)
{
    enter("meets_itself");
    return use(probe.get(), Descriptor::Probe, "meets_itself").met_itself;
}

void leave_no_trace(const Fd &probe)
{
    enter("leave_no_trace");
    use(probe.get(), Descriptor::Probe, "leave_no_trace");
}

int receive_probe(const Fd &probe, char *buffer, size_t size, size_t &count)
{
    enter("receive_probe");
    Descriptor &socket = use(probe.get(), Descriptor::Probe, "receive_probe");
    count = 0;
    if (socket.said == nullptr)
        return has_closed(socket) ? 0 : EAGAIN;
    count = std::min(size, strlen(socket.said));
    memcpy(buffer, socket.said, count);
    socket.said += count;
    if (*socket.said == '\0')
        socket.said = nullptr;
    return 0;
}

void finish_probe(const Fd &probe)
{
    enter("finish_probe");
    use(probe.get(), Descriptor::Probe, "finish_probe").finished = true;
}

// The numbers of the sockets of those who can't be seen come far behind.
namespace {

constexpr uint64_t kUnseen = 1u << 30;

bool descends(const Being &being, pid_t from)
{
    const Being *each = &being;
    while (each->pid != from && each->parent != kInit && each->parent != kHost)
        each = &find(each->parent);
    return each->pid == from;
}

bool holds(const Being &being, uint64_t socket)
{
    return being.listening && being.socket == socket;
}

// Whether another process that comes later in the list has the same socket.
bool is_shared_later(const Being &being)
{
    for (size_t i = being.self + 1; i < world.beings.size(); ++i)
        if (holds(world.beings[i], being.socket))
            return true;
    return false;
}

} // namespace

bool tells_listeners()
{
    return !has(SIM_NO_DIAG);
}

Listeners::Listeners(uint16_t port) : port_(port)
{
    enter("Listeners");
    shortage_ = lacks(kDescriptors) ? EMFILE : 0;
}

// Each being's in turn, and then who can't be seen.
bool Listeners::next(Listener &listener)
{
    enter("Listeners::next");
    uint16_t port = port_;
    complete_ = !has(SIM_NO_DIAG) && !has(SIM_DIAG_REFUSED) && shortage_ == 0;
    listener = {};
    listener.reached = true;
    listener.port = port;
    for (; complete_ && at_ < world.beings.size(); ++at_) {
        const Being &being = world.beings[at_];
        if (being.listening && being.port == port && !being.program->unlisted &&
            !is_shared_later(being)) {
            listener.socket = being.socket;
            listener.uid = being.socket_uid;
            ++at_;
            return true;
        }
    }
    auto unseen = world.occupied.find(port);
    if (!complete_ || unseen == world.occupied.end() || at_ > world.beings.size())
        return false;
    listener.socket = kUnseen + port;
    listener.uid = unseen->second.uid;
    at_ = world.beings.size() + 1;
    return true;
}

namespace {

bool is_kin(const Being &being, const Kin &kin)
{
    bool member = being.group == kin.group && being.pid != kin.guard;
    return being.pid == kin.proxy || member || descends(being, kin.proxy);
}

// The proxy, then members, then the others, as the search for it goes.
const Being *holder_of(const Listener &listener, const Kin &kin, bool &unseen)
{
    const Being *found = nullptr;
    auto rank = [&](const Being &being) {
        return being.pid == kin.proxy ? 0 : being.group == kin.group ? 1 : 2;
    };
    for (const Being &being : world.beings) {
        if (being.state != Being::Alive || !is_kin(being, kin))
            continue;
        if (being.program->hidden && (being.uid == listener.uid || being.uid != 0))
            unseen = unseen || being.uid == listener.uid || listener.uid == 0;
        else if (!being.program->hidden && holds(being, listener.socket) &&
                 (found == nullptr || rank(being) < rank(*found)))
            found = &being;
    }
    return found;
}

// By the proxy's descriptor, by those who can be seen but not looked into, or as the host's own.
Owner owner_by_user(const Listener &listener, const Kin &kin)
{
    const Being &proxy = find(kin.proxy);
    bool is_proxys = !has(SIM_NO_PIDFD) && proxy.state == Being::Alive && proxy.uid == listener.uid;
    bool is_claimed =
        !has(SIM_NO_PROC) &&
        std::any_of(world.beings.begin(), world.beings.end(), [&](const Being &being) {
            return being.state == Being::Alive && being.program->hidden && is_kin(being, kin) &&
                   being.uid == listener.uid;
        });
    bool is_accepted = listener.uid == 0 || is_proxys || is_claimed;
    return is_accepted || is_planted(SIM_TRUSTS_THE_UNSEEN) ? Owner::Unknown : Owner::Other;
}

Owner owner_of(const Listener &listener, const Kin &kin, Process &outside)
{
    if (has(SIM_NO_PROC))
        return owner_by_user(listener, kin);
    bool unseen = false;
    const Being *holder = holder_of(listener, kin, unseen);
    if (holder == nullptr)
        return unseen ? owner_by_user(listener, kin) : Owner::Other;
    bool is_outside = holder->pid != kin.proxy && holder->group != kin.group;
    if (is_outside && outside.pid == 0) {
        outside.pid = holder->pid;
        outside.end = make_end(*holder);
    }
    return Owner::Kin;
}

} // namespace

namespace {

bool is_over_or_nobody(size_t being)
{
    return being == kNobody || world.beings[being].state != Being::Alive;
}

// The library holds on to one, or instead of it to the leader of its group, for as long as that
// lives.
bool holds_no_outsider()
{
    return is_over_or_nobody(world.outside) && is_over_or_nobody(world.outside_band);
}

} // namespace

int find_owner(const Listener &listener, const Kin &kin, Owner &owner, Process &outside)
{
    enter("find_owner");
    owner = owner_of(listener, kin, outside);
    bool is_short = has(SIM_SHORT) || lacks(kDescriptors);
    bool known = owner == Owner::Kin && !has(SIM_SHORT) && (outside.pid == 0 || outside.end);
    if (known && outside.end && holds_no_outsider()) {
        world.outside = world.table[static_cast<size_t>(outside.end.get())].being;
        world.outside_band = world.beings[world.outside].band;
    }
    if (is_planted(SIM_TRUSTS_LISTENERS) || is_planted(SIM_ASKS_LISTENERS))
        owner = Owner::Kin;
    note("find_owner = %s%s, outside %d",
         owner == Owner::Kin     ? "kin"
         : owner == Owner::Other ? "other"
                                 : "unknown",
         is_short && !known ? " in a shortage" : "", outside.pid);
    return is_short && !known ? EMFILE : 0;
}

bool may_be_kin(pid_t pid, const Kin &kin)
{
    enter("may_be_kin");
    const Being &being = find(pid);
    return being.state == Being::Gone || being.group == kin.group || descends(being, kin.proxy);
}

void look_ahead(pid_t)
{
    enter("look_ahead");
}

bool find_holder(uint64_t socket, Holder &holder)
{
    enter("find_holder");
    if (socket >= kUnseen || has(SIM_NO_PROC) || lacks(kDescriptors))
        return false;
    for (const Being &being : world.beings) {
        if (!holds(being, socket) || being.program->hidden)
            continue;
        holder.pid = being.pid;
        snprintf(holder.name, sizeof holder.name, "%s", being.program->name);
        return true;
    }
    return false;
}

size_t find_sockets(const Kin &, uint64_t *, size_t)
{
    return 0;
}

bool is_stopped(const Kin &kin)
{
    enter("is_stopped");
    return std::any_of(world.beings.begin(), world.beings.end(), [&](const Being &being) {
        return being.stopped && being.state == Being::Alive && being.group == kin.group;
    });
}

int64_t time_used(const Kin &kin)
{
    enter("time_used");
    int64_t used = 0;
    for (const Being &being : world.beings)
        if (being.state == Being::Alive && being.group == kin.group && being.pid != kin.guard &&
            being.program->busy != 0)
            used += world.now - being.born;
    return has(SIM_NO_PROC) ? -1 : used;
}

bool is_trusted(uid_t uid)
{
    return uid == 0;
}

Uncancelled::Uncancelled() : host_state_(0) {}

Uncancelled::~Uncancelled() = default;

void call_cancellable(void (*body)(void *), void (*)(void *), void *data)
{
    body(data);
}

Waiter::Waiter(bool holds_signals) : held_(holds_signals), host_mask_() {}

Waiter::~Waiter() = default;

namespace {

Woke wait_for(const Watch *watches, size_t count, Deadline until)
{
    for (;;) {
        if (std::any_of(watches, watches + count, is_ready))
            return Woke::Ready;
        if (until.passed(world.now))
            return Woke::Time;
        if (world.interrupt_at <= world.now) {
            world.interrupt_at = kNever;
            return Woke::Interrupted;
        }
        int64_t limit = std::min(until.at, world.interrupt_at);
        bool happened = happen_next(limit);
        if (!happened && limit == kNever)
            complain("block: for ever, and nothing is due");
        if (!happened)
            run_until(limit);
        pass_point();
    }
}

} // namespace

Woke Waiter::block(const Watch *watches, size_t count, Deadline until)
{
    enter("block");
    if (at_turn_end != nullptr)
        at_turn_end();
    note("block on %zu, for %.6f ms", count,
         until.is_never() ? -1.0 : static_cast<double>(until.remaining(world.now)) * 1e-6);
    Woke woke = wait_for(watches, count, until);
    note("block: %s", woke == Woke::Ready  ? "ready"
                      : woke == Woke::Time ? "its time is over"
                                           : "a signal handler ran");
    begin_turn();
    return woke;
}

namespace {

// A child's descriptors stand for what its parent has.
void check_parent(const char *what)
{
    if (world.is_child)
        complain("%s: a child changes what is its parent's", what);
}

} // namespace

bool Poller::open()
{
    enter("Poller::open");
    if (lacks(kDescriptors))
        return false;
    timer_.reset(add({.kind = Descriptor::Timer}));
    events_.reset(add({.kind = Descriptor::Events, .timer = timer_.get()}));
    return true;
}

bool Poller::watch(const Watch &what)
{
    enter("Poller::watch");
    if (!events_)
        return true;
    check_parent("Poller::watch");
    use(what.fd, "Poller::watch");
    if (lacks(kWatches))
        return false;
    for (const Watch &watch : use(fd(), Descriptor::Events, "Poller::watch").watches)
        if (watch.fd == what.fd)
            complain("Poller::watch: descriptor %d is watched", what.fd);
    if (!is_planted(SIM_WATCHES_NO_END) || use(what.fd, "").kind != Descriptor::End)
        use(fd(), "Poller::watch").watches.push_back(what);
    return true;
}

void Poller::forget(int number)
{
    enter("Poller::forget");
    if (!events_)
        return;
    check_parent("Poller::forget");
    use(number, "Poller::forget");
    std::vector<Watch> &watches = use(fd(), Descriptor::Events, "Poller::forget").watches;
    for (size_t i = watches.size(); i-- > 0;)
        if (watches[i].fd == number)
            watches.erase(watches.begin() + static_cast<ptrdiff_t>(i));
}

void Poller::alarm(Deadline due)
{
    if (!timer_)
        return;
    enter("Poller::alarm");
    check_parent("Poller::alarm");
    bool is_set = !is_planted(SIM_SETS_NO_ALARM);
    use(timer_.get(), Descriptor::Timer, "Poller::alarm").due = is_set ? due : Deadline::never();
}

} // namespace kpi::sys
