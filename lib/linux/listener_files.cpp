// SPDX-License-Identifier: Apache-2.0
// The list of listeners by proc_net(5), for hosts that are refused netlink: by a seccomp filter, by
// systemd's RestrictAddressFamilies, by gVisor. It tells of every connection, too, and not whether
// a listener is for IPv6 alone or bound to a device: such a one counts as reached.
#include "listeners.h"
#include "platform/listener.h"
#include "posix/descriptors.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

namespace kpi {

namespace {

constexpr uint8_t kLoopbackV4[4] = {127, 0, 0, 1};
constexpr uint8_t kAny[16] = {};

} // namespace

bool is_reached(const uint8_t *address, bool v6_only)
{
    if (memcmp(address, sys::kMapped, sizeof sys::kMapped) == 0)
        return memcmp(address + 12, kLoopbackV4, 4) == 0 || memcmp(address + 12, kAny, 4) == 0;
    return memcmp(address, kAny, sizeof kAny) == 0 && !v6_only;
}

namespace sys {

namespace {

// By the thread: its network namespace may be one of its own.
constexpr char kFiles[][27] = {"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"};
constexpr int kFileCount = sizeof kFiles / sizeof *kFiles;

// One word of 32 bits or four, each as the machine has it in memory.
void read_address(const char *digits, uint8_t *address)
{
    size_t words = strlen(digits) / 8;
    memcpy(address, kMapped, sizeof kMapped);
    uint8_t *to = words == 1 ? address + sizeof kMapped : address;
    for (size_t i = 0; i < words; ++i) {
        uint32_t word = 0;
        sscanf(digits + i * 8, "%8" SCNx32, &word);
        memcpy(to + i * sizeof word, &word, sizeof word);
    }
}

// False: it is none.
bool read_listener(const char *line, Listener &listener)
{
    char digits[33];
    unsigned port, state, uid;
    if (sscanf(line, " %*u: %32[0-9A-F]:%x %*[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %u %*u %" SCNu64,
               digits, &port, &state, &uid, &listener.socket) != 5)
        return false;
    if (state != kListenState || listener.socket == 0)
        return false;
    listener.port = static_cast<uint16_t>(port);
    listener.uid = uid;
    read_address(digits, listener.address);
    listener.reached = is_reached(listener.address, false);
    return true;
}

} // namespace

// Without IPv6 there is no second one.
bool Listeners::open_file()
{
    if (files_ == kFileCount)
        return false;
    source_ = lifted(open(kFiles[files_++], O_RDONLY | O_CLOEXEC));
    at_ = length_ = 0;
    if (!source_)
        fail();
    complete_ = !source_ && files_ == kFileCount && errno == ENOENT;
    return static_cast<bool>(source_);
}

// NULL: that was all, or it can't be read on.
char *Listeners::read_line()
{
    for (;;) {
        char *line = buffer_ + at_;
        char *end = static_cast<char *>(memchr(line, '\n', length_ - at_));
        if (end != nullptr) {
            *end = '\0';
            at_ = static_cast<size_t>(end + 1 - buffer_);
            return line;
        }
        memmove(buffer_, line, length_ - at_);
        length_ -= at_;
        at_ = 0;
        ssize_t count = read(source_.get(), buffer_ + length_, sizeof buffer_ - length_);
        if (count <= 0) {
            if (count < 0)
                fail();
            return nullptr;
        }
        length_ += static_cast<size_t>(count);
    }
}

bool Listeners::next_line(Listener &listener)
{
    while (source_ || open_file()) {
        while (const char *line = read_line())
            if (read_listener(line, listener) && (port_ == 0 || listener.port == port_))
                return true;
        if (!source_)
            return false;
        source_.reset();
        complete_ = files_ == kFileCount;
    }
    return false;
}

} // namespace sys

} // namespace kpi
