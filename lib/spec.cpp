// SPDX-License-Identifier: Apache-2.0
#include "spec.h"
#include "error.h"
#include "list.h"
#include "platform/file.h"
#include <stdlib.h>
#include <string.h>

namespace kpi {

namespace {

constexpr uint32_t kKnownFlags = KP_SPEC_CLEAR_ENV | KP_SPEC_PROBE_HTTP | KP_SPEC_NO_GUARD |
                                 KP_SPEC_NO_RESERVE | KP_SPEC_ANY_LISTENER | KP_SPEC_ATTACH;

// A size beyond this is an uninitialised field rather than a spec from the future.
constexpr size_t kLargestSize = 4096;

// Every member is as large as its alignment asks, so that no byte of padding can be read as a new
// field by a later version.
static_assert(sizeof(kp_spec) == sizeof(size_t) + 6 * sizeof(void *) + 6 * sizeof(uint32_t));
static_assert(sizeof(kp_error) == 1536);

kp_result read_spec(const kp_spec *spec, kp_spec &checked, kp_error *error)
{
    if (spec == nullptr)
        return fail_invalid(error, "spec must not be NULL");
    size_t size = spec->size;
    if (size < offsetof(kp_spec, env) || size > kLargestSize || size % sizeof(void *) != 0)
        return fail_invalid(error, "spec.size must be sizeof(kp_spec), not %zu", size);
    const char *bytes = reinterpret_cast<const char *>(spec);
    for (size_t i = sizeof checked; i < size; ++i)
        if (bytes[i] != 0)
            return fail_invalid(error, "spec sets a field that this version (%s) does not know",
                                kp_version());
    memset(&checked, 0, sizeof checked);
    memcpy(&checked, bytes, size < sizeof checked ? size : sizeof checked);
    return KP_OK;
}

void fill_defaults(kp_spec &spec)
{
    spec.size = sizeof spec;
    if (spec.no_proxy == nullptr)
        spec.no_proxy = KP_DEFAULT_NO_PROXY;
    if (spec.port_env == nullptr)
        spec.port_env = KP_PORT_ENV;
    if (spec.startup_timeout_ms == 0)
        spec.startup_timeout_ms = 5000;
    if (spec.stop_grace_ms == 0)
        spec.stop_grace_ms = 2000;
}

kp_result check_command(const kp_spec &spec, kp_error *error)
{
    if (has(spec, KP_SPEC_ATTACH))
        return KP_OK;
    if (spec.argv == nullptr || spec.argv[0] == nullptr || spec.argv[0][0] == '\0')
        return fail_invalid(error, "command must not be empty");
    return KP_OK;
}

kp_result check_environment(const kp_spec &spec, kp_error *error)
{
    if (spec.port_env[0] == '\0' || strchr(spec.port_env, '=') != nullptr)
        return fail_invalid(error, "spec.port_env \"%.100s\" can't be the name of a variable",
                            spec.port_env);
    if (spec.ca_bundle != nullptr && *spec.ca_bundle == '\0')
        return fail_invalid(error, "spec.ca_bundle must not be empty");
    for (char *const *entry = spec.env; entry != nullptr && *entry != nullptr; ++entry) {
        const char *equals = strchr(*entry, '=');
        if (equals == nullptr || equals == *entry)
            return fail_invalid(error, "spec.env entry \"%.100s\" is not NAME=value", *entry);
        size_t length = static_cast<size_t>(equals - *entry);
        if (strlen(spec.port_env) == length && memcmp(*entry, spec.port_env, length) == 0)
            return fail_invalid(error, "spec.env must not set %.100s: the library sets the port",
                                spec.port_env);
    }
    return KP_OK;
}

kp_result check_flags(const kp_spec &spec, kp_error *error)
{
    if ((spec.flags & ~kKnownFlags) != 0)
        return fail_invalid(error, "spec.flags has unknown bits: 0x%x", spec.flags & ~kKnownFlags);
    return KP_OK;
}

kp_result check_attach(const kp_spec &spec, kp_error *error)
{
    constexpr uint32_t kAttachFlags = KP_SPEC_ATTACH | KP_SPEC_PROBE_HTTP | KP_SPEC_ANY_LISTENER;
    if (!has(spec, KP_SPEC_ATTACH))
        return KP_OK;
    if (spec.port == 0)
        return fail_invalid(error, "KP_SPEC_ATTACH needs spec.port");
    if ((spec.flags & ~kAttachFlags) != 0)
        return fail_invalid(error, "KP_SPEC_ATTACH goes with KP_SPEC_PROBE_HTTP and "
                                   "KP_SPEC_ANY_LISTENER alone");
    const char *set = list_length(spec.argv) != 0  ? "argv"
                      : list_length(spec.env) != 0 ? "env"
                      : spec.cwd != nullptr        ? "cwd"
                      : spec.log_fd != 0           ? "log_fd"
                                                   : nullptr;
    if (set != nullptr)
        return fail_invalid(error, "KP_SPEC_ATTACH starts nothing: spec.%s must not be set", set);
    return KP_OK;
}

kp_result check_numbers(const kp_spec &spec, kp_error *error)
{
    if (spec.port > UINT16_MAX)
        return fail_invalid(error, "spec.port %u is above 65535", spec.port);
    if (spec.reserved != 0)
        return fail_invalid(error, "spec.reserved must be 0, not %u", spec.reserved);
    return KP_OK;
}

kp_result check_log(const kp_spec &spec, kp_error *error)
{
    if (spec.log_fd == 0)
        return KP_OK;
    if (spec.log_fd < 0 || !sys::is_open(spec.log_fd))
        return fail_invalid(error, "spec.log_fd %d is not an open descriptor", spec.log_fd);
    if (!sys::is_writable(spec.log_fd))
        return fail_invalid(error, "spec.log_fd %d is not open for writing", spec.log_fd);
    return KP_OK;
}

size_t bytes_of(const char *text)
{
    return text == nullptr ? 0 : strlen(text) + 1;
}

size_t bytes_of(char *const *list)
{
    size_t bytes = 0;
    for (; list != nullptr && *list != nullptr; ++list)
        bytes += bytes_of(*list);
    return bytes;
}

// Hands out parts of one block: first the lists, which need alignment, then the strings.
class Copier {
  public:
    Copier(char **lists, char *strings) : lists_(lists), strings_(strings) {}

