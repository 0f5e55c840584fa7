// SPDX-License-Identifier: Apache-2.0
// The life of a handle on the simulated system of tests/sim: calls, exits and time-outs in any
// order, held against what kp.h says may follow what. The input is a world, a proxy in it and a
// spec, and then a letter for each thing that the host, or somebody else, does.
#include "../sim/sim.h"
#include "deadline.h"
#include "error.h"
#include "fuzz.h"
#include <algorithm>
#include <errno.h>
#include <iterator>
#include <signal.h>
#include <stdio.h>
#include <string.h>

using namespace fuzz;
using kpi::Call;
using kpi::kMicrosecond, kpi::kMillisecond, kpi::kSecond;

namespace {

// ---- choices

template <typename Type, size_t kCount>
Type one_of(const Type (&choices)[kCount], uint8_t choice)
{
    return choices[choice % kCount];
}

// From a microsecond to a minute; 0: never.
int64_t time_from(uint8_t choice)
{
    constexpr int64_t kSteps[] = {1, 2, 5};
    int64_t time = kMicrosecond;
    for (int i = choice % 24 / 3; i > 0; --i)
        time *= 10;
    return choice == 0 ? 0 : time * kSteps[choice % 3];
}

int milliseconds_from(uint8_t choice)
{
    constexpr int kTimes[] = {0, 1, 2, 5, 20, 50, 100, 300, 1000, 3000};
    return one_of(kTimes, choice);
}

struct Programs {
    sim_program proxy = {}, child = {}, shell = {};
};

void read_program(Input &input, sim_program &program)
{
    constexpr const char *kAnswers[] = {nullptr, "HTTP/1.1 407 No\r\n", "SSH-2.0\r\n", "HTTP/1."};
    uint8_t kind = input.byte(), manner = input.byte();
    program.plain = (kind & 1) != 0;
    program.dies_when_probed = (kind & 2) != 0 && (kind & 4) != 0;
    program.hangs_up = (kind & 8) != 0;
    program.hidden = (kind & 16) != 0;
    program.unlisted = (kind & 32) != 0;
    program.says = kAnswers[kind >> 6];
    program.deaf = (manner & 1) != 0;
    program.stuck = (manner & 2) != 0 && (manner & 4) != 0;
    program.exit_code = (manner & 8) != 0 ? 7 : 0;
    program.exit_signal = (manner & 16) != 0 ? SIGSEGV : 0;
    program.children = manner >> 6;
    program.listens_after = time_from(input.byte());
    program.exits_after = time_from(input.byte());
    program.leaves_after = time_from(input.byte());
    program.stops_after = time_from(input.byte());
    program.answers_after = time_from(input.byte());
    program.blinks_for = time_from(input.byte());
    program.obeys_after = time_from(input.byte());
}

constexpr unsigned kSystems[] = {SIM_SYSTEMS, SIM_NO_DIAG, SIM_SHORT};

constexpr uint16_t kPort = 8080;
char proxy_name[] = "proxy";
char *proxy_argv[] = {proxy_name, nullptr};

kp_spec read_spec(Input &input)
{
    constexpr uint32_t kStartupTimes[] = {20, 1, 5, 50, 300};
    constexpr uint32_t kGraces[] = {50, 1, 5, 300};
    kp_spec spec = {};
    spec.size = sizeof spec;
    spec.flags = input.byte() & 0x3e;
    spec.startup_timeout_ms = one_of(kStartupTimes, input.byte());
    spec.stop_grace_ms = one_of(kGraces, input.byte());
    if ((spec.flags & KP_SPEC_ATTACH) == 0) {
        spec.argv = proxy_argv;
        spec.log_fd = 2;
    } else {
        spec.flags &= KP_SPEC_ATTACH | KP_SPEC_PROBE_HTTP | KP_SPEC_ANY_LISTENER;
    }
    if ((spec.flags & KP_SPEC_ATTACH) != 0 || input.byte() % 2 != 0)
        spec.port = kPort;
    return spec;
}

// ---- one handle, and what is known of it

// What the functions that look tell.
struct Facts {
    kp_state state;
    uint16_t port;
    pid_t pid;
    std::string url;
    int exit_code = -2, term_signal = -2;
    bool exited;

