// SPDX-License-Identifier: Apache-2.0
#include "environment.h"
#include "list.h"
#include "spec.h"
#include "upstream.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace kpi {

namespace {

// Oddity: text of the base that is not NAME=value. No getenv() finds it; it is kept as it is.
enum class Kind { Variable, Removed, Oddity };

struct Entry {
    Kind kind;
    const char *name;
    size_t name_length;
    const char *value;
    size_t value_length;
    size_t order = 0; // of two with one name the earlier one counts
};

class Entries {
  public:
    explicit Entries(size_t capacity)
        : entries_(static_cast<Entry *>(malloc((capacity + 1) * sizeof(Entry))))
    {
    }
    Entries(const Entries &) = delete;
    Entries &operator=(const Entries &) = delete;
    ~Entries() { free(entries_); }

    explicit operator bool() const { return entries_ != nullptr; }

    void set(const char *name, const char *value)
    {
        add({Kind::Variable, name, strlen(name), value, strlen(value)});
    }
    void remove(const char *name) { add({Kind::Removed, name, strlen(name), nullptr, 0}); }
    void remove_text(const char *text)
    {
        add({Kind::Removed, text, strcspn(text, "="), nullptr, 0});
    }
    void keep(const char *text) { add({Kind::Oddity, text, strlen(text), nullptr, 0}); }
    void add_text(const char *text)
    {
        const char *equals = strchr(text, '=');
        if (equals == nullptr || equals == text)
            return keep(text);
        size_t length = static_cast<size_t>(equals - text);
        add({Kind::Variable, text, length, equals + 1, strlen(equals + 1)});
    }
    void merge();
    char **build() const;

  private:
    void add(Entry entry)
    {
        entry.order = count_;
        entries_[count_++] = entry;
    }

    Entry *entries_;
    size_t count_ = 0;
};

int compare_names(const Entry &a, const Entry &b)
{
    size_t shorter = a.name_length < b.name_length ? a.name_length : b.name_length;
    int order = memcmp(a.name, b.name, shorter);
    if (order != 0)
        return order;
    return (a.name_length > b.name_length) - (a.name_length < b.name_length);
}

int compare_entries(const void *left, const void *right)
{
    const Entry &a = *static_cast<const Entry *>(left);
    const Entry &b = *static_cast<const Entry *>(right);
    int order = compare_names(a, b);
    return order != 0 ? order : (a.order > b.order) - (a.order < b.order);
}

// Sorts by name, and keeps the entry that counts of each, unless it counts by not being there.
void Entries::merge()
{
    qsort(entries_, count_, sizeof(Entry), compare_entries);
    size_t kept = 0;
    Entry last = {Kind::Oddity, "", 0, nullptr, 0}; // no variable has this name
    for (size_t i = 0; i < count_; ++i) {
        const Entry entry = entries_[i];
        bool counts = entry.kind != Kind::Oddity && compare_names(last, entry) != 0;
        if (entry.kind == Kind::Oddity || (counts && entry.kind == Kind::Variable))
            entries_[kept++] = entry;
        if (counts)
            last = entry;
    }
    count_ = kept;
}

size_t text_size(const Entry &entry)
{
    size_t value = entry.kind == Kind::Variable ? 1 + entry.value_length : 0;
    return entry.name_length + value + 1;
}

char *write_text(const Entry &entry, char *to)
{
    memcpy(to, entry.name, entry.name_length);
    to += entry.name_length;
    if (entry.kind == Kind::Variable) {
        *to++ = '=';
        memcpy(to, entry.value, entry.value_length);
        to += entry.value_length;
    }
    *to++ = '\0';
    return to;
}

char **Entries::build() const
{
    size_t bytes = (count_ + 1) * sizeof(char *);
    for (size_t i = 0; i < count_; ++i)
        bytes += text_size(entries_[i]);
    char **list = static_cast<char **>(malloc(bytes));
    if (list == nullptr)
        return nullptr;
    char *text = reinterpret_cast<char *>(list + count_ + 1);
    for (size_t i = 0; i < count_; ++i) {
        list[i] = text;
        text = write_text(entries_[i], text);
    }
    list[count_] = nullptr;
    return list;
}

void add_list(Entries &entries, char *const *list)
{
    for (; *list != nullptr; ++list)
        entries.add_text(*list);
}

enum class What { Url, NoProxy, CaBundle, Remove, RemoveWithCa };

struct Variable {
    char name[24]; // a pointer would need a relocation
    What what;
};

// The bouquet. Both cases, since some clients read only one of them and the others disagree on
// which wins. What is removed would beat it: a value of a single client's own leads that client
// around the proxy, or with interception away from the proxy's CA.
constexpr Variable kVariables[] = {
    {"HTTP_PROXY", What::Url},
    {"http_proxy", What::Url},
    {"HTTPS_PROXY", What::Url},
    {"https_proxy", What::Url},
    {"ALL_PROXY", What::Url},
    {"all_proxy", What::Url},
    {"NO_PROXY", What::NoProxy},
    {"no_proxy", What::NoProxy},

    {"SSL_CERT_FILE", What::CaBundle},
    {"NODE_EXTRA_CA_CERTS", What::CaBundle},
    {"REQUESTS_CA_BUNDLE", What::CaBundle},
    {"CURL_CA_BUNDLE", What::CaBundle},

    {"npm_config_proxy", What::Remove},
    {"npm_config_https_proxy", What::Remove},
    {"npm_config_noproxy", What::Remove},
    {"NPM_CONFIG_PROXY", What::Remove},
    {"NPM_CONFIG_HTTPS_PROXY", What::Remove},
    {"NPM_CONFIG_NOPROXY", What::Remove},
    {"PIP_PROXY", What::Remove},
    {"CARGO_HTTP_PROXY", What::Remove},
    {"grpc_proxy", What::Remove},
    {"REQUEST_METHOD", What::Remove}, // the CGI rule: Go and reqwest ignore HTTP_PROXY beside it

    {"AWS_CA_BUNDLE", What::RemoveWithCa},
    {"CARGO_HTTP_CAINFO", What::RemoveWithCa},
    {"COMPOSER_CAFILE", What::RemoveWithCa},
    {"NPM_CONFIG_CAFILE", What::RemoveWithCa},
    {"npm_config_cafile", What::RemoveWithCa},
    {"GIT_SSL_CAINFO", What::RemoveWithCa},
    {"HTTPLIB2_CA_CERTS", What::RemoveWithCa},
    {"PIP_CERT", What::RemoveWithCa},
};
constexpr size_t kVariableCount = sizeof kVariables / sizeof *kVariables;

void add_variable(Entries &entries, const Variable &variable, const kp_spec &spec, const char *url)
{
    bool intercepts = spec.ca_bundle != nullptr;
    switch (variable.what) {
    case What::Url:
        return entries.set(variable.name, url);
    case What::NoProxy:
        return entries.set(variable.name, spec.no_proxy);
    case What::CaBundle:
        return intercepts ? entries.set(variable.name, spec.ca_bundle) : void();
    case What::Remove:
        return entries.remove(variable.name);
    case What::RemoveWithCa:
        return intercepts ? entries.remove(variable.name) : void();
    }
}

} // namespace

