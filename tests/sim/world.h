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

// What processes do by the clock, in the order in which it happens at one moment. The last three
// are a guard's, and init's.
enum Deed : size_t {
    kDies,
    kLeaves,
    kListens,
    kAnswers,
    kExits,
    kStops,
    kWakes,
    kKills,
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
    pid_t pid = 0, group = 0, parent = 0;
    const sim_program *program = nullptr;
    enum { Alive, Zombie, Gone } state = Alive;
    kpi::Exit exit;
    Schedule when;
    int dies_of = 0;
    int nice = 0;
    bool idle = false;
    bool stopped = false, listening = false, answering = false, blinked = false;
    bool left = false; // its group
    int waiting = 0;   // a signal that it will see once it is continued
    uint16_t port = 0;
    int pipe = 0; // a guard's; 0: it is none
    int64_t grace = 0;
    int64_t told[65] = {}; // when it got each signal first; -1: never
};

struct Descriptor {
    enum Kind { Closed, Other, End, Reservation, Probe, PipeRead, PipeWrite, Events, Timer };
    Kind kind = Closed;
    pid_t pid = 0;                              // End
    uint16_t port = 0;                          // Reservation, Probe
    int pipe = 0;                               // PipeRead, PipeWrite
    bool open_to_others = true;                 // Reservation: SO_REUSEADDR
    bool from_other = false;                    // Probe
    bool pending = false;                       // Probe
    const char *said = nullptr;                 // Probe: by the other end, and not read yet
    int timer = -1;                             // Events
    kpi::Deadline due = kpi::Deadline::never(); // Timer
    std::vector<kpi::sys::Watch> watches = {};  // Events
};

struct World {
    uint64_t seed = 0;
    unsigned quirks = 0;
    int64_t now = kpi::kSecond;
    int64_t interrupt_at = kNever;
    bool doubtful = false; // whether the host may be killed
    long calls_at_once = 0, blocks = 0;
    pid_t last_pid = 100;
    int last_pipe = 0;
    uint16_t last_port = 20000;
    sim_counts counts = {};
    std::vector<const sim_program *> programs;
    std::deque<Being> beings; // a reference stays good when another is born
    std::deque<Descriptor> table{3, Descriptor{.kind = Descriptor::Other}};
    std::map<uint16_t, unsigned> occupied; // the uid by whom
};

extern World world;

[[noreturn]] void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool has(unsigned what);

// Each call of the platform begins with this. A point is where the host may be killed. No reference
// into the world outlasts one.
void enter(const char *call);
void pass_point();

// ---- processes

Being &find(pid_t pid);
Being &known(pid_t pid, const char *what); // complains where the number may be a stranger's
Being &be_born(const sim_program &program, pid_t parent, pid_t group, uint16_t port);
void deliver(Being &being, int signo);
int deliver_to_group(pid_t group, int signo); // 0 or ESRCH
void orphan_children(pid_t parent);
void close_pipe(int pipe);

// ---- the clock

// Lets the earliest thing happen that is due by `until`; false: there is none.
bool happen_next(int64_t until);
void move_clock(int64_t at);
void run_until(int64_t at);

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

} // namespace sim
