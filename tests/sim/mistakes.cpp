// SPDX-License-Identifier: Apache-2.0
#include "mistakes.h"
#include "guard.h"
#include "platform/process.h"
#include "platform/socket.h"
#include "platform/wait.h"
#include <signal.h>
#include <stdio.h>

using namespace kpi;

namespace {

// machine.c teaches both.
constexpr const char *kBriefly = "briefly"; // it exits after 1 ms
constexpr const char *kForEver = "for ever";

sys::Process spawned(const char *program = kBriefly, pid_t group = 0)
{
    // The complaint is expected.
    if (freopen("/dev/null", "w", stderr) == nullptr)
        return {};
    sys::Launch launch = {};
    char *none[] = {nullptr};
    launch.program = program;
    launch.argv = launch.env = none;
    launch.output = -1;
    launch.group = group;
    sys::Process child;
    bool lost = false;
    sys::spawn(launch, child, lost);
    return child;
}

sys::Process ended()
{
    sys::Process child = spawned();
    sys::Watch end = {child.end.get(), false};
    sys::Waiter(false).block(&end, 1, Deadline::never());
    return child;
}

sys::Process reaped()
{
    sys::Process child = ended();
    sys::reap(child);
    return child;
}

} // namespace

void mistake_none()
{
    sys::Process child = ended();
    sys::signal_number(child.pid, SIGTERM);
    sys::signal_group_number(child.pid, SIGTERM);
    sys::reap(child);
}

void mistake_signal_a_stranger()
{
    sys::signal_number(reaped().pid, SIGTERM);
}

void mistake_signal_a_strangers_group()
{
    sys::signal_group_number(reaped().pid, SIGTERM);
}

void mistake_close_twice()
{
    Fd end = static_cast<Fd &&>(spawned().end);
    sys::close_fd(end.get());
}

void mistake_use_a_closed_descriptor()
{
    sys::Process child = spawned();
    sys::close_fd(child.end.get());
    sys::signal(child, SIGTERM);
}

void mistake_close_what_is_watched()
{
    sys::Process child = spawned();
    sys::Poller poller;
    poller.open();
    poller.watch({child.end.get(), false});
    child.end.reset();
}

void mistake_reap_twice()
{
    sys::reap(reaped());
}

void mistake_reap_the_living()
{
    sys::reap(spawned());
}

void mistake_block_for_ever()
{
    reaped();
    sys::Waiter(false).block(nullptr, 0, Deadline::never());
}

void mistake_spin()
{
    sys::Process child = ended();
    sys::Watch end = {child.end.get(), false};
    for (;;)
        sys::Waiter(false).block(&end, 1, Deadline::never());
}

void mistake_probe_without_reservation()
{
    spawned();
    Fd probe;
    sys::make_probe(false, probe);
    sys::connect_probe(probe, 8080);
}

// The guard is dying when the proxy joins its group.
void mistake_leave_an_orphan()
{
    Child guard;
    Fd pipe;
    start_guard(0, guard, pipe, nullptr);
    guard.signal(SIGKILL);
    sys::Process child = spawned(kForEver, guard.pid());
    child.end.reset();
}
