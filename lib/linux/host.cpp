// SPDX-License-Identifier: Apache-2.0
#include "platform/host.h"
#include <atomic>
#include <sys/mman.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

// The only global state of the library. A page that the kernel wipes in every forked child holds
// the process's generation: getpid() can't tell parent and child apart where each is pid 1 of its
// own pid namespace. `last` is copied by a fork, so a child's generation is not its parent's.
using Generation = std::atomic<uint64_t>;
std::atomic<Generation *> page;
std::atomic<uint64_t> last;

Generation *map_page()
{
    size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return nullptr;
    Generation *expected = nullptr;
    if (madvise(memory, size, MADV_WIPEONFORK) == 0 &&
        page.compare_exchange_strong(expected, static_cast<Generation *>(memory)))
        return static_cast<Generation *>(memory);
    munmap(memory, size);
    return expected; // another thread's; none where the kernel can't wipe (before 4.14)
}

} // namespace

char **environment()
{
    static char *none[] = {nullptr};
    return environ == nullptr ? none : environ;
}

uint64_t generation()
{
    Generation *own = page.load();
    if (own == nullptr)
        own = map_page();
    if (own == nullptr)
        return static_cast<uint64_t>(getpid());
    uint64_t number = own->load();
    if (number == 0) {
        uint64_t fresh = ++last;
        number = own->compare_exchange_strong(number, fresh) ? fresh : number;
    }
    return number;
}

} // namespace kpi::sys