    explicit Facts(const kp_handle *handle)
        : state(kp_handle_state(handle)), port(kp_handle_port(handle)), pid(kp_handle_pid(handle)),
          url(kp_handle_url(handle)),
          exited(kp_handle_exit_status(handle, &exit_code, &term_signal) == 1)
    {
        EXPECT(kp_handle_exit_status(handle, nullptr, nullptr) == exited);
    }
    bool operator==(const Facts &) const = default;
};

class Life {
  public:
    Life(const kp_spec &spec, unsigned system) : spec_(spec), system_(system) {}
    ~Life()
    {
        if (has_handle())
            free();
    }
    Life(const Life &) = delete;
    Life &operator=(const Life &) = delete;

    bool has_handle() const { return handle_ != nullptr; }
    void tell(uint8_t letter) const;

    void start();
    void spawn();
    void step();
    void wait(kp_state until, int timeout_ms);
    void stop(int grace_ms);
    void restart();
    void call_wrongly();
    void make_environment();
    void open_fd();
    void free();

    // A host's turn.
    void sleep_by_the_clock();
    void sleep_by_the_descriptor();
    void drain();

    // What others do.
    void be_interrupted_after(int64_t time);
    void kill(size_t nth, int signo);
    void occupy(unsigned uid);

  private:
    bool is_attached() const { return (spec_.flags & KP_SPEC_ATTACH) != 0; }
    bool may_lose_the_group() const;
    void check_nothing_is_left() const;
    long descriptors_at_rest() const;
    int64_t answer_time() const;
    int64_t longest_stop() const;
    void begin_call();
    void check(Call call, kp_result result, const Facts &now);
    void check_error(kp_result result, const Facts &now) const;
    void check_not_started(Call call, kp_result result);
    void check_change(kp_result result, const Facts &before, const Facts &now);
    void check_wait(kp_result result, const Facts &before, const Facts &now, kp_state until);
    void check_same_life(const Facts &before, const Facts &now) const;
    void check_facts(const Facts &now) const;
    void check_timeout(const Facts &now) const;
    void check_grace(const Facts &now) const;
    void begin_life();
    void begin_stop(int64_t grace);

