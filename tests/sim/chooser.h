// SPDX-License-Identifier: Apache-2.0
// Where the choices of a random life come from: a seed.
#pragma once

#include <stdint.h>

namespace sim {

class Chooser {
  public:
    Chooser() = default;
    explicit Chooser(uint64_t seed) : state_(seed) {}

    // 0 to `count` - 1.
    uint32_t pick(uint32_t count);

    // What does not happen unless it is chosen.
    bool once_in(uint32_t count) { return pick(count) == count - 1; }

    // Both ends included. Each order of magnitude is as likely as any other.
    int64_t between(int64_t least, int64_t most);

  private:
    uint32_t next_number();

    uint64_t state_ = 0;
};

} // namespace sim
