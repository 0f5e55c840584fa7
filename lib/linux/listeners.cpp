// SPDX-License-Identifier: Apache-2.0
// The list of listeners, by sock_diag(7).
#include "listeners.h"
#include "platform/listener.h"
#include "posix/descriptors.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

namespace kpi::sys {

namespace {

constexpr uint32_t kLoopbackDevice = 1; // in every network namespace

struct Request {
    nlmsghdr header;
    inet_diag_req body;
};

// The older of two ways to ask: it tells of both families at once, in 13 microseconds instead
// of 20.
Request request_for(uint16_t port)
{
    Request request = {};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = TCPDIAG_GETSOCK;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.body.idiag_states = 1u << kListenState;
    request.body.id.idiag_sport = htons(port);
    return request;
}

// The option is told in an attribute.
bool is_v6_only(const char *attributes, size_t length)
{
    nlattr head;
    for (size_t at = 0; at + sizeof head < length; at += (head.nla_len + 3u) & ~3u) {
        memcpy(&head, attributes + at, sizeof head);
        if (head.nla_len <= sizeof head || head.nla_len > length - at)
            break;
        if (head.nla_type == INET_DIAG_SKV6ONLY)
            return attributes[at + sizeof head] != 0;
    }
    return false;
}

void copy_address(const inet_diag_msg &message, uint8_t *address)
{
    if (message.idiag_family == AF_INET6) {
        memcpy(address, message.id.idiag_src, 16);
    } else {
        memcpy(address, kMapped, sizeof kMapped);
        memcpy(address + 12, message.id.idiag_src, 4);
    }
}

bool is_bound_elsewhere(const inet_diag_msg &message)
{
    return message.id.idiag_if != 0 && message.id.idiag_if != kLoopbackDevice;
}

} // namespace

bool tells_listeners()
{
    return true;
}

Listeners::Listeners(uint16_t port)
    : port_(port), source_(lifted(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)))
{
    Request request = request_for(port);
    if (!source_ || send(source_.get(), &request, sizeof request, 0) < 0)
        fail();
}

void Listeners::fail()
{
    shortage_ = is_want(errno) ? errno : 0;
    source_.reset();
}

// The kernel has the next piece ready before the last was read: there is nothing to wait for.
bool Listeners::receive()
{
    ssize_t length;
    do
        length = recv(source_.get(), buffer_, sizeof buffer_, MSG_DONTWAIT);
    while (length < 0 && errno == EINTR);
    at_ = 0;
    length_ = length > 0 ? static_cast<size_t>(length) : 0;
    if (length < 0)
        fail();
    return length_ != 0;
}

// The message at `at_`; false: it is no listener, and the caller looks on.
bool Listeners::take(Listener &listener)
{
    nlmsghdr header;
    inet_diag_msg message;
    memcpy(&header, buffer_ + at_, sizeof header);
    const char *body = buffer_ + at_ + NLMSG_HDRLEN;
    size_t size = header.nlmsg_len - NLMSG_HDRLEN;
    at_ += NLMSG_ALIGN(header.nlmsg_len);
    if (at_ > length_)
        at_ = length_;
    if (size < sizeof message)
        return false;
    memcpy(&message, body, sizeof message);
    if (message.idiag_inode == 0) // it is being closed
        return false;
    listener.socket = message.idiag_inode;
    listener.uid = message.idiag_uid;
    listener.port = ntohs(message.id.idiag_sport);
    copy_address(message, listener.address);
    bool v6_only = is_v6_only(body + NLMSG_ALIGN(sizeof message), size - sizeof message);
    listener.reached = !is_bound_elsewhere(message) && is_reached(listener.address, v6_only);
    return true;
}

// The end comes with an error number where the list was cut short, or was never begun.
void Listeners::finish(size_t length)
{
    int result = 0;
    if (length >= NLMSG_HDRLEN + sizeof result)
        memcpy(&result, buffer_ + at_ + NLMSG_HDRLEN, sizeof result);
    complete_ = result >= 0;
    errno = -result;
    if (!complete_)
        fail();
}

bool Listeners::next_message(Listener &listener)
{
    while (source_) {
        nlmsghdr header;
        if (length_ - at_ < sizeof header && !receive())
            break;
        memcpy(&header, buffer_ + at_, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > length_ - at_)
            break;
        if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR) {
            finish(header.nlmsg_len);
            break;
        }
        if (take(listener))
            return true;
    }
    source_.reset();
    return false;
}

bool Listeners::next(Listener &listener)
{
    if (files_ == 0 && next_message(listener))
        return true;
    return !complete_ && shortage_ == 0 && next_line(listener);
}

} // namespace kpi::sys
