// SPDX-License-Identifier: Apache-2.0
// What the world of sim.h is made of.
#pragma once

#include "deadline.h"
#include "exit.h"
#include "platform/wait.h"
#include "sim.h"
#include <array>
#include <deque>
#include <map>
#include <vector>

namespace sim {

constexpr int64_t kNever = INT64_MAX;
constexpr pid_t kInit = 1, kHost = 2;
constexpr size_t kNobody = SIZE_MAX;

// What processes do by the clock, in the order in which it happens at one moment. kWakes and kKills
// are the guard's; the last two are done by who is to reap it.
enum Deed : size_t {
    kDies,
    kLeaves,
    kListens,
    kAnswers,
    kExits,
    kStops,
    kWakes,
    kKills,
    kActs,
    kReleased,
    kBuried,
    kDeedCount
};

struct Schedule {
    std::array<int64_t, kDeedCount> at;
    Schedule() { at.fill(kNever); }
    int64_t &operator[](size_t deed) { return at[deed]; }
};

// A process.
struct Being {
    size_t self = 0; // its place among all that ever were
    pid_t pid = 0, group = 0, parent = 0;
    size_t band = kNobody; // who founded its group; kNobody: the host's
    const sim_program *program = nullptr;
    enum { Alive, Zombie, Gone } state = Alive;
    kpi::Exit exit;
    Schedule when;
    int dies_of = 0;
    int nice = 0;
    unsigned uid = 0;
    bool idle = false;
    bool veiled = false; // what it holds can't be seen, or could not for a while
    bool stopped = false, listening = false, answering = false, blinked = false;
    bool left = false;     // the group that the library made, as its children have
    bool ours = true;      // the library started it, or a forebear; else it is a stranger
    bool doomed = false;   // it was sent what it dies of, and does nothing more
    bool given_up = false; // when its proxy was told to have exited
    bool held = false;     // by a tracer, though it has ended
    bool steady = false;   // it ignores what can be ignored: the guard, and its helper
    bool killed_by_us = false;
    bool reaped_by_us = false;
    int waiting = 0;         // a signal that it will see once it is continued
    uint64_t socket = 0;     // the listener's, which a child may share
    unsigned socket_uid = 0; // of who made it
    uint16_t port = 0;       // where it listens, or would
    int pipe = 0;            // a guard's; 0: it is none
    int64_t grace = 0;       // a guard's
    int64_t born = 0;
    long gone_in = -1;           // the turn in which it was reaped, ...
    long released_in = -1;       // let go of by its tracer, ...
    long opened_in = -1;         // began to listen, ...
    long closed_in = -1;         // and did so last
    int64_t told[32] = {};       // when it got each signal first; -1: never
    std::vector<int> pipes = {}; // of guards, which a worker of the host's has inherited
};

struct Descriptor {
    enum Kind { Closed, Other, End, Reservation, Probe, PipeRead, PipeWrite, Events, Timer };
    Kind kind = Closed;
    size_t being = kNobody;                     // End; Probe: who has accepted it
    uint16_t port = 0;                          // Reservation, Probe
    int pipe = 0;                               // PipeRead, PipeWrite
    bool open_to_others = true;                 // Reservation: SO_REUSEADDR
    bool from_other = false;                    // Probe
    bool pending = false;                       // Probe
    bool met_itself = false;                    // Probe
    const char *said = nullptr;                 // Probe: by the other end, and not read yet
    bool finished = false;                      // Probe: the other end knows that it sends no more
    int timer = -1;                             // Events
    kpi::Deadline due = kpi::Deadline::never(); // Timer
    std::vector<kpi::sys::Watch> watches = {};  // Events
};

// Somebody who can't be seen listens.
struct Occupied {
    unsigned uid;
    long in; // the turn since which
};

// What the host may be short of for a while.
enum : unsigned { kDescriptors = 1, kMemory = 2, kProcesses = 4, kWatches = 8 };

struct World {
    uint64_t seed = 0;
    unsigned quirks = 0;
    int64_t now = kpi::kSecond;
    int64_t interrupt_at = kNever;
    bool doubtful = false; // whether the host may be killed
    bool hostless = false; // it was
    bool is_child = false; // the host is a fork of the one that made everything
    uint64_t generation = 1;
    long calls_at_once = 0, blocks = 0;
    pid_t last_pid = 100;
    int last_pipe = 0;
    int late_pipe = 0; // of a guard that comes after the proxy
    uint64_t last_socket = 0;
    uint16_t last_port = 20000;
    sim_counts counts = {};
    std::vector<const sim_program *> programs;
    std::deque<Being> beings; // a reference stays good when another is born
    std::deque<Descriptor> table{3, Descriptor{.kind = Descriptor::Other}};
    std::map<uint16_t, Occupied> occupied;
    int cut_off_by = 0; // the error of each connect(),
    int64_t cut_off_until = 0;

