// SPDX-License-Identifier: Apache-2.0
// The sockets that listen on this machine's TCP ports, and the processes that hold them.
#pragma once

#include "platform/fd.h"
#include "platform/process.h"
#include <stdint.h>
#include <sys/types.h>

namespace kpi::sys {

// What the address of an IPv4 listener begins with.
inline constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct Listener {
    uint64_t socket;     // the system's number for it
    uid_t uid;           // of whoever made it
    uint8_t address[16]; // IPv6; an IPv4 one is mapped into it
    uint16_t port;
    bool reached; // by a connection to 127.0.0.1:port
};

// Whether this system tells who listens at all; a host may be refused it all the same.
bool tells_listeners();

// A list of them, read piece by piece.
class Listeners {
  public:
    // Port 0: those on all ports.
    explicit Listeners(uint16_t port);

    bool next(Listener &listener);

    // After the last one: false where the system did not tell all, or nothing.
    bool is_complete() const { return complete_; }
    // Why not, where the host is short of something; else 0.
    int shortage() const { return shortage_; }

  private:
    void fail();
    bool next_message(Listener &listener);
    bool receive();
    bool take(Listener &listener);
    void finish(size_t length);
    bool next_line(Listener &listener);
    bool open_file();
    char *read_line();

    uint16_t port_;
    int files_ = 0; // that were opened instead of the socket
    Fd source_;     // that socket or file
    bool complete_ = false;
    int shortage_ = 0;
    size_t length_ = 0; // of what was received
    size_t at_ = 0;     // how much of it was taken
    alignas(8) char buffer_[8192];
};

// Who may hold the proxy's listener: the proxy, the members of its group but for the guard, and
// the proxy's descendants.
struct Kin {
    pid_t proxy;
    pid_t group;
    pid_t guard; // 0: none
};

// Finds out whose a listener is; an error number says what the host was short of for that. Unknown:
// none of the kin can be seen to hold it, one of them can't be seen, and it is of the host's own
// user, or of one whom the proxy or a process of the kin runs as. `outside` becomes the
// holder where that has left the group, if it has no process yet; it comes with its `end`, by which
// it can't be mistaken, or without one where there is none to have.
enum class Owner { Kin, Other, Unknown };
int find_owner(const Listener &listener, const Kin &kin, Owner &owner, Process &outside);

// Whether a process is one of them, or has just ended.
bool may_be_kin(pid_t pid, const Kin &kin);

// Makes a later look at what the process holds quicker, at a time when there is nothing to do.
void look_ahead(pid_t pid);

// For messages: any process that holds the socket. False: there is none to be seen.
struct Holder {
    pid_t pid;
    char name[32]; // of its program, as far as the system keeps it
};
bool find_holder(uint64_t socket, Holder &holder);

// For messages: the sockets of the kin, of whatever kind, up to `size` of them.
size_t find_sockets(const Kin &kin, uint64_t *sockets, size_t size);

// For messages: whether one of the kin is stopped, as by SIGTTIN.
bool is_stopped(const Kin &kin);

// For messages: how much of the processors the kin have used, in nanoseconds; -1: it can't be told.
int64_t time_used(const Kin &kin);

// The user whom the host runs as; root, or that one.
bool is_own(uid_t uid);
bool is_trusted(uid_t uid);

} // namespace kpi::sys
