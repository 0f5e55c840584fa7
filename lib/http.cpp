// SPDX-License-Identifier: Apache-2.0
#include "http.h"

namespace kpi {

namespace {

// Of a status line (RFC 9112, section 4); d is a digit.
constexpr char kPattern[] = "HTTP/1.d ddd";

bool matches(char byte, char pattern)
{
    return pattern == 'd' ? byte >= '0' && byte <= '9' : byte == pattern;
}

} // namespace

void StatusLine::keep(char byte)
{
    if (kept_ + 1 == sizeof text_)
        return;
    bool prints = byte >= ' ' && byte <= '~';
    text_[kept_++] = prints ? byte : '?';
}

// What is something else is read on to the end of its first line, for a message.
StatusLine::Answer StatusLine::read(const char *bytes, size_t count)
{
    bool is_other = false;
    for (size_t i = 0; i < count; ++i, ++length_) {
        bool ends = bytes[i] == '\n' || bytes[i] == '\r';
        if (length_ < sizeof kPattern - 1 && !matches(bytes[i], kPattern[length_]))
            is_other = true;
        if (is_other && ends && length_ != 0)
            break;
        if (!is_other && bytes[i] == '\n')
            return Answer::Http;
        if (!is_other && length_ == kLongest)
            return Answer::Endless;
        if (!ends || length_ == 0)
            keep(bytes[i]);
    }
    return is_other ? Answer::Other : Answer::Unfinished;
}

} // namespace kpi
