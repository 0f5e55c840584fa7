/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets on 127.0.0.1: a port that nobody serves yet, and clients. */
#ifndef KP_TESTS_VENEER_NET_HPP
#define KP_TESTS_VENEER_NET_HPP

#include "check.hpp"

#include <arpa/inet.h>
#include <cstdint>
#include <cstdlib>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

class Socket {
  public:
    explicit Socket(int fd) : fd_(fd) { CHECK(fd >= 0); }
    Socket(Socket &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    ~Socket()
    {
        if (fd_ >= 0)
            close(fd_);
    }
    int fd() const { return fd_; }

  private:
    int fd_;
};

inline sockaddr_in loopback(std::uint16_t port)
{
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* As a proxy binds, beside a reservation; 0: a port of the kernel's choice. Until it listens
 * the port refuses, and nobody else gets it. */
inline Socket bound(std::uint16_t port)
{
    Socket made(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    const sockaddr_in address = loopback(port);
    CHECK(setsockopt(made.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(bind(made.fd(), reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0);
    return made;
}

inline Socket listening(std::uint16_t port)
{
    Socket made = bound(port);
    CHECK(listen(made.fd(), SOMAXCONN) == 0);
    return made;
}

inline std::uint16_t port_of(const Socket &socket)
{
    sockaddr_in address{};
    socklen_t size = sizeof address;
    CHECK(getsockname(socket.fd(), reinterpret_cast<sockaddr *>(&address), &size) == 0);
    return ntohs(address.sin_port);
}

/* How the proxy at a URL, "http://127.0.0.1:PORT", answers a CONNECT to itself. */
inline std::string answer_of(const std::string &url)
{
    const std::string authority = url.substr(url.rfind('/') + 1);
    const int port = std::atoi(authority.substr(authority.find(':') + 1).c_str());
    const sockaddr_in address = loopback(static_cast<std::uint16_t>(port));
    const std::string request = "CONNECT " + authority + " HTTP/1.1\r\n\r\n";
    Socket client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval patience{20, 0};
    setsockopt(client.fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(client.fd(), reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0 ||
        send(client.fd(), request.data(), request.size(), MSG_NOSIGNAL) < 0)
        return "";
    char answer[256] = "";
    const ssize_t size = recv(client.fd(), answer, sizeof answer, 0);
    return std::string(answer, size < 0 ? 0 : static_cast<std::size_t>(size));
}

#endif
