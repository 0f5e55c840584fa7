// SPDX-License-Identifier: Apache-2.0
#include "upstream.h"
#include <stddef.h>
#include <string.h>
#include <strings.h>

namespace kpi {

namespace {

struct Part {
    const char *start;
    size_t length;

    const char *end() const { return start + length; }
    bool starts_with(const char *text) const
    {
        size_t size = strlen(text);
        return length >= size && strncasecmp(start, text, size) == 0;
    }
    bool ends_with(const char *text) const
    {
        size_t size = strlen(text);
        return length >= size && strncasecmp(end() - size, text, size) == 0;
    }
    bool is(const char *text) const { return length == strlen(text) && starts_with(text); }
    Part without(size_t size) const { return {start + size, length - size}; }
    Part until(const char *here) const { return {start, static_cast<size_t>(here - start)}; }
};

// HTTP_PROXY and its many like. What is a list of those who need no proxy is none.
bool is_proxy_name(const Part &name)
{
    return name.ends_with("_proxy") && !name.starts_with("no_") && !name.ends_with("_no_proxy");
}

// The last one; NULL: there is none.
const char *find_last(const Part &part, char wanted)
{
    for (const char *at = part.end(); at > part.start; --at)
        if (at[-1] == wanted)
            return at - 1;
    return nullptr;
}

// Of [SCHEME://][USER[:PASSWORD]@]HOST[:PORT][/...] the part HOST[:PORT].
Part address_in(const char *url)
{
    const char *scheme_end = strstr(url, "://");
    const char *start = scheme_end != nullptr ? scheme_end + 3 : url;
    Part authority = {start, strcspn(start, "/?#")};
    const char *at = find_last(authority, '@');
    return at == nullptr ? authority : authority.without(static_cast<size_t>(at + 1 - start));
}

bool is_number(const Part &text, unsigned wanted)
{
    unsigned value = 0;
    for (const char *at = text.start; at < text.end(); ++at) {
        if (*at < '0' || *at > '9' || value > UINT16_MAX)
            return false;
        value = value * 10 + static_cast<unsigned>(*at - '0');
    }
    return text.length != 0 && value == wanted;
}

// Also by the addresses that stand for any of this machine's, and by none, which does so to some.
bool is_this_machine(Part host)
{
    if (host.starts_with("[") && host.ends_with("]"))
        host = host.without(1).until(host.end() - 1);
    if (host.starts_with("::ffff:"))
        host = host.without(strlen("::ffff:"));
    bool is_numeric = strspn(host.start, "0123456789.") >= host.length;
    return (host.starts_with("127.") && is_numeric) || host.is("localhost") || host.is("::1") ||
           host.is("0.0.0.0") || host.is("::") || host.length == 0;
}

} // namespace

bool leads_to_itself(const char *variable, uint16_t port)
{
    Part name = {variable, strcspn(variable, "=")};
    if (*name.end() == '\0' || !is_proxy_name(name))
        return false;
    Part address = address_in(name.end() + 1);
    const char *colon = find_last(address, ':');
    if (colon == nullptr || !is_this_machine(address.until(colon)))
        return false;
    return is_number(address.without(static_cast<size_t>(colon + 1 - address.start)), port);
}

} // namespace kpi
