// SPDX-License-Identifier: Apache-2.0
// Sockets on 127.0.0.1. What returns int returns 0 or an error number.
#pragma once

#include "platform/fd.h"
#include <stddef.h>
#include <stdint.h>

namespace kpi::sys {

// Binds a socket that never listens to 127.0.0.1:port; port 0 is replaced by the one chosen.
int reserve_port(uint16_t &port, Fd &reservation);

// Whether a server that sets SO_REUSEADDR can bind beside the reservation of this port at all.
bool can_share(uint16_t port);

// Whether it may.
int open_reservation(const Fd &reservation, bool open);

// A socket for probes. `from_other` binds its source to 127.0.0.2 where the system has that, so
// that it can't meet itself.
int make_probe(bool from_other, Fd &probe);

// 0: accepted; EINPROGRESS: not known yet (the socket becomes writable, then call again); else why
// not.
int connect_probe(const Fd &probe, uint16_t port);

// Whether a socket that was refused may be used again.
extern const bool kReusesRefused;

// Whether both ends of a connection are this one socket.
bool meets_itself(const Fd &probe);

// Lets nothing of a connection stay behind at the other end's port, also if that closes it first:
// without a reservation it would keep the port from a restart.
void leave_no_trace(const Fd &probe);

// On a connection that was accepted; neither waits (EAGAIN). What is sent is short, and sent whole.
// A count of 0: the other end closed it.
int send_probe(const Fd &probe, const char *text, size_t size);
int receive_probe(const Fd &probe, char *buffer, size_t size, size_t &count);

// Tells the other end that nothing more is sent.
void finish_probe(const Fd &probe);

} // namespace kpi::sys
