// SPDX-License-Identifier: Apache-2.0
// The proxy's port, and the reservation that keeps it from everybody else.
#pragma once

#include "kp/kp.h"
#include "platform/fd.h"

namespace kpi {

class Port {
  public:
    uint16_t number() const { return number_; }

    // Else it is anybody's from the start of the proxy on.
    bool is_reserved() const { return bool(reservation_); }

    // Reserves the port that the spec names, or after the first time the same one again, and lets
    // the proxy bind beside the reservation. With KP_SPEC_NO_RESERVE, and where the system lets
    // nobody bind beside another, it only makes sure that the port is free; with KP_SPEC_ATTACH
    // nothing: the proxy has it.
    kp_result open(const kp_spec &spec, kp_error *error);

    // Nobody binds it until it is opened again.
    void shut();

    void let_go() { reservation_.reset(); }

  private:
    uint16_t number_ = 0;
    Fd reservation_;
};

} // namespace kpi
