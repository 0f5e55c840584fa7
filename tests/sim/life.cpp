// SPDX-License-Identifier: Apache-2.0
// The host of a random life.
#include "life.h"
#include "chance.h"
#include "memory.h"
#include "truth.h"
#include <algorithm>
#include <iterator>
#include <signal.h>
#include <string.h>

using namespace kpi;
using namespace sim;

const char *const sim_event_names[SIM_EVENTS] = {
    "ready",
    "restarted",
    "exited",
    "given up",
    "attached",
    "spawned by a blocking call",
    "driven by the descriptor",
    "driven by the clock",
    "blocked",
    "interrupted by a handler",
    "host forked, and the child freed",
    "host forked a worker that holds the pipe",
    "host killed between calls",
    "host killed inside a call",
    "host did not run for a while",
    "number of a process reused",
    "stranger born",
    "stranger took a number of ours",
    "stranger listened",
    "outsider signalled a process",
    "outsider killed the guard",
    "processes ended by a guard",
    "shortage begun",
    "child gone before it could be held on to",
    "end kept back by a tracer",
    "process left its group by chance",
    "listener's owner outside of the group",
    "no step for a time that was chosen",
    "probe met itself",
    "KP_ERR_INVALID",
    "KP_ERR_NO_MEMORY",
    "KP_ERR_SYSTEM",
    "KP_ERR_PORT_IN_USE",
    "KP_ERR_SPAWN",
    "KP_ERR_GUARD",
    "KP_ERR_EXITED",
    "KP_ERR_TIMED_OUT",
    "KP_ERR_FOREIGN_LISTENER",
    "KP_ERR_NOT_HTTP",
    "KP_ERR_STATE",
    "KP_ERR_FORKED",
};

namespace {

class Host {
  public:
    void live();

  private:
    void draw_spec();
    void draw_attach();
    void begin_proxy();
    void start();
    void spawn();
    void restart();
    void step();
    void wait();
    void stop();
    void drive();
    void run();
    void take_descriptor();
    void make_environment();
    void look();
    void misuse();
    void fork();
    void fork_worker();
    void free();
    void do_something();

    template <typename Deed>
    kp_result call(Call call, const char *name, Deed deed, kp_state until = 0);
    bool await_step();
    int64_t patience(bool late) const;
    void hurry(int64_t grace);
    int64_t rest_of_grace(int64_t now) const;
    void free_as_a_child();
    void tell_scene() const;

