// SPDX-License-Identifier: Apache-2.0
#include "platform/host.h"
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

// What is known of the process, 0 at first. 32 bits, since wider atomics need libatomic on some
// machines.
struct Known {
    uint32_t generation;
    uint32_t pid_namespace; // the inode
};

// The only global state of the library. A page that the kernel wipes in every forked child holds
// what is known of the process: getpid() can't tell parent and child apart where each is pid 1 of
// its own pid namespace. `last` is copied by a fork, so a child's generation is not its parent's.
// With the compiler's own atomics: std::atomic calls into libstdc++ under _GLIBCXX_ASSERTIONS.
Known *page;
uint32_t last;
Known no_page; // stands for one where the kernel can't wipe (before 4.14)

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

Known *map_page()
{
    size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return put_first(&page, &no_page);
    Known *made = static_cast<Known *>(memory);
    bool wiped = madvise(memory, size, MADV_WIPEONFORK) == 0;
    Known *kept = put_first(&page, wiped ? made : &no_page);
    if (kept != made)
        munmap(memory, size);
    return kept;
}

// NULL where nothing can be kept that a child must not inherit.
Known *known()
{
    Known *own = load(&page);
    if (own == nullptr)
        own = map_page();
    return own != &no_page ? own : nullptr;
}

// The inode of a pid namespace; 0: none can be read, and errno says why.
uint32_t namespace_behind(const char *link)
{
    char name[32] = "";
    unsigned inode = 0;
    if (readlink(link, name, sizeof name - 1) > 0)
        sscanf(name, "pid:[%u]", &inode);
    return inode;
}

// Kept, as it can't change; a reading costs 2.6 microseconds.
uint32_t own_namespace()
{
    Known *own = known();
    uint32_t inode = own != nullptr ? load(&own->pid_namespace) : 0;
    if (inode == 0)
        inode = namespace_behind("/proc/thread-self/ns/pid");
    if (own != nullptr)
        put_first(&own->pid_namespace, inode);
    return inode;
}

} // namespace

uint64_t generation()
{
    Known *own = known();
    if (own == nullptr)
        return static_cast<uint64_t>(getpid());
    uint32_t number = load(&own->generation);
    if (number != 0)
        return number;
    return put_first(&own->generation, __atomic_add_fetch(&last, 1, __ATOMIC_SEQ_CST));
}

// A namespace that has no process yet can't be read, nor can a link that the system has not got
// (before Linux 4.12).
bool spawns_among_its_own()
{
    constexpr char kChildren[] = "/proc/thread-self/ns/pid_for_children";
    uint32_t own = own_namespace();
    if (own == 0)
        return true;
    uint32_t childrens = namespace_behind(kChildren);
    struct stat link;
    if (childrens == 0)
        return errno != ENOENT || lstat(kChildren, &link) != 0;
    return childrens == own;
}

} // namespace kpi::sys
