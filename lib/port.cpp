// SPDX-License-Identifier: Apache-2.0
#include "port.h"
#include "error.h"
#include "listener.h"
#include "platform/socket.h"
#include "spec.h"
#include <errno.h>
#include <stdio.h>

namespace kpi {

namespace {

kp_result fail_reserve(uint16_t port, int sys_errno, kp_error *error)
{
    if (sys_errno == EADDRINUSE && port != 0)
        return fail_port_in_use(error, port, find_stranger(port));
    char doing[40] = "reserve a port on 127.0.0.1";
    if (port != 0)
        snprintf(doing, sizeof doing, "reserve 127.0.0.1:%u", port);
    return fail_system(error, sys_errno, doing);
}

} // namespace

kp_result Port::open(const kp_spec &spec, kp_error *error)
{
    if (has(spec, KP_SPEC_ATTACH)) {
        if (number_ == 0) // once: other threads may read it at any time
            number_ = static_cast<uint16_t>(spec.port);
        return KP_OK;
    }
    if (!reservation_) {
        uint16_t number = number_ != 0 ? number_ : static_cast<uint16_t>(spec.port);
        int result = sys::reserve_port(number, reservation_);
        if (result != 0)
            return fail_reserve(number, result, error);
        if (number_ == 0) // once, too
            number_ = number;
    }
    int result = sys::open_reservation(reservation_, true);
    if (result != 0)
        return fail_reserve(number_, result, error);
    if (has(spec, KP_SPEC_NO_RESERVE) || !sys::can_share(number_))
        reservation_.reset();
    return KP_OK;
}

void Port::shut()
{
    if (reservation_)
        sys::open_reservation(reservation_, false);
}

} // namespace kpi
