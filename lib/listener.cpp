// SPDX-License-Identifier: Apache-2.0
#include "listener.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

namespace kpi {

namespace {

Stranger identify(const sys::Listener &listener)
{
    Stranger stranger;
    sys::Holder holder;
    stranger.uid = listener.uid;
    stranger.known = Stranger::User;
    if (sys::find_holder(listener.socket, holder)) {
        stranger.known = Stranger::Program;
        stranger.pid = holder.pid;
        snprintf(stranger.name, sizeof stranger.name, "%s", holder.name);
    }
    return stranger;
}

// An owner outside that was found before is kept.
void set_failed(Verdict &verdict, int sys_errno)
{
    verdict.whose = Verdict::Failed;
    verdict.sys_errno = sys_errno;
}

// `kin`: NULL: the proxy was attached, and its processes aren't known.
int judge(const sys::Listener &listener, const sys::Kin *kin, sys::Owner &owner,
          sys::Process &outside)
{
    if (kin != nullptr)
        return sys::find_owner(listener, *kin, owner, outside);
    owner = sys::is_trusted(listener.uid) ? sys::Owner::Kin : sys::Owner::Other;
    return 0;
}

Verdict judge_each(uint16_t port, const sys::Kin *kin)
{
    Verdict verdict;
    sys::Listeners listeners(port);
    sys::Listener listener;
    while (listeners.next(listener)) {
        if (!listener.reached)
            continue;
        sys::Owner owner = sys::Owner::Unknown;
        int result = judge(listener, kin, owner, verdict.outside);
        if (result != 0) {
            set_failed(verdict, result);
            return verdict;
        }
        if (owner == sys::Owner::Other) {
            verdict.whose = Verdict::Other;
            verdict.stranger = identify(listener);
            return verdict;
        }
        if (verdict.whose != Verdict::Unknown)
            verdict.whose = owner == sys::Owner::Kin ? Verdict::Proxy : Verdict::Unknown;
    }
    if (listeners.shortage() != 0)
        set_failed(verdict, listeners.shortage());
    else if (!listeners.is_complete())
        verdict.whose = sys::tells_listeners() ? Verdict::Untold : Verdict::Unknown;
    return verdict;
}

// Not if nobody is seen to hold it, or one of the kin after all: that took it over meanwhile.
bool is_certain(const Stranger &stranger, const sys::Kin &kin)
{
    return stranger.known == Stranger::Program && !sys::may_be_kin(stranger.pid, kin);
}

} // namespace

Verdict verify(uint16_t port, const sys::Kin &kin)
{
    Verdict verdict = judge_each(port, &kin);
    if (verdict.whose == Verdict::Other && !is_certain(verdict.stranger, kin))
        verdict.whose = Verdict::Doubtful;
    return verdict;
}

Verdict verify_attached(uint16_t port)
{
    return judge_each(port, nullptr);
}

Stranger find_stranger(uint16_t port)
{
    sys::Listeners listeners(port);
    sys::Listener listener;
    while (listeners.next(listener))
        if (listener.reached)
            return identify(listener);
    return Stranger();
}

namespace {

bool contains(const uint64_t *sockets, size_t count, uint64_t socket)
{
    for (size_t i = 0; i < count; ++i)
        if (sockets[i] == socket)
            return true;
    return false;
}

void write_address(const sys::Listener &listener, char *text, size_t size)
{
    bool v4 = memcmp(listener.address, sys::kMapped, sizeof sys::kMapped) == 0;
    char address[INET6_ADDRSTRLEN] = "";
    inet_ntop(v4 ? AF_INET : AF_INET6, listener.address + (v4 ? sizeof sys::kMapped : 0), address,
              sizeof address);
    snprintf(text, size, v4 ? "%s:%u" : "[%s]:%u", address, listener.port);
}

} // namespace

void find_elsewhere_attached(uint16_t port, char *text, size_t size)
{
    text[0] = '\0';
    sys::Listeners listeners(port);
    sys::Listener listener;
    while (listeners.next(listener))
        if (!listener.reached)
            write_address(listener, text, size);
}

void find_elsewhere(uint16_t port, const sys::Kin &kin, char *text, size_t size)
{
    constexpr size_t kMost = 256;
    uint64_t sockets[kMost];
    size_t count = sys::find_sockets(kin, sockets, kMost);
    text[0] = '\0';
    if (count == 0)
        return;
    sys::Listeners listeners(0);
    sys::Listener listener;
    while (listeners.next(listener))
        if (contains(sockets, count, listener.socket) &&
            !(listener.reached && listener.port == port) &&
            (text[0] == '\0' || listener.port == port))
            write_address(listener, text, size);
}

} // namespace kpi
