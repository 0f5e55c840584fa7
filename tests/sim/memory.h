// SPDX-License-Identifier: Apache-2.0
// The memory of the core: what it allocates goes through here (--wrap).
#pragma once

#include <stddef.h>
#include <vector>

namespace sim {

// What the core has allocated, with its contents: the memory of a process that forks.
class Memory {
  public:
    Memory();  // as it is now; until the end of this nothing of it is freed
    ~Memory(); // as it was
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

  private:
    struct Block {
        void *place;
        std::vector<char> bytes;
    };
    std::vector<Block> blocks_;
};

// A new world has none.
void forget_memory();

} // namespace sim
