// SPDX-License-Identifier: Apache-2.0
#include "memory.h"
#include "life.h"
#include "world.h"
#include <algorithm>
#include <string.h>

extern "C" {
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void __real_free(void *block);
void __wrap_free(void *block);
}

namespace sim {

namespace {

struct Allocated {
    void *place;
    size_t size;
    bool freed; // by a child, of whom this is the parent's
};

std::vector<Allocated> allocated;
size_t held; // so many of the first are not to be freed

// At the end of the program what counts coverage allocates, too.
bool over;
struct End {
    ~End() { over = true; }
} end;

} // namespace

Memory::Memory()
{
    for (const Allocated &each : allocated) {
        const char *bytes = static_cast<const char *>(each.place);
        blocks_.push_back({each.place, {bytes, bytes + each.size}});
    }
    held = allocated.size();
}

Memory::~Memory()
{
    for (const Block &block : blocks_)
        memcpy(block.place, block.bytes.data(), block.bytes.size());
    for (Allocated &each : allocated)
        each.freed = false;
    held = 0;
}

void forget_memory()
{
    allocated.clear();
}

} // namespace sim

using namespace sim;

void *__wrap_malloc(size_t size)
{
    if (over)
        return __real_malloc(size);
    if (lacks(kMemory))
        return nullptr;
    ++world.blocks;
    void *block = __real_malloc(size);
    allocated.push_back({block, size, false});
    return block;
}

// What was there before this world is not the core's.
void __wrap_free(void *block)
{
    if (over)
        return __real_free(block);
    auto at = std::find_if(allocated.begin(), allocated.end(),
                           [block](const Allocated &each) { return each.place == block; });
    if (block == nullptr || at == allocated.end())
        return __real_free(block);
    if (is_planted(SIM_KEEPS_MEMORY) && world.counts.calls % 10 == 0)
        return;
    if (at->freed)
        complain("free: twice");
    --world.blocks;
    at->freed = true;
    if (static_cast<size_t>(at - allocated.begin()) < held)
        return;
    allocated.erase(at);
    __real_free(block);
}
