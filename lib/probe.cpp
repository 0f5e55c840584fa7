// SPDX-License-Identifier: Apache-2.0
#include "probe.h"
#include "platform/clock.h"
#include "platform/socket.h"
#include <errno.h>

namespace kpi {

namespace {

// How long a proxy may take to say the rest and to close, and how much that may be. Of six proxies
// that were tried mitmdump took longest, 20 ms.
constexpr int64_t kEndTime = 100 * kMillisecond;
constexpr int64_t kMostUnread = 65536;

} // namespace

void Probe::begin(uint16_t port, bool from_other, bool no_trace)
{
    close();
    port_ = port;
    from_other_ = from_other;
    no_trace_ = no_trace;
    errno_ = 0;
    heard_ = Heard::Nothing;
}

Probe::Answer Probe::attempt()
{
    if (phase_ == Phase::Asking)
        return listen();
    if (phase_ == Phase::Ending)
        return drain();
    if (phase_ == Phase::Connecting) {
        int result = sys::connect_probe(socket_, port_);
        if (result != EINPROGRESS)
            return judge(result);
        // Its backlog was full. The kernel asks again after one second, then two, then four; a new
        // connection asks at once.
        close();
    }
    if (errno_ != ECONNREFUSED || !sys::kReusesRefused)
        socket_.reset();
    if (!socket_) {
        errno_ = make_socket(from_other_);
        if (errno_ != 0)
            return Answer::Impossible;
    }
    return judge(sys::connect_probe(socket_, port_));
}

Probe::Answer Probe::judge(int result)
{
    bool pending = result == EINPROGRESS;
    bool met_itself = result == 0 && from_other_ && sys::meets_itself(socket_);
    if (met_itself)
        result = ECONNREFUSED;
    errno_ = pending ? 0 : result;
    enter(pending ? Phase::Connecting : Phase::Idle);
    if (met_itself)
        socket_.reset();
    if (pending)
        return Answer::Pending;
    return result == 0 ? Answer::Connected : Answer::Refused;
}

void Probe::ask()
{
    bool is_connected = socket_ && !from_other_; // else, or after an earlier answer, it is not
    if (!is_connected && !connect_as_clients_do())
        return close();
    status_line_ = StatusLine();
    if (heard_ == Heard::Nothing)
        heard_ = Heard::Silence;
    enter(Phase::Asking);
    errno_ = sys::send_probe(socket_, kHttpQuestion, sizeof kHttpQuestion - 1);
    if (errno_ != 0)
        close();
}

// Proxies let 127.0.0.1 in, and not always 127.0.0.2. While somebody listens the kernel gives the
// port to no connection; if nobody does any more, a probe may meet itself.
bool Probe::connect_as_clients_do()
{
    close();
    errno_ = make_socket(false);
    if (errno_ == 0)
        errno_ = sys::connect_probe(socket_, port_);
    return errno_ == 0 && !sys::meets_itself(socket_);
}

int Probe::make_socket(bool from_other)
{
    int result = sys::make_probe(from_other, socket_);
    if (result == 0 && no_trace_)
        sys::leave_no_trace(socket_);
    return result;
}

Probe::Answer Probe::listen()
{
    char buffer[256];
    size_t count = 0;
    int result;
    while ((result = sys::receive_probe(socket_, buffer, sizeof buffer, count)) == 0 &&
           count != 0) {
        switch (status_line_.read(buffer, count)) {
        case StatusLine::Answer::Http:
            return await_end();
        case StatusLine::Answer::Other:
            return give_up(Heard::Other, Answer::NotHttp);
        case StatusLine::Answer::Endless:
            return give_up(Heard::Endless, Answer::NotHttp);
        case StatusLine::Answer::Unfinished:
            break;
        }
    }
    if (result == EAGAIN)
        return Answer::Pending;
    // As docker's port forwarder does while its container has not opened the port yet.
    return give_up(Heard::Closed, Answer::Refused);
}

// To close while the proxy has more to say would reset the connection, and proxies report that.
// Those that keep it for a next question close it once none can come. But where both ends close it
// at the same time, a trace is left.
Probe::Answer Probe::await_end()
{
    heard_ = Heard::Nothing;
    ends_by_ = Deadline::after(sys::now(), kEndTime);
    unread_ = kMostUnread;
    phase_ = Phase::Ending; // watched as before
    if (!no_trace_)
        sys::finish_probe(socket_);
    return drain();
}

Probe::Answer Probe::drain()
{
    char buffer[1024];
    size_t count = 0;
    while (unread_ > 0) {
        int result = sys::receive_probe(socket_, buffer, sizeof buffer, count);
        if (result == EAGAIN && !ends_by_.passed(sys::now()))
            return Answer::Pending;
        bool ended = result != 0 || count == 0;
        unread_ = ended ? 0 : unread_ - static_cast<int64_t>(count);
    }
    return give_up(Heard::Nothing, Answer::Http);
}

Probe::Answer Probe::give_up(Heard heard, Answer answer)
{
    heard_ = heard;
    close();
    return answer;
}

void Probe::enter(Phase phase)
{
    if (watched_)
        poller_.forget(socket_.get());
    phase_ = phase;
    watched_ = is_waiting() && poller_.watch(watch());
}

void Probe::close()
{
    enter(Phase::Idle);
    socket_.reset();
}

} // namespace kpi
