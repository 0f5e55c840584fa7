// SPDX-License-Identifier: Apache-2.0
// The platform's interfaces, on the world.
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

namespace kpi::sys {

using namespace sim;

namespace {

Being &end_of(const Process &process, const char *what)
{
    Descriptor &end = use(process.end.get(), Descriptor::End, what);
    if (end.pid != process.pid)
        complain("%s: the descriptor of %d for process %d", what, end.pid, process.pid);
    return find(end.pid);
}

Fd make_end(pid_t pid)
{
    return has(SIM_NO_PIDFD) ? Fd() : Fd(add({.kind = Descriptor::End, .pid = pid}));
}

void become_guard(Being &being, const sys::Launch &launch)
{
    unsigned seconds, rest;
    const char *sleep = strstr(launch.argv[2], "sleep ");
    if (sleep == nullptr || sscanf(sleep, "sleep %u.%3u", &seconds, &rest) != 2)
        complain("the guard does not sleep: %s", launch.argv[2]);
    if (!launch.block_signals || strstr(launch.argv[2], "trap '' HUP INT QUIT TERM") == nullptr)
        complain("the guard does not outlast a SIGTERM");
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
    return 1;
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
            if (events.kind == Descriptor::Events && watch.fd == fd)
                complain("close_fd: descriptor %d is still watched", fd);
    if (closed.kind == Descriptor::PipeWrite)
        close_pipe(closed.pipe);
    closed.kind = Descriptor::Closed;
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
    Descriptor::Kind kind = use(fd, "duplicate").kind;
    pid_t pid = use(fd, "duplicate").pid;
    copy.reset(add({.kind = kind, .pid = pid}));
    return 0;
}

int make_pipe(Fd &read_end, Fd &write_end)
{
    enter("make_pipe");
    int pipe = ++world.last_pipe;
    read_end.reset(add({.kind = Descriptor::PipeRead, .pipe = pipe}));
    write_end.reset(add({.kind = Descriptor::PipeWrite, .pipe = pipe}));
    return 0;
}

bool is_broken(const Fd &)
{
    return false;
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

// A zombie keeps the group that its number names, so it can still be joined.
int spawn(const Launch &launch, Process &child, bool &lost)
{
    lost = false;
    enter("spawn");
    const sim_program *program = find_program(launch.program);
    if (program == nullptr || program->spawn_errno != 0)
        return program == nullptr ? ENOENT : program->spawn_errno;
    if (launch.group != 0 && deliver_to_group(launch.group, 0) != 0)
        return EPERM;
    if (launch.output >= 0)
        use(launch.output, "spawn");
    Being &being = be_born(*program, kHost, launch.group, port_in(launch.env));
    if (program == shell())
        become_guard(being, launch);
    child.pid = being.pid;
    child.end = make_end(being.pid);
    return 0;
}

Life look(const Process &child, Exit &exit)
{
    enter("look");
    Being &being = child.end ? end_of(child, "look") : find(child.pid);
    if (being.state == Being::Alive)
        return Life::Alive;
    if (being.state == Being::Gone)
        return Life::Gone;
    exit = being.exit;
    return Life::Ended;
}

bool reap(const Process &child)
{
    enter("reap");
    Being &being = child.end ? end_of(child, "reap") : find(child.pid);
    if (being.state != Being::Zombie)
        complain("reap: process %d %s", being.pid,
                 being.state == Being::Alive ? "lives" : "was reaped");
    being.state = Being::Gone;
    return true;
}

bool is_over(const Process &process)
{
    enter("is_over");
    return end_of(process, "is_over").state != Being::Alive;
}

int signal(const Process &process, int signo)
{
    enter("signal");
    if (!process.end)
        return ENOSYS;
    ++world.counts.signals;
    Being &being = end_of(process, "signal");
    if (being.state == Being::Gone)
        return ESRCH;
    deliver(being, signo);
    return 0;
}

int signal_group(const Process &leader, int signo)
{
    enter("signal_group");
    if (!leader.end || has(SIM_NO_GROUP_SIGNAL))
        return ENOSYS;
    world.counts.signals += signo != 0;
    return deliver_to_group(end_of(leader, "signal_group").pid, signo);
}

bool signals_groups(const Process &leader)
{
    return leader.end && !has(SIM_NO_GROUP_SIGNAL);
}

int signal_number(pid_t pid, int signo)
{
    enter("signal_number");
    ++world.counts.signals;
    deliver(known(pid, "signal_number"), signo);
    return 0;
}

int signal_group_number(pid_t group, int signo)
{
    enter("signal_group_number");
    world.counts.signals += signo != 0;
    int result = deliver_to_group(group, signo);
    if (result != 0 && signo != 0)
        complain("signal_group_number: group %d is a stranger's", group);
    return result;
}

pid_t group_of(pid_t pid)
{
    enter("group_of");
    const Being &being = find(pid);
    return being.state == Being::Gone ? -1 : being.group;
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
    if (has(SIM_NO_PROC))
        return Search::Unknown;
    for (const Being &being : world.beings)
        if (found < size && being.group == group && being.pid != guard &&
            being.state == Being::Alive) {
            members[found].pid = being.pid;
            members[found++].end = make_end(being.pid);
        }
    return found == 0 ? Search::Nobody : Search::Somebody;
}

int reserve_port(uint16_t &port, Fd &reservation)
{
    enter("reserve_port");
    if (port == 0)
        port = ++world.last_port;
    if (is_listened_on(port) || is_reserved_from(port, true))
        return EADDRINUSE;
    reservation.reset(add({.kind = Descriptor::Reservation, .port = port}));
    return 0;
}

bool can_share(uint16_t)
{
    return true;
}

int open_reservation(const Fd &reservation, bool open)
{
    enter("open_reservation");
    use(reservation.get(), Descriptor::Reservation, "open_reservation").open_to_others = open;
    return 0;
}

int make_probe(bool from_other, Fd &probe)
{
    enter("make_probe");
    probe.reset(add({.kind = Descriptor::Probe, .from_other = from_other}));
    return 0;
}

const bool kReusesRefused = true;

int connect_probe(const Fd &probe, uint16_t port)
{
    enter("connect_probe");
    ++world.counts.probes;
    Descriptor &socket = use(probe.get(), Descriptor::Probe, "connect_probe");
    if (!socket.from_other && !is_reserved_from(port, false) && !is_listened_on(port))
        complain("connect_probe: it could meet itself on port %u", port);
    socket.port = port;
    int result = answer_at(port);
    socket.pending = result == EINPROGRESS;
    if (result == 0)
        notice_probe(port);
    return result;
}

int send_probe(const Fd &probe, const char *, size_t)
{
    enter("send_probe");
    Descriptor &socket = use(probe.get(), Descriptor::Probe, "send_probe");
    const Being *being = listener_at(socket.port);
    socket.said = being != nullptr ? being->program->says : "HTTP/1.1 200 OK\r\n\r\n";
    return 0;
}

bool meets_itself(const Fd &probe)
{
    enter("meets_itself");
    return answer_at(use(probe.get(), Descriptor::Probe, "meets_itself").port) != 0;
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

// The number of a being's socket is its own; those of strangers come far behind.
namespace {

constexpr uint64_t kStrangers = 1u << 30;

bool descends(const Being &being, pid_t from)
{
    const Being *each = &being;
    while (each->pid != from && each->parent != kInit && each->parent != kHost)
        each = &find(each->parent);
    return each->pid == from;
}

} // namespace

Listeners::Listeners(uint16_t port) : length_(port)
{
    enter("Listeners");
}

// Each being in turn, and then the stranger.
bool Listeners::next(Listener &listener)
{
    enter("Listeners::next");
    uint16_t port = static_cast<uint16_t>(length_);
    complete_ = !has(SIM_NO_DIAG);
    listener = {};
    listener.reached = true;
    listener.port = port;
    for (; complete_ && at_ < world.beings.size(); ++at_) {
        const Being &being = world.beings[at_];
        if (being.listening && being.port == port && !being.program->unlisted) {
            listener.socket = static_cast<uint64_t>(being.pid);
            ++at_;
            return true;
        }
    }
    auto stranger = world.occupied.find(port);
    if (!complete_ || stranger == world.occupied.end() || at_ > world.beings.size())
        return false;
    listener.socket = kStrangers + port;
    listener.uid = stranger->second;
    ++at_;
    return true;
}

namespace {

Owner owner_of(const Listener &listener, const Kin &kin, Process &outside)
{
    if (has(SIM_NO_PROC))
        return Owner::Unknown;
    if (listener.socket >= kStrangers)
        return Owner::Other;
    const Being &being = find(static_cast<pid_t>(listener.socket));
    bool member = being.pid == kin.proxy || (being.group == kin.group && being.pid != kin.guard);
    if (!member && !descends(being, kin.proxy))
        return Owner::Other;
    if (being.program->hidden)
        return Owner::Unknown;
    if (!member) {
        outside.pid = being.pid;
        outside.end = make_end(being.pid);
    }
    return Owner::Kin;
}

} // namespace

int find_owner(const Listener &listener, const Kin &kin, Owner &owner, Process &outside)
{
    enter("find_owner");
    owner = owner_of(listener, kin, outside);
    return has(SIM_SHORT) ? EMFILE : 0;
}

bool may_be_kin(pid_t pid, const Kin &kin)
{
    enter("may_be_kin");
    return descends(find(pid), kin.proxy) || find(pid).group == kin.group;
}

void look_ahead(pid_t pid)
{
    enter("look_ahead");
    known(pid, "look_ahead");
}

bool find_holder(uint64_t socket, Holder &holder)
{
    enter("find_holder");
    if (socket >= kStrangers || has(SIM_NO_PROC))
        return false;
    holder.pid = static_cast<pid_t>(socket);
    snprintf(holder.name, sizeof holder.name, "%s", find(holder.pid).program->name);
    return true;
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

bool is_trusted(uid_t uid)
{
    return uid == 0;
}

Waiter::Waiter(bool holds_signals) : held_(holds_signals), host_mask_() {}

Waiter::~Waiter() = default;

Woke Waiter::block(const Watch *watches, size_t count, Deadline until)
{
    enter("block");
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

bool Poller::open()
{
    enter("Poller::open");
    timer_.reset(add({.kind = Descriptor::Timer}));
    events_.reset(add({.kind = Descriptor::Events, .timer = timer_.get()}));
    return true;
}

bool Poller::watch(const Watch &what)
{
    enter("Poller::watch");
    if (!events_)
        return true;
    use(what.fd, "Poller::watch");
    for (const Watch &watch : use(fd(), Descriptor::Events, "Poller::watch").watches)
        if (watch.fd == what.fd)
            complain("Poller::watch: descriptor %d is watched", what.fd);
    use(fd(), "Poller::watch").watches.push_back(what);
    return true;
}

void Poller::forget(int number)
{
    enter("Poller::forget");
    if (!events_)
        return;
    use(number, "Poller::forget");
    std::vector<Watch> &watches = use(fd(), Descriptor::Events, "Poller::forget").watches;
    for (size_t i = watches.size(); i-- > 0;)
        if (watches[i].fd == number)
            watches.erase(watches.begin() + static_cast<ptrdiff_t>(i));
}

void Poller::alarm(Deadline due)
{
    enter("Poller::alarm");
    if (timer_)
        use(timer_.get(), Descriptor::Timer, "Poller::alarm").due = due;
}

} // namespace kpi::sys