char **bouquet(const kp_spec &spec, const char *url, char *const *base)
{
    Entries entries(kVariableCount + list_length(base));
    if (!entries)
        return nullptr;
    for (const Variable &variable : kVariables)
        add_variable(entries, variable, spec, url);
    add_list(entries, base);
    entries.merge();
    return entries.build();
}

namespace {

// What tells the host alone of itself: the service manager hears READY and STOPPING from whoever
// has the first, and the others speak of descriptors that are closed in the proxy, or somebody
// else's.
constexpr char kHostsAlone[][20] = {
    "NOTIFY_SOCKET", "WATCHDOG_USEC",  "WATCHDOG_PID",   "LISTEN_FDS",
    "LISTEN_PID",    "LISTEN_FDNAMES", "LISTEN_PIDFDID", "NODE_CHANNEL_FD",
};
constexpr size_t kHostsAloneCount = sizeof kHostsAlone / sizeof *kHostsAlone;

void add_inherited(Entries &entries, char *const *host, uint16_t port)
{
    for (const char *name : kHostsAlone)
        entries.remove(name);
    for (; host != nullptr && *host != nullptr; ++host)
        if (leads_to_itself(*host, port))
            entries.remove_text(*host);
        else
            entries.add_text(*host);
}

} // namespace

char **proxy_environment(const kp_spec &spec, uint16_t port, char *const *host)
{
    char *const *inherited = has(spec, KP_SPEC_CLEAR_ENV) ? nullptr : host;
    size_t own = list_length(spec.env);
    Entries entries(own + 1 + kHostsAloneCount + list_length(inherited));
    if (!entries)
        return nullptr;
    // Backwards: of two in spec.env the later one counts.
    for (size_t i = own; i > 0; --i)
        entries.add_text(spec.env[i - 1]);
    char number[8];
    snprintf(number, sizeof number, "%u", port);
    entries.set(spec.port_env, number);
    add_inherited(entries, inherited, port);
    entries.merge();
    return entries.build();
}

char **plain_environment(char *const *base)
{
    Entries entries(list_length(base));
    if (!entries)
        return nullptr;
    for (; *base != nullptr; ++base)
        entries.keep(*base);
    return entries.build();
}

} // namespace kpi
