// SPDX-License-Identifier: Apache-2.0
#include "platform/socket.h"
#include "descriptors.h"
#include "system.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace kpi::sys {

namespace {

constexpr uint32_t kLoopback = 0x7f000001;
constexpr uint32_t kOtherLoopback = 0x7f000002;

sockaddr_in address_of(uint32_t host, uint16_t port)
{
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(host);
    address.sin_port = htons(port);
    return address;
}

const sockaddr *generic(const sockaddr_in &address)
{
    return reinterpret_cast<const sockaddr *>(&address);
}

int set_option(const Fd &socket, int level, int option, int value)
{
    return setsockopt(socket.get(), level, option, &value, sizeof value) == 0 ? 0 : errno;
}

int bind_to(const Fd &socket, const sockaddr_in &address)
{
    return bind(socket.get(), generic(address), sizeof address) == 0 ? 0 : errno;
}

using AskName = int(int, sockaddr *, socklen_t *);

int find_name(AskName ask, const Fd &socket, sockaddr_in &address)
{
    socklen_t size = sizeof address;
    return ask(socket.get(), reinterpret_cast<sockaddr *>(&address), &size) == 0 ? 0 : errno;
}

} // namespace

int reserve_port(uint16_t &port, Fd &reservation)
{
    Fd made = lifted(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!made)
        return errno;
    int result = set_option(made, SOL_SOCKET, SO_REUSEADDR, 1);
    if (result == 0)
        result = bind_to(made, address_of(kLoopback, port));
    sockaddr_in name = {};
    if (result == 0)
        result = find_name(getsockname, made, name);
    if (result == 0)
        port = ntohs(name.sin_port);
    if (result == 0)
        reservation = static_cast<Fd &&>(made);
    return result;
}

int open_reservation(const Fd &reservation, bool open)
{
    return set_option(reservation, SOL_SOCKET, SO_REUSEADDR, open);
}

int make_probe(bool from_other, Fd &probe)
{
    Fd made = lifted(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!made)
        return errno;
    int result = 0;
    if (from_other) {
        // The number is chosen by connect(): one taken now could be the proxy's.
        result = choose_port_late(made);
        if (result == 0)
            result = bind_to(made, address_of(kOtherLoopback, 0));
        if (result == EADDRNOTAVAIL) // not every system has it
            result = 0;
    }
    if (result == 0)
        probe = static_cast<Fd &&>(made);
    return result;
}

// On loopback the answer is there when connect() returns, but only a second call tells it.
int connect_probe(const Fd &probe, uint16_t port)
{
    sockaddr_in address = address_of(kLoopback, port);
    for (int i = 0; i < 2; ++i) {
        if (connect(probe.get(), generic(address), sizeof address) == 0 || errno == EISCONN)
            return 0;
        if (errno != EINPROGRESS)
            break;
    }
    return errno == EALREADY ? EINPROGRESS : errno;
}

int send_probe(const Fd &probe, const char *text, size_t size)
{
    return send(probe.get(), text, size, MSG_NOSIGNAL) < 0 ? errno : 0;
}

bool meets_itself(const Fd &probe)
{
    sockaddr_in own = {}, other = {};
    return find_name(getsockname, probe, own) == 0 && find_name(getpeername, probe, other) == 0 &&
           own.sin_port == other.sin_port;
}

// Closing sends a reset, so that who closed first has no TIME_WAIT.
void leave_no_trace(const Fd &probe)
{
    linger at_once = {1, 0};
    setsockopt(probe.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

int receive_probe(const Fd &probe, char *buffer, size_t size, size_t &count)
{
    ssize_t length;
    do
        length = recv(probe.get(), buffer, size, 0);
    while (length < 0 && errno == EINTR);
    count = length < 0 ? 0 : static_cast<size_t>(length);
    return length < 0 ? errno : 0;
}

void finish_probe(const Fd &probe)
{
    shutdown(probe.get(), SHUT_WR);
}

} // namespace kpi::sys
