// SPDX-License-Identifier: Apache-2.0
#include "chooser.h"

namespace sim {

// SplitMix64: seeds that follow one another give numbers that don't.
uint32_t Chooser::next_number()
{
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>((mixed ^ (mixed >> 31)) >> 32);
}

uint32_t Chooser::pick(uint32_t count)
{
    return static_cast<uint32_t>(uint64_t{next_number()} * count >> 32);
}

int64_t Chooser::between(int64_t least, int64_t most)
{
    uint32_t steps = 1;
    for (int64_t width = most - least; width >= 4; width /= 4)
        ++steps;
    int64_t width = most - least;
    for (uint32_t step = steps - 1 - pick(steps); step > 0; --step)
        width /= 4;
    return least + width * pick(256) / 255;
}

} // namespace sim
