// SPDX-License-Identifier: Apache-2.0
#include "http.h"
#include <string.h>

namespace kpi {

namespace {

// Of a status line (RFC 9112, section 4); d is a digit.
constexpr char kPattern[] = "HTTP/1.d ddd";

bool matches(char byte, char pattern)
{
    return pattern == 'd' ? byte >= '0' && byte <= '9' : byte == pattern;
}

} // namespace

StatusLine::Answer StatusLine::read(const char *bytes, size_t count)
{
    size_t kept = strlen(text_), room = sizeof text_ - 1 - kept;
    memcpy(text_ + kept, bytes, count < room ? count : room);
    for (size_t i = 0; i < count; ++i, ++length_) {
        if (length_ < sizeof kPattern - 1 && !matches(bytes[i], kPattern[length_]))
            return Answer::Other;
        if (bytes[i] == '\n')
            return Answer::Http;
        if (length_ == kLongest)
            return Answer::Endless;
    }
    return Answer::Unfinished;
}

} // namespace kpi
