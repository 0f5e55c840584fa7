// SPDX-License-Identifier: Apache-2.0
// Who listens on the proxy's port.
#pragma once

#include "error.h"
#include "platform/listener.h"

namespace kpi {

// Nobody: no listener is there (any more). Proxy: each one that a connection to 127.0.0.1 may reach
// is the proxy's own. Unknown: the system does not show who holds it, and its user speaks for the
// proxy; or it never tells who listens. Untold: it usually does, and is not allowed to. Other: one
// is somebody else's. Doubtful: one is nobody's that can be seen. It may be of another user's
// process, or of one that is just ending: that holds nothing any more before its sockets close.
// Failed: the host was short of what it takes to find out.
struct Verdict {
    enum { Nobody, Proxy, Unknown, Untold, Doubtful, Other, Failed } whose = Nobody;
    int sys_errno = 0;    // Failed
    Stranger stranger;    // Doubtful and Other
    sys::Process outside; // the owner, where that has left the proxy's group
};

Verdict verify(uint16_t port, const sys::Kin &kin);

// Of a proxy that runs already all that can be asked is whether the user is a trusted one.
Verdict verify_attached(uint16_t port);

// For messages: who is reached at 127.0.0.1:port.
Stranger find_stranger(uint16_t port);

// For messages: where the proxy listens instead, "[::1]:8080", and on the same port if it does; or
// "". Of one that was not started: where somebody listens on the same port.
void find_elsewhere(uint16_t port, const sys::Kin &kin, char *text, size_t size);
void find_elsewhere_attached(uint16_t port, char *text, size_t size);

} // namespace kpi