    Told told_;
    char name_[8] = "proxy";
    char *arguments_[2] = {name_, nullptr};
    kp_error error_;
};

// ---- the spec

void Host::draw_attach()
{
    told_.spec.argv = nullptr;
    told_.spec.flags &= KP_SPEC_PROBE_HTTP | KP_SPEC_ANY_LISTENER;
    told_.spec.flags |= KP_SPEC_ATTACH;
    told_.spec.port = 8080;
    told_.spec.log_fd = 0;
    if (chooser.pick(4) != 3)
        let_stranger_listen(8080);
}

void Host::draw_spec()
{
    kp_spec &spec = told_.spec;
    spec.size = sizeof spec;
    spec.argv = arguments_;
    static constexpr unsigned kFlags[] = {KP_SPEC_NO_GUARD, KP_SPEC_PROBE_HTTP, KP_SPEC_NO_RESERVE,
                                          KP_SPEC_ANY_LISTENER};
    for (unsigned flag : kFlags)
        spec.flags |= chooser.once_in(4) ? flag : 0;
    spec.startup_timeout_ms =
        static_cast<uint32_t>(chooser.once_in(12) ? 5000 : chooser.between(1, 400));
    spec.stop_grace_ms =
        static_cast<uint32_t>(chooser.once_in(4) ? chooser.between(1, 5000) : 2000);
    spec.port = chooser.once_in(3) ? 8080 : 0;
    spec.log_fd = chooser.once_in(4) ? 2 : 0;
    if (chooser.once_in(12))
        draw_attach();
    else if (spec.port != 0 && chooser.once_in(8))
        let_stranger_listen(8080);
}

// ---- calls

template <typename Deed>
kp_result Host::call(Call call, const char *name, Deed deed, kp_state until)
{
    memset(&error_, 0x5a, sizeof error_);
    kp_error untouched = error_;
    begin_turn();
    note("%s", name);
    kp_state before = kp_handle_state(told_.handle);
    kp_result result = deed();
    kp_state after = kp_handle_state(told_.handle);
    note("%s: %s%s%s, state %d", name, kp_result_name(result), result < 0 ? ": " : "",
         result < 0 ? error_.message : "", after);
    if (result >= 0 && memcmp(&error_, &untouched, sizeof error_) != 0)
        complain("%s has changed an error without a failure", name);
    check_state_now(told_);
    check_answer(told_, {call, result, before, after, &error_, until});
    if (told_.handle != nullptr)
        check_awake(told_);
    return result;
}

void Host::begin_proxy()
{
    world.guard = world.outside = world.outside_band = kNobody;
    world.told_at = -1;
    world.somebody_left = world.lost = false;
    world.kill_due = world.kill_by = kNever;
    world.grace = told_.grace();
    world.asks_anybody = told_.is_attached() || told_.has(KP_SPEC_ANY_LISTENER);
    world.was_short = world.short_of;
    told_.started = world.now;
}

void Host::start()
{
    begin_proxy();
    world.proxy = kNobody;
    call(Call::Start, "kp_start", [this] { return kp_start(&told_.spec, &told_.handle, &error_); });
    if (told_.handle != nullptr && told_.is_attached())
        count(SIM_ATTACHED);
}

// It ends as a proxy does that is freed, so that this is what is checked.
void Host::spawn()
{
    begin_proxy();
    int64_t begun = world.now, stalled = world.stalled;
    count(SIM_SPAWNED);
    world.proxy = kNobody;
    kp_result result = call(Call::Spawn, "kp_spawn",
                            [this] { return kp_spawn(&told_.spec, &told_.handle, &error_); });
    check_time("kp_spawn", begun, stalled,
               patience(world.stalled != stalled) + told_.grace() + kSecond);
    if (result < 0)
        check_nothing_is_left();
}

void Host::restart()
{
    if (kp_handle_state(told_.handle) != KP_STATE_EXITED)
        return misuse();
    bool lives = world.proxy != kNobody && world.beings[world.proxy].state == Being::Alive;
    size_t proxy = world.proxy;
    begin_proxy();
    told_.seen = 0;
    kp_result result = call(Call::Restart, "kp_handle_restart",
                            [this] { return kp_handle_restart(told_.handle, &error_); });
    if (result == KP_OK)
        count(SIM_RESTARTED);
    if (result == KP_OK && lives)
        complain("restarted, and process %d still lives", world.beings[proxy].pid);
}

// Until the last of it is gone a second later.
int64_t Host::rest_of_grace(int64_t now) const
{
    return world.kill_by == kNever ? told_.grace() : std::max(int64_t{0}, world.kill_by - now);
}

// To be asked for HTTP has its own time where the host comes late to ask.
int64_t Host::patience(bool late) const
{
    constexpr int64_t kAnswerTime = 200 * kMillisecond;
    return told_.patience() + (late && told_.has(KP_SPEC_PROBE_HTTP) ? kAnswerTime : 0);
}

void Host::hurry(int64_t grace)
{
    world.kill_due = std::min(world.kill_due, world.now + grace);
    world.kill_by = std::min(world.kill_by, world.now + grace);
}

void Host::step()
{
    int64_t begun = world.now, stalled = world.stalled;
    call(Call::Step, "kp_handle_step", [this] { return kp_handle_step(told_.handle, &error_); });
    check_time("kp_handle_step", begun, stalled, 0);
}

void Host::wait()
{
    kp_state until = chooser.pick(3) == 2 ? KP_STATE_EXITED : KP_STATE_READY;
    bool ends = until == KP_STATE_READY || kp_handle_state(told_.handle) >= KP_STATE_STOPPING;
    int timeout = ends && chooser.pick(2) == 0 ? -1 : static_cast<int>(chooser.between(0, 3000));
    if (chooser.once_in(8))
        sim_interrupt_after(chooser.between(0, kSecond));
    int64_t begun = world.now, stalled = world.stalled;
    count(SIM_BLOCKED);
    kp_result result = call(
        Call::Wait, "kp_handle_wait",
        [&] { return kp_handle_wait(told_.handle, until, timeout, &error_); }, until);
    int64_t most = timeout >= 0              ? timeout * kMillisecond
                   : until == KP_STATE_READY ? patience(true)
                                             : rest_of_grace(begun) + kSecond;
    check_time("kp_handle_wait", begun, stalled, most);
    if (result == KP_AGAIN && world.interrupt_at == kNever && timeout < 0)
        count(SIM_INTERRUPTED);
    world.interrupt_at = kNever;
}

void Host::stop()
{
    static constexpr int kGraces[] = {-1, 0, 1, 50, 700, 4000};
    int grace = kGraces[chooser.pick(6)];
    kp_state before = kp_handle_state(told_.handle);
    int64_t ns = grace < 0 ? told_.grace() : grace * kMillisecond;
    if (before != KP_STATE_EXITED)
        hurry(ns);
    if (grace == 0 && before != KP_STATE_EXITED)
        world.told_at = std::max(world.told_at, int64_t{0});
    int64_t stalled = world.stalled;
    call(Call::Stop, "kp_handle_stop", [&] { return kp_handle_stop(told_.handle, grace); });
    if (world.kill_by != kNever)
        world.kill_by += world.stalled - stalled; // it may have begun so late
}

// ---- without blocking

void Host::take_descriptor()
{
    int fd = kp_handle_fd(told_.handle);
    if (told_.fd >= 0 && fd != told_.fd)
        complain("the descriptor is %d and was %d", fd, told_.fd);
    if (fd < 0 && world.was_short == 0)
        complain("there is no descriptor");
    told_.fd = fd;
    check_awake(told_);
}

// Until a step is due; false: none ever will be.
bool Host::await_step()
{
    if (told_.fd < 0) {
        int64_t rest = kp_handle_timeout_ns(told_.handle);
        if (rest >= 0)
            run_until(world.now + rest);
        return rest >= 0;
    }
    while (!sim_readable(told_.fd)) {
        int64_t limit = use(use(told_.fd, "host").timer, Descriptor::Timer, "host").due.at;
        bool happened = happen_next(limit);
        if (!happened && limit == kNever)
            return false;
        if (!happened)
            run_until(limit);
        pass_point();
    }
    return true;
}

void Host::drive()
{
    kp_state before = kp_handle_state(told_.handle);
    int64_t begun = world.now, stalled = world.stalled;
    count(told_.fd < 0 ? SIM_DRIVEN_BY_TIME : SIM_DRIVEN_BY_DESCRIPTOR);
    for (uint32_t steps = 1 + chooser.pick(200); steps > 0; --steps) {
        if (kp_handle_state(told_.handle) != before || !await_step())
            break;
        step();
    }
    if (before == KP_STATE_STOPPING)
        check_time("stopping by steps", begun, stalled, rest_of_grace(begun) + kSecond);
}

void Host::run()
{
    count(SIM_FOLLOWED);
    begin_turn();
    run_until(world.now + chooser.between(0, 3 * kSecond));
}

// ---- looking

void Host::make_environment()
{
    char one[] = "HTTP_PROXY=nobody", two[] = "A=b";
    char *base[] = {one, two, nullptr};
    begin_turn();
    char **env = kp_env_new(told_.handle, chooser.pick(2) == 0 ? nullptr : base);
    if (env == nullptr && !lacks(kMemory))
        complain("kp_env_new: NULL");
    kp_env_free(env);
}

void Host::look()
{
    int code = 77, signo = 77;
    if (kp_handle_exit_status(told_.handle, &code, &signo) == 0)
        return;
    const Being *proxy = world.proxy == kNobody ? nullptr : &world.beings[world.proxy];
    if (proxy == nullptr || proxy->pid != kp_handle_pid(told_.handle))
        return;
    if (proxy->state == Being::Alive)
        complain("an exit status of process %d, which lives", proxy->pid);
    bool unknown = code == -1 && signo == 0;
    bool may_be_unknown = has(SIM_HOST_REAPS) || has(SIM_HOST_WAITS) || proxy->program->traced_for;
    bool right = code == proxy->exit.code && signo == proxy->exit.signal;
    if (!right && !(unknown && may_be_unknown))
        complain("exit status %d and signal %d", code, signo);
}

void Host::misuse()
{
    bool exited = kp_handle_state(told_.handle) == KP_STATE_EXITED;
    kp_result result = exited ? KP_ERR_STATE : kp_handle_restart(told_.handle, &error_);
    if (result != KP_ERR_STATE)
        complain("restarted in state %d", kp_handle_state(told_.handle));
    count(SIM_ERR_STATE);
    if (kp_handle_wait(told_.handle, KP_STATE_STARTING, 0, &error_) != KP_ERR_INVALID ||
        kp_handle_stop(told_.handle, -2) != KP_ERR_INVALID)
        complain("what is invalid is accepted");
    count(SIM_ERR_INVALID);
}

// ---- forks of the host

void Host::free_as_a_child()
{
    kp_handle *handle = told_.handle;
    sim_counts before = world.counts;
    bool refused = kp_handle_step(handle, &error_) == KP_ERR_FORKED &&
                   kp_handle_stop(handle, 0) == KP_ERR_FORKED &&
                   kp_handle_restart(handle, &error_) == KP_ERR_FORKED &&
                   kp_handle_wait(handle, KP_STATE_EXITED, -1, &error_) == KP_ERR_FORKED &&
                   kp_handle_fd(handle) == -1;
    if (!refused)
        complain("a child may do what its parent may");
    count(SIM_ERR_FORKED);
    make_environment();
    kp_handle_free(handle);
    if (world.counts.signals != before.signals || world.counts.spawns != before.spawns)
        complain("a child has signalled or started somebody");
}

// The child's descriptors are its own, but what they stand for is not: an alarm or a watch that it
// changed would be the parent's. Nothing happens meanwhile.
void Host::fork()
{
    std::vector<sys::Watch> watches;
    count(SIM_FORKED);
    note("the host forks, and the child frees its copy");
    World parent = world;
    {
        Memory memory;
        world.generation = 2;
        world.quiet_calls = 0;
        world.is_child = true;
        free_as_a_child();
        if (world.table.size() != parent.table.size())
            complain("a child has opened something");
        for (size_t fd = 3; fd < world.table.size(); ++fd)
            if (world.table[fd].kind != Descriptor::Closed &&
                world.table[fd].kind != Descriptor::Other)
                complain("a child has left descriptor %zu open", fd);
        if (world.blocks != 0)
            complain("a child has left %ld blocks of memory", world.blocks);
    }
    world = std::move(parent);
}

// One that frees nothing keeps the guards waiting for as long as it lives.
void Host::fork_worker()
{
    static const sim_program worker = [] {
        sim_program made = {};
        made.name = "worker";
        return made;
    }();
    if (!host_may_have_others())
        return;
    Being &being = be_born(worker, kHost, 0, 0);
    being.ours = false;
    being.when[kExits] = world.now + chooser.between(kMicrosecond, kSecond);
    for (const Descriptor &descriptor : world.table)
        if (descriptor.kind == Descriptor::PipeWrite)
            being.pipes.push_back(descriptor.pipe);
    note("the host forks process %d, a worker", being.pid);
    count(SIM_WORKER);
}

// ---- the end

void Host::free()
{
    kp_handle *handle = told_.handle;
    int64_t begun = world.now, stalled = world.stalled;
    kp_state before = kp_handle_state(handle);
    if (before != KP_STATE_EXITED)
        hurry(told_.grace());
    begin_turn();
    note("kp_handle_free");
    kp_handle_free(handle);
    note("kp_handle_free: done");
    int64_t rest = before == KP_STATE_EXITED ? 0 : rest_of_grace(begun);
    check_time("kp_handle_free", begun, stalled, rest + kSecond);
    check_nothing_is_left();
    told_.handle = nullptr;
    told_.fd = -1;
}

void Host::do_something()
{
    static constexpr void (Host::*kDeeds[])() = {&Host::drive,
                                                 &Host::wait,
                                                 &Host::step,
                                                 &Host::run,
                                                 &Host::stop,
                                                 &Host::wait,
                                                 &Host::drive,
                                                 &Host::take_descriptor,
                                                 &Host::restart,
                                                 &Host::drive,
                                                 &Host::make_environment,
                                                 &Host::look,
                                                 &Host::misuse,
                                                 &Host::fork,
                                                 &Host::fork_worker,
                                                 &Host::restart};
    uint32_t which = chooser.pick(std::size(kDeeds) + 2);
    if (which >= std::size(kDeeds)) {
        count(SIM_HOST_KILLED);
        return try_host_death();
    }
    void (Host::*deed)() = kDeeds[which];
    (this->*deed)();
}

Told *being_told;

void look_at_state()
{
    check_state_now(*being_told);
}

void Host::tell_scene() const
{
    static const char *const quirks[] = {"no pidfd",
                                         "no group signal",
                                         "no /proc",
                                         "host ignores SIGCHLD",
                                         "slow init",
                                         "host is nice",
                                         "no sock_diag",
                                         "",
                                         "host waits for all",
                                         "numbers are reused",
                                         "no sharing of ports",
                                         "",
                                         "sock_diag is refused"};
    for (size_t i = 0; i < std::size(quirks); ++i)
        if (has(1u << i))
            note("%s", quirks[i]);
    note("flags 0x%x, %u ms to start, %u ms of grace, port %u, log %d", told_.spec.flags,
         told_.spec.startup_timeout_ms, told_.spec.stop_grace_ms, told_.spec.port,
         told_.spec.log_fd);
}

void Host::live()
{
    being_told = &told_;
    at_turn_end = look_at_state;
    draw_spec();
    if (chooser.once_in(30))
        told_.spec.startup_timeout_ms = 0, told_.spec.port = 70000;
    tell_scene();
    if (chooser.pick(3) == 0)
        start();
    else
        spawn();
    for (uint32_t deeds = chooser.pick(40); deeds > 0 && told_.handle != nullptr; --deeds)
        do_something();
    if (told_.handle != nullptr)
        free();
    check_nothing_is_left();
}

void add_up()
{
    sim_events[SIM_NUMBER_REUSED] += static_cast<uint64_t>(world.counts.reused);
    sim_events[SIM_LOST_AT_SPAWN] += static_cast<uint64_t>(world.counts.lost);
    sim_events[SIM_TRACED] += static_cast<uint64_t>(world.counts.traced);
    sim_events[SIM_GUARD_SAVED] += static_cast<uint64_t>(world.counts.saved);
    sim_events[SIM_MET_ITSELF] += static_cast<uint64_t>(world.counts.met_itself);
    sim_events[SIM_OUTSIDE_OWNER] += world.outside != kNobody;
}

} // namespace

