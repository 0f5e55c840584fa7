// SPDX-License-Identifier: Apache-2.0
// Where the choices of a random life come from: a seed, or a string of bytes such as a fuzzer's.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sim {

class Chooser {
  public:
    // Behind the last byte, and where there is none at all, each choice is 0: the tamest one.
    Chooser() = default;
    Chooser(const uint8_t *bytes, size_t size) : bytes_(bytes), left_(size) {}
    explicit Chooser(uint64_t seed) : seeded_(true), state_(seed) {}

    // 0 to `count` - 1.
    uint32_t pick(uint32_t count);

    // What does not happen unless it is chosen.
    bool once_in(uint32_t count) { return pick(count) == count - 1; }

    // Both ends included. Each order of magnitude is as likely as any other.
    int64_t between(int64_t least, int64_t most);

    // Whether there is anything left to choose by.
    bool is_spent() const { return !seeded_ && left_ == 0; }

  private:
    uint32_t next_number();
    uint32_t next_byte();

    const uint8_t *bytes_ = nullptr;
    size_t left_ = 0;
    bool seeded_ = false;
    uint64_t state_ = 0;
};

} // namespace sim