    char *copy(const char *text)
    {
        if (text == nullptr)
            return nullptr;
        char *place = strings_;
        size_t bytes = bytes_of(text);
        memcpy(place, text, bytes);
        strings_ += bytes;
        return place;
    }
    char *const *copy(char *const *list)
    {
        if (list == nullptr)
            return nullptr;
        char **place = lists_;
        size_t length = list_length(list);
        for (size_t i = 0; i < length; ++i)
            place[i] = copy(list[i]);
        place[length] = nullptr;
        lists_ += length + 1;
        return place;
    }

  private:
    char **lists_;
    char *strings_;
};

} // namespace

kp_result check_spec(const kp_spec *spec, kp_spec &checked, kp_error *error)
{
    kp_result result = read_spec(spec, checked, error);
    if (result != KP_OK)
        return result;
    fill_defaults(checked);
    constexpr kp_result (*kChecks[])(const kp_spec &, kp_error *) = {
        check_flags, check_attach, check_command, check_environment, check_numbers, check_log};
    for (auto check : kChecks)
        if ((result = check(checked, error)) != KP_OK)
            return result;
    return KP_OK;
}

kp_spec *copy_spec(const kp_spec &checked)
{
    size_t pointers = list_length(checked.argv) + 1 + list_length(checked.env) + 1;
    size_t strings = bytes_of(checked.argv) + bytes_of(checked.env) + bytes_of(checked.cwd) +
                     bytes_of(checked.ca_bundle) + bytes_of(checked.no_proxy) +
                     bytes_of(checked.port_env);
    char *block = static_cast<char *>(malloc(sizeof checked + pointers * sizeof(char *) + strings));
    if (block == nullptr)
        return nullptr;
    kp_spec *copy = reinterpret_cast<kp_spec *>(block);
    char **lists = reinterpret_cast<char **>(block + sizeof checked);
    Copier copier(lists, reinterpret_cast<char *>(lists + pointers));
    *copy = checked;
    copy->argv = copier.copy(checked.argv);
    copy->env = copier.copy(checked.env);
    copy->cwd = copier.copy(checked.cwd);
    copy->ca_bundle = copier.copy(checked.ca_bundle);
    copy->no_proxy = copier.copy(checked.no_proxy);
    copy->port_env = copier.copy(checked.port_env);
    return copy;
}

} // namespace kpi