    // A turn of the host's goes from one of its calls, or its waking up, to the next. What happens
    // in between the library can't know in time.
    long turn = 0;
    int64_t turn_began = 0;
    long happened = 0; // in this turn

    // Of random lives.
    bool by_chance = false;
    int64_t calm = 0;         // how many calls of the platform that is, at most; 0: nothing happens
    long quiet_calls = 0;     // until something happens by chance, in the middle of a step
    unsigned short_of = 0;    // now
    unsigned was_short = 0;   // since the proxy's start
    int64_t stalled = 0;      // how long the host has not run, in all
    size_t proxy = kNobody;   // the last that was started
    size_t guard = kNobody;   // of that
    size_t outside = kNobody; // the owner that the library was last told of
    int64_t told_at = -1;     // when the library first asked this proxy to end
    int64_t kill_due = kNever;     // when the grace is over, at the earliest,
    int64_t kill_by = kNever;      // and at the latest
    bool lost = false;             // the proxy or the guard, before it could be held on to
    bool somebody_left = false;    // a group of the proxy's: nothing tells that
    size_t outside_band = kNobody; // in which that owner was then
    int64_t grace = 0;             // of the spec
    bool asks_anybody = true;      // whose listener it is does not matter
};

extern World world;

// The last one is kept there.
constexpr size_t kComplaint = 200;
extern char *complaint;
[[noreturn]] void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool has(unsigned what);
bool lacks(unsigned what); // now

// A fault of the library's.
extern int planted;
bool is_planted(int fault);

// For the history of a life.
extern bool telling;
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Each call of the platform begins with this. A point is where the host may be killed. No reference
// into the world outlasts one.
void enter(const char *call);
void pass_point();
void begin_turn();

// Lets something happen by chance; it is called at such points of a random life.
extern void (*meanwhile)();
// Looks at what the library has come to, before it blocks.
extern void (*at_turn_end)();
// What a process does then when it is its time.
extern void (*act)(Being &being);

// The host dies here, in a copy of the world, and what comes of it is looked at.
void try_host_death();

// ---- processes

Being *newest(pid_t pid); // who has the number, or had it last; nullptr: nobody ever
Being &find(pid_t pid);
Being &known(pid_t pid, const char *what); // complains where the number may be a stranger's
bool has_number(const Being &being);
bool is_member(const Being &being); // of the group that the library made for its last proxy
Being &be_born(const sim_program &program, pid_t parent, pid_t group, uint16_t port);
void deliver(Being &being, int signo);
int deliver_to_group(pid_t group, int signo); // 0 or ESRCH
int deliver_to_band(size_t founder, int signo);
void end(Being &being, kpi::Exit exit);
void leave(Being &being);
void orphan_children(pid_t parent);
void let_go(int pipe); // of one of the ends that keep a guard waiting

// ---- the clock

// Lets the earliest thing happen that is due by `until`; false: there is none.
bool happen_next(int64_t until);
void move_clock(int64_t at);
void run_until(int64_t at);
int64_t reaction();

// ---- descriptors

int add(Descriptor descriptor);
bool is_number(int fd);
Descriptor &use(int fd, const char *what);
Descriptor &use(int fd, Descriptor::Kind kind, const char *what);
bool is_ready(const kpi::sys::Watch &watch);

// ---- the port

bool is_listened_on(uint16_t port);
int answer_at(uint16_t port);                     // what a connect() comes to
const Being *listener_at(uint16_t port);          // nullptr: none that is known by name
void notice_probe(uint16_t port);                 // a connection was accepted
bool has_closed(const Descriptor &probe);         // the other end
bool is_reserved_from(uint16_t port, bool reuse); // `reuse`: who binds sets SO_REUSEADDR
bool try_to_listen(Being &being);
void stop_listening(Being &being);

} // namespace sim
