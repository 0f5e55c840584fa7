// SPDX-License-Identifier: Apache-2.0
#include "log.h"
#include "error.h"
#include "platform/file.h"
#include <string.h>

namespace kpi {

namespace {

constexpr int kStandardError = 2;

bool is_continuation(char byte)
{
    return (static_cast<unsigned char>(byte) & 0xc0) == 0x80;
}

// Where the first whole line begins, of a text that does not end with a newline; in a single long
// line, the first whole UTF-8 character.
size_t whole_start(const char *text, size_t length)
{
    const char *newline = static_cast<const char *>(memchr(text, '\n', length));
    if (newline != nullptr)
        return static_cast<size_t>(newline + 1 - text);
    size_t start = 0;
    while (start < length && is_continuation(text[start]))
        ++start;
    return start;
}

size_t without_newlines(const char *text, size_t length)
{
    while (length > 0 && text[length - 1] == '\n')
        --length;
    return length;
}

} // namespace

kp_result Log::open(int log_fd, kp_error *error)
{
    if (log_fd == 0)
        return KP_OK;
    int result = sys::duplicate(log_fd, copy_);
    return result == 0 ? KP_OK : fail_system(error, result, "duplicate spec.log_fd");
}

// What is close-on-exec is nobody's standard error: some file of a host that has closed that, or,
// for a moment, a descriptor of another handle's.
int Log::shared() const
{
    if (copy_)
        return copy_.get();
    return sys::is_inherited(kStandardError) ? kStandardError : -1;
}

int Log::target(Fd &own) const
{
    int number = shared();
    if (number >= 0)
        own = sys::reopen(number);
    return own ? own.get() : number;
}

void Log::mark()
{
    if (copy_)
        start_ = sys::regular_file_size(copy_.get());
}

void Log::quote(char *text, size_t size) const
{
    text[0] = '\0';
    int64_t end = copy_ ? sys::regular_file_size(copy_.get()) : -1;
    if (start_ < 0 || end <= start_)
        return;
    int64_t room = static_cast<int64_t>(size) - 1;
    bool cut = end - start_ > room;
    int64_t from = cut ? end - room : start_;
    size_t length = sys::read_file(copy_.get(), from, text, static_cast<size_t>(end - from));
    length = without_newlines(text, length);
    size_t skip = cut ? whole_start(text, length) : 0;
    memmove(text, text + skip, length - skip);
    text[length - skip] = '\0';
    for (char *byte = text; byte < text + length - skip; ++byte)
        if (*byte == '\0')
            *byte = '?';
}

} // namespace kpi
