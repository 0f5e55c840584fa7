// SPDX-License-Identifier: Apache-2.0
#include "probe.h"
#include "platform/socket.h"
#include <errno.h>

namespace kpi {

Probe::Answer Probe::attempt(uint16_t port, bool from_other)
{
    // Only a refusal is known to leave the socket usable.
    if (!pending_ && errno_ != ECONNREFUSED)
        socket_.reset();
    if (!socket_) {
        errno_ = sys::make_probe(from_other, socket_);
        if (errno_ != 0)
            return Answer::Impossible;
    }
    return judge(sys::connect_probe(socket_, port));
}

Probe::Answer Probe::judge(int result)
{
    pending_ = result == EINPROGRESS;
    errno_ = pending_ ? 0 : result;
    if (pending_)
        return Answer::Pending;
    return result == 0 ? Answer::Accepted : Answer::Refused;
}

void Probe::close()
{
    socket_.reset();
    pending_ = false;
}

} // namespace kpi