    const kp_spec spec_;
    const unsigned system_;
    kp_handle *handle_ = nullptr;
    kp_error error_ = {};
    int fd_ = -1;
    int64_t called_ = 0;                       // when the last call was made
    int64_t start_due_ = 0;                    // STARTING: when the start-up time is over
    int64_t kill_after_ = 0, kill_before_ = 0; // STOPPING: when the grace is over
    int64_t interrupted_ = INT64_MAX;
    bool gave_up_ = false; // a process, in this life
    bool killed_by_others_ = false;
    bool ever_killed_by_others_ = false; // also in an earlier life
};

// ---- what is checked after each call

void Life::begin_call()
{
    fill(error_);
    called_ = sim_now();
}

void Life::check(Call call, kp_result result, const Facts &now)
{
    EXPECT_SAYING(kpi::may_return(call, result), kp_result_name(result));
    check_error(result, now);
    check_facts(now);
    check_timeout(now);
    check_grace(now);
}

void Life::check_error(kp_result result, const Facts &now) const
{
    if (result >= 0)
        return EXPECT(is_untouched(error_));
    EXPECT(memchr(error_.message, '\0', sizeof error_.message) != nullptr);
    EXPECT(error_.message[0] != '\0');
    EXPECT_SAYING(error_.code == result, error_.message);
    bool knows_exit = result == KP_ERR_EXITED;
    EXPECT_SAYING(error_.exit_code == (knows_exit ? now.exit_code : -1), error_.message);
    EXPECT_SAYING(error_.term_signal == (knows_exit ? now.term_signal : 0), error_.message);
}

void Life::check_not_started(Call call, kp_result result)
{
    EXPECT_SAYING(kpi::may_return(call, result), kp_result_name(result));
    EXPECT(result < 0 && handle_ == nullptr);
    EXPECT_SAYING(error_.code == result && error_.message[0] != '\0', error_.message);
    check_nothing_is_left();
}

// Nothing can be sent to members that outlive the proxy where the group's number may be another's:
// there is no descriptor that signals it, and no zombie or guard that pins it.
bool Life::may_lose_the_group() const
{
    bool by_number = (system_ & (SIM_NO_PIDFD | SIM_NO_GROUP_SIGNAL)) != 0;
    bool has_guard = (spec_.flags & KP_SPEC_NO_GUARD) == 0 && !ever_killed_by_others_;
    return by_number && (system_ & SIM_HOST_REAPS) != 0 && !has_guard;
}

void Life::check_nothing_is_left() const
{
    std::string left = sim_left();
    bool only_processes =
        left.find("descriptor") == std::string::npos && left.find("memory") == std::string::npos;
    EXPECT_SAYING(left.empty() || (only_processes && may_lose_the_group()), left.c_str());
}

void Life::check_facts(const Facts &now) const
{
    EXPECT(now.port != 0 && now.url == "http://127.0.0.1:" + std::to_string(now.port));
    EXPECT(spec_.port == 0 || now.port == spec_.port);
    EXPECT(is_attached() ? now.pid == 0 : now.pid > 0);
    if (now.state < KP_STATE_STOPPING || is_attached())
        EXPECT(!now.exited);
    else if (now.state == KP_STATE_EXITED)
        EXPECT(now.exited || gave_up_);
    if (now.exited) {
        bool unknown = now.exit_code == -1 && now.term_signal == 0;
        EXPECT(!sim_lives(now.pid));
        EXPECT(unknown ? (system_ & SIM_HOST_REAPS) != 0
                       : (now.exit_code == -1) == (now.term_signal != 0));
    }
    EXPECT(fd_ < 0 || kp_handle_fd(handle_) == fd_);
    if (now.state == KP_STATE_EXITED)
        EXPECT(sim_counted().descriptors <= descriptors_at_rest());
}

// The log's duplicate, the port, the two behind the descriptor for a loop, and a proxy that was
// given up: it is looked at again at a restart.
long Life::descriptors_at_rest() const
{
    bool reserves = (spec_.flags & (KP_SPEC_NO_RESERVE | KP_SPEC_ATTACH)) == 0;
    return (spec_.log_fd != 0 ? 1 : 0) + (reserves ? 1 : 0) + (fd_ >= 0 ? 2 : 0) +
           (gave_up_ ? 1 : 0);
}

// Never stuck: something is due by the clock, or the descriptor will tell.
void Life::check_timeout(const Facts &now) const
{
    int64_t timeout = kp_handle_timeout_ns(handle_);
    EXPECT(timeout >= -1);
    if (now.state == KP_STATE_EXITED)
        EXPECT(timeout == -1);
    else if (fd_ < 0 || now.state != KP_STATE_READY)
        EXPECT(timeout >= 0);
    if (timeout == 0 && fd_ >= 0)
        EXPECT(sim_readable(fd_));
}

// The proxy itself has the whole of it.
void Life::check_grace(const Facts &now) const
{
    if (is_attached() || killed_by_others_ || now.state < KP_STATE_STOPPING)
        return;
    int64_t killed = sim_told(now.pid, SIGKILL);
    EXPECT(killed < 0 || killed >= kill_after_);
}

void Life::check_same_life(const Facts &before, const Facts &now) const
{
    EXPECT(now.port == before.port && now.url == before.url && now.pid == before.pid);
    EXPECT(now.state >= before.state);
    if (before.exited)
        EXPECT(now.exited && now.exit_code == before.exit_code &&
               now.term_signal == before.term_signal);
}

// What a step makes of a state. A failure is told once, with the end of STARTING or READY, and what
// could not be ended, with EXITED.
void Life::check_change(kp_result result, const Facts &before, const Facts &now)
{
    bool is_passing = now.state == KP_STATE_STARTING || now.state == KP_STATE_STOPPING;
    bool was_stopping = before.state == KP_STATE_STOPPING;
    check_same_life(before, now);
    if (result == KP_AGAIN)
        return EXPECT(is_passing && now.state == before.state);
    if (result == KP_OK)
        return EXPECT(!is_passing && (now.state == before.state || now.state == before.state + 1));
    if (was_stopping) {
        gave_up_ = true;
        return EXPECT_SAYING(result == KP_ERR_SYSTEM && now.state == KP_STATE_EXITED,
                             error_.message);
    }
    EXPECT_SAYING(before.state < KP_STATE_STOPPING &&
                      now.state == (is_attached() ? KP_STATE_EXITED : KP_STATE_STOPPING),
                  error_.message);
    EXPECT_SAYING(before.state == KP_STATE_STARTING || result == KP_ERR_EXITED, error_.message);
    begin_stop(spec_.stop_grace_ms * kMillisecond);
}

// A wait for READY is one step after another; one for EXITED goes on through a failure.
void Life::check_wait(kp_result result, const Facts &before, const Facts &now, kp_state until)
{
    if (until == KP_STATE_READY && before.state > KP_STATE_READY)
        return EXPECT(result == KP_ERR_STATE && now == before);
    if (until == KP_STATE_READY)
        return check_change(result, before, now);
    check_same_life(before, now);
    EXPECT((now.state == KP_STATE_EXITED) == (result != KP_AGAIN));
    if (before.state < KP_STATE_STOPPING && now.state >= KP_STATE_STOPPING)
        begin_stop(spec_.stop_grace_ms * kMillisecond);
    if (result >= 0)
        return;
    EXPECT_SAYING(result == KP_ERR_SYSTEM && before.state != KP_STATE_EXITED, error_.message);
    EXPECT_SAYING(!is_attached(), error_.message);
    gave_up_ = true;
}

// ---- how long it may take

// A host that comes late may have asked only after the time-out.
int64_t Life::answer_time() const
{
    return (spec_.flags & KP_SPEC_PROBE_HTTP) != 0 ? 200 * kMillisecond : 0;
}

int64_t Life::longest_stop() const
{
    return spec_.stop_grace_ms * kMillisecond + kSecond;
}

void Life::begin_life()
{
    start_due_ = called_ + spec_.startup_timeout_ms * kMillisecond;
    gave_up_ = false;
    killed_by_others_ = false;
}

// At some moment of the last call.
void Life::begin_stop(int64_t grace)
{
    kill_after_ = called_ + grace;
    kill_before_ = sim_now() + grace;
}

// ---- the calls

void Life::start()
{
    begin_call();
    kp_result result = kp_start(&spec_, &handle_, &error_);
    if (result != KP_OK)
        return check_not_started(Call::Start, result);
    begin_life();
    Facts now(handle_);
    EXPECT(now.state == KP_STATE_STARTING && kp_handle_timeout_ns(handle_) == 0);
    check(Call::Start, result, now);
}

void Life::spawn()
{
    begin_call();
    kp_result result = kp_spawn(&spec_, &handle_, &error_);
    int64_t longest_start = spec_.startup_timeout_ms * kMillisecond + answer_time();
    EXPECT(sim_now() - called_ <= longest_start + (result == KP_OK ? 0 : longest_stop()));
    if (result != KP_OK)
        return check_not_started(Call::Spawn, result);
    begin_life();
    Facts now(handle_);
    EXPECT(now.state == KP_STATE_READY);
    check(Call::Spawn, result, now);
}

void Life::step()
{
    Facts before(handle_);
    begin_call();
    kp_result result = kp_handle_step(handle_, &error_);
    Facts now(handle_);
    EXPECT(sim_now() == called_);
    check_change(result, before, now);
    check(Call::Step, result, now);
}

// Not for ever where nothing may ever happen.
void Life::wait(kp_state until, int timeout_ms)
{
    Facts before(handle_);
    if (until == KP_STATE_EXITED && before.state < KP_STATE_STOPPING && timeout_ms < 0)
        timeout_ms = 1000;
    begin_call();
    kp_result result = kp_handle_wait(handle_, until, timeout_ms, &error_);
    Facts now(handle_);
    int64_t limit = called_ + timeout_ms * kMillisecond;
    if (timeout_ms < 0) // nobody else had a step to do
        limit = until == KP_STATE_READY ? std::max(called_, start_due_) + answer_time()
                                        : std::max(called_, kill_before_) + kSecond;
    EXPECT(sim_now() <= limit);
    if (result == KP_AGAIN && (timeout_ms < 0 || sim_now() < limit)) {
        EXPECT(sim_now() >= interrupted_);
        interrupted_ = INT64_MAX;
    }
    check_wait(result, before, now, until);
    check(Call::Wait, result, now);
}

void Life::stop(int grace_ms)
{
    Facts before(handle_);
    int64_t grace = (grace_ms < 0 ? int64_t{spec_.stop_grace_ms} : grace_ms) * kMillisecond;
    begin_call();
    kp_result result = kp_handle_stop(handle_, grace_ms);
    Facts now(handle_);
    EXPECT(result == KP_OK && sim_now() == called_);
    if (before.state < KP_STATE_STOPPING)
        begin_stop(grace);
    kill_after_ = std::min(kill_after_, called_ + grace);
    kill_before_ = std::min(kill_before_, called_ + grace);
    check_same_life(before, now);
    EXPECT(now.state == (is_attached() || before.state == KP_STATE_EXITED ? KP_STATE_EXITED
                                                                          : KP_STATE_STOPPING));
    EXPECT(now.state == KP_STATE_EXITED || kp_handle_timeout_ns(handle_) == 0);
    check(Call::Stop, result, now);
}

void Life::restart()
{
    Facts before(handle_);
    begin_call();
    kp_result result = kp_handle_restart(handle_, &error_);
    Facts now(handle_);
    if (before.state != KP_STATE_EXITED) {
        EXPECT(result == KP_ERR_STATE && now == before);
    } else if (result != KP_OK) {
        EXPECT_SAYING(now.state == KP_STATE_EXITED, error_.message);
        check_same_life(before, now);
    } else {
        begin_life();
        EXPECT(now.state == KP_STATE_STARTING && kp_handle_timeout_ns(handle_) == 0);
        EXPECT(now.port == before.port && (is_attached() || now.pid != before.pid));
    }
    check(Call::Restart, result, now);
}

// Changes nothing.
void Life::call_wrongly()
{
    Facts before(handle_);
    for (kp_state until : {0, 1, 3, 5})
        EXPECT(kp_handle_wait(handle_, until, 1, nullptr) == KP_ERR_INVALID);
    EXPECT(kp_handle_wait(handle_, KP_STATE_EXITED, -2, nullptr) == KP_ERR_INVALID);
    EXPECT(kp_handle_stop(handle_, -2) == KP_ERR_INVALID);
    EXPECT(kp_start(&spec_, nullptr, nullptr) == KP_ERR_INVALID);
    EXPECT(Facts(handle_) == before);
}

void Life::make_environment()
{
    char *base[] = {nullptr};
    char **env = kp_env_new(handle_, base);
    EXPECT(env != nullptr);
    EXPECT(std::string(env[0]) == std::string("ALL_PROXY=") + kp_handle_url(handle_));
    kp_env_free(env);
}

void Life::open_fd()
{
    fd_ = kp_handle_fd(handle_);
    EXPECT(fd_ > 2);
    check_timeout(Facts(handle_));
}

void Life::free()
{
    kp_state state = kp_handle_state(handle_);
    begin_call();
    kp_handle_free(handle_);
    int64_t limit = called_;
    if (state == KP_STATE_STOPPING)
        limit = std::min(std::max(called_, kill_before_) + kSecond, called_ + longest_stop());
    else if (state != KP_STATE_EXITED)
        limit = called_ + longest_stop();
    EXPECT(sim_now() <= limit);
    check_nothing_is_left();
    handle_ = nullptr;
    fd_ = -1;
}

// ---- a host's turn

void Life::sleep_by_the_clock()
{
    int64_t timeout = kp_handle_timeout_ns(handle_);
    if (timeout > 0)
        sim_run(timeout);
    step();
}

void Life::sleep_by_the_descriptor()
{
    if (fd_ < 0)
        open_fd();
    if (sim_run_until_readable(fd_))
        return step();
    kp_state state = kp_handle_state(handle_);
    EXPECT(state == KP_STATE_READY || state == KP_STATE_EXITED);
}

// Few steps make it unreadable, or a loop would spin.
void Life::drain()
{
    if (fd_ < 0)
        open_fd();
    for (int i = 0; sim_readable(fd_); ++i) {
        EXPECT(i < 20);
        step();
    }
}

// For who reads a finding: KP_FUZZ_TELL=1 fuzz-life FILE
void Life::tell(uint8_t letter) const
{
    static const bool tells = getenv("KP_FUZZ_TELL") != nullptr;
    if (tells)
        fprintf(stderr, "%.6f s, state %d: '%c'\n",
                static_cast<double>(sim_now() - kSecond) / kSecond, kp_handle_state(handle_),
                letter);
}

// ---- what others do

void Life::be_interrupted_after(int64_t time)
{
    interrupted_ = sim_now() + time;
    sim_interrupt_after(time);
}

void Life::kill(size_t nth, int signo)
{
    pid_t pid = sim_pid(nth);
    if (pid == 0 || !sim_lives(pid))
        return;
    sim_kill(pid, signo);
    killed_by_others_ = ever_killed_by_others_ = true;
}

void Life::occupy(unsigned uid)
{
    uint16_t port = handle_ == nullptr ? kPort : kp_handle_port(handle_);
    if (sim_can_bind(port))
        sim_occupy(port, uid);
}

// ---- the input

void act_on_handle(Life &life, uint8_t letter, Input &input)
{
    switch (letter) {
    case '.':
        return life.step();
    case 'r':
        return life.wait(KP_STATE_READY, milliseconds_from(input.byte()));
    case 'R':
        return life.wait(KP_STATE_READY, -1);
    case 'e':
        return life.wait(KP_STATE_EXITED, milliseconds_from(input.byte()));
    case 'E':
        return life.wait(KP_STATE_EXITED, -1);
    case 't':
        return life.stop(milliseconds_from(input.byte()));
    case 'T':
        return life.stop(-1);
    case 'a':
        return life.restart();
    case '!':
        return life.call_wrongly();
    case 'n':
        return life.make_environment();
    case 'd':
        return life.open_fd();
    case 'f':
        return life.free();
    case 'c':
        return life.sleep_by_the_clock();
    case 'w':
        return life.sleep_by_the_descriptor();
    case 'u':
        return life.drain();
    }
}

void act(Life &life, Programs &programs, Input &input)
{
    constexpr int kErrors[] = {0, ENOENT, EACCES, EAGAIN};
    constexpr int kSignals[] = {SIGKILL, SIGTERM, SIGCONT};
    uint8_t letter = input.byte();
    life.tell(letter);
    switch (letter) {
    case 'z':
        return sim_run(time_from(input.byte()));
    case 'i':
        return life.be_interrupted_after(time_from(input.byte()));
    case 'k':
        return life.kill(input.byte() % 8, one_of(kSignals, input.byte()));
    case 'o':
        return life.occupy(input.byte() % 2);
    case 'x':
        return void(programs.proxy.spawn_errno = one_of(kErrors, input.byte()));
    case 'h':
        return sim_teach(&programs.shell); // one that is not there
    }
    if (life.has_handle())
        act_on_handle(life, letter, input);
    else if (sim_living() != 0 || sim_left()[0] != '\0')
        return; // one that was given up, or its zombie, would be told of to the next handle
    else if (letter == 'S')
        life.spawn();
    else
        life.start();
}

// Without a reservation HTTP is asked for in a connection from 127.0.0.1. Where nobody listens any
// more that may meet itself, which the library knows and this world complains of.
bool asks_anew(const kp_spec &spec)
{
    bool reserves = (spec.flags & (KP_SPEC_NO_RESERVE | KP_SPEC_ATTACH)) == 0;
    return (spec.flags & KP_SPEC_PROBE_HTTP) != 0 && !reserves;
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    constexpr int kMostActs = 50;
    Input input(data, size);
    Programs programs;
    programs.proxy.name = proxy_name;
    programs.child.name = "child";
    programs.shell.name = "/bin/sh";
    programs.shell.spawn_errno = EACCES;
    programs.proxy.child = &programs.child;
    uint8_t seed = input.byte();
    unsigned system = one_of(kSystems, input.byte());
    kp_spec spec = read_spec(input);
    read_program(input, programs.proxy);
    if (programs.proxy.children != 0)
        read_program(input, programs.child);
    programs.child.children = 0;
    if (asks_anew(spec))
        for (sim_program *program : {&programs.proxy, &programs.child})
            program->blinks_for = program->dies_when_probed = 0;
    sim_begin(seed, system);
    sim_teach(&programs.proxy);
    Life life(spec, system);
    for (int i = 0; i < kMostActs && !input.is_empty(); ++i)
        act(life, programs, input);
    return 0;
}
