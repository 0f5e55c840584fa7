// SPDX-License-Identifier: Apache-2.0
#include "platform/host.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

// The only global state of the library. A page that the kernel wipes in every forked child holds
// the process's generation: getpid() can't tell parent and child apart where each is pid 1 of its
// own pid namespace. `last` is copied by a fork, so a child's generation is not its parent's. With
// the compiler's own atomics: std::atomic calls into libstdc++ under _GLIBCXX_ASSERTIONS.
// 32 bits, since wider ones need libatomic on some machines.
uint32_t *page;
uint32_t last;
uint32_t no_page; // stands for one where the kernel can't wipe (before 4.14)

template <typename Value>
Value load(Value *from)
{
    return __atomic_load_n(from, __ATOMIC_SEQ_CST);
}

// Returns what is there afterwards: `fresh`, or what another thread has put there first.
template <typename Value>
Value put_first(Value *to, Value fresh)
{
    Value expected = {};
    bool first = __atomic_compare_exchange_n(to, &expected, fresh, false, __ATOMIC_SEQ_CST,
                                             __ATOMIC_SEQ_CST);
    return first ? fresh : expected;
}

uint32_t *map_page()
{
    size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return put_first(&page, &no_page);
    uint32_t *made = static_cast<uint32_t *>(memory);
    bool wiped = madvise(memory, size, MADV_WIPEONFORK) == 0;
    uint32_t *kept = put_first(&page, wiped ? made : &no_page);
    if (kept != made)
        munmap(memory, size);
    return kept;
}

} // namespace

uint64_t generation()
{
    uint32_t *own = load(&page);
    if (own == nullptr)
        own = map_page();
    if (own == &no_page)
        return static_cast<uint64_t>(getpid());
    uint32_t number = load(own);
    return number != 0 ? number : put_first(own, __atomic_add_fetch(&last, 1, __ATOMIC_SEQ_CST));
}

// A namespace that has no process yet can't be read, nor can a link that the system has not got
// (before Linux 4.12). Two readings cost 6 microseconds.
bool spawns_among_its_own()
{
    constexpr char kChildren[] = "/proc/thread-self/ns/pid_for_children";
    char own[32], childrens[32];
    struct stat link;
    ssize_t size = readlink("/proc/thread-self/ns/pid", own, sizeof own);
    if (size < 0)
        return true;
    ssize_t childrens_size = readlink(kChildren, childrens, sizeof childrens);
    if (childrens_size < 0)
        return errno != ENOENT || lstat(kChildren, &link) != 0;
    return childrens_size == size && memcmp(own, childrens, static_cast<size_t>(size)) == 0;
}

} // namespace kpi::sys