void sim_live(uint64_t seed)
{
    chooser = Chooser(seed);
    begin_by_chance();
    teach_proxy();
    Host().live();
    add_up();
}

const sim_fault_words sim_faults[SIM_FAULTS] = {
    {"none", ""},
    {"listeners are trusted, whosever they are", "a stranger, listens"},
    {"anybody's listener is asked for HTTP", "is sent something"},
    {"a listener that can't be seen is trusted", "a stranger, listens"},
    {"the guard comes after the proxy", "outlives the host"},
    {"numbers are trusted after somebody else has reaped", "signal "},
    {"a descriptor is not closed", "left: descriptor"},
    {"memory is not freed", "left: 1 blocks of memory"},
    {"no alarm is set for the host's loop", "stuck: "},
    {"no end of a process is watched", "stuck: "},
    {"no grace is given", "before its grace is over"},
    {"nobody is asked to end", "was never asked"},
    {"nobody is killed after the grace", ") lives"},
    {"no zombie is reaped", "a zombie"},
    {"the guard is left alive", "left: process"},
    {"the port is left open after an exit", "anybody may bind"},
    {"a fork is not noticed", "a child "},
};

void sim_plant(sim_fault fault)
{
    planted = fault;
}

void sim_complain_to(char *text)
{
    complaint = text;
}

void sim_tell_history()
{
    telling = true;
}
