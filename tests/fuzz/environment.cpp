// SPDX-License-Identifier: Apache-2.0
// The three environments: a child's bouquet, the proxy's own, and the base as it is. The input is a
// series of records: a letter, and a text or a number.
#include "environment.h"
#include "fuzz.h"
#include "spec.h"
#include <algorithm>
#include <map>
#include <set>

using namespace fuzz;

namespace {

struct Model {
    Texts base, env;
    Text ca_bundle, no_proxy, port_env;
    uint32_t flags = 0;
    uint16_t port = 1;
};

void read_record(Input &input, Model &model)
{
    switch (input.byte()) {
    case 'b':
        return model.base.push_back(input.text());
    case 'B': // the last one again
        if (!model.base.empty())
            model.base.insert(model.base.end(), input.byte() % 32, std::string(model.base.back()));
        return;
    case 'e':
        return model.env.push_back(input.text());
    case 'c':
        return void(model.ca_bundle = input.text());
    case 'n':
        return void(model.no_proxy = input.text());
    case 'v':
        return void(model.port_env = input.text());
    case 'C':
        return void(model.flags ^= KP_SPEC_CLEAR_ENV);
    case 'p':
        return void(model.port = static_cast<uint16_t>(input.number()));
    }
}

Model read_model(Input input)
{
    Model model;
    while (!input.is_empty())
        read_record(input, model);
    return model;
}

// ---- what the manual says (kp(7), "The children's environment")

constexpr const char *kUrlNames[] = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
                                     "http_proxy", "https_proxy", "all_proxy"};
constexpr const char *kNoProxyNames[] = {"NO_PROXY", "no_proxy"};
constexpr const char *kBundleNames[] = {"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS",
                                        "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"};
constexpr const char *kRemoved[] = {
    "npm_config_proxy", "npm_config_https_proxy", "npm_config_noproxy",
    "NPM_CONFIG_PROXY", "NPM_CONFIG_HTTPS_PROXY", "NPM_CONFIG_NOPROXY",
    "PIP_PROXY",        "CARGO_HTTP_PROXY",       "grpc_proxy",
    "REQUEST_METHOD"};
constexpr const char *kRemovedWithBundle[] = {
    "AWS_CA_BUNDLE",     "CARGO_HTTP_CAINFO", "COMPOSER_CAFILE",   "NPM_CONFIG_CAFILE",
    "npm_config_cafile", "GIT_SSL_CAINFO",    "HTTPLIB2_CA_CERTS", "PIP_CERT"};

// What the proxy does not inherit ("The proxy's own environment"), whatever its value is.
constexpr const char *kHostsAlone[] = {"NOTIFY_SOCKET",  "WATCHDOG_USEC",  "WATCHDOG_PID",
                                       "LISTEN_FDS",     "LISTEN_PID",     "LISTEN_FDNAMES",
                                       "LISTEN_PIDFDID", "NODE_CHANNEL_FD"};

bool starts_with(const std::string &text, const std::string &start)
{
    return text.compare(0, start.size(), start) == 0;
}

bool ends_with(const std::string &text, const std::string &end)
{
    return text.size() >= end.size() &&
           text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool is_this_machine(std::string host)
{
    if (starts_with(host, "[") && ends_with(host, "]"))
        host = host.substr(1, host.size() - 2);
    if (starts_with(host, "::ffff:"))
        host.erase(0, 7);
    static const std::set<std::string> kNames = {"localhost", "::1", "0.0.0.0", "::", ""};
    bool is_numeric = host.find_first_not_of("0123456789.") == std::string::npos;
    return kNames.count(host) != 0 || (starts_with(host, "127.") && is_numeric);
}

bool is_port(std::string digits, uint16_t port)
{
    if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos)
        return false;
    digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));
    return digits == std::to_string(port);
}

// Nor the variable of a proxy's that is this one.
bool leads_to(const std::string &name, std::string value, uint16_t port)
{
    if (!ends_with(name, "_proxy") || ends_with(name, "_no_proxy") || starts_with(name, "no_"))
        return false;
    size_t scheme_end = value.find("://");
    if (scheme_end != std::string::npos)
        value.erase(0, scheme_end + 3);
    value = value.substr(0, value.find_first_of("/?#"));
    value.erase(0, value.rfind('@') + 1);
    size_t colon = value.rfind(':');
    return colon != std::string::npos && is_this_machine(value.substr(0, colon)) &&
           is_port(value.substr(colon + 1), port);
}

std::string lower(std::string text)
{
    for (char &byte : text)
        byte = byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte;
    return text;
}

// ---- the reference: a map of the variables, and what is none

// What it is sorted by: a name, or the whole of what has none.
std::string key_of(const std::string &text)
{
    size_t equals = text.find('=');
    return equals == 0 ? text : text.substr(0, equals);
}

struct Expected {
    std::map<std::string, std::string> variables;
    Texts oddities;

    template <typename Names>
    void set(const Names &names, const std::string &value)
    {
        for (const char *name : names)
            variables[name] = value;
    }
    template <typename Names>
    void remove(const Names &names)
    {
        for (const char *name : names)
            variables.erase(name);
    }
    // Of two with one name the first counts, as for getenv().
    void add(const Texts &texts)
    {
        for (const std::string &text : texts) {
            size_t equals = text.find('=');
            if (equals == std::string::npos || equals == 0)
                oddities.push_back(text);
            else
                variables.emplace(text.substr(0, equals), text.substr(equals + 1));
        }
    }
    // What is hidden hides those of its name that come after it.
    void add_inherited(const Texts &texts, uint16_t port)
    {
        std::set<std::string> hidden(std::begin(kHostsAlone), std::end(kHostsAlone));
        for (const std::string &text : texts) {
            std::string name = key_of(text);
            bool is_variable = name.size() < text.size();
            if (is_variable && variables.count(name) == 0 &&
                leads_to(lower(name), lower(text.substr(name.size() + 1)), port))
                hidden.insert(name);
            if (!is_variable || hidden.count(name) == 0)
                add({text});
        }
    }
    Texts sorted() const
    {
        Texts texts = oddities;
        for (const auto &[name, value] : variables)
            texts.push_back(name + "=" + value);
        std::sort(texts.begin(), texts.end());
        return texts;
    }
};

// Complains of the first that is not.
void check_order(const Texts &texts)
{
    auto is_less = [](const auto &a, const auto &b) { return key_of(a) < key_of(b); };
    auto odd = std::is_sorted_until(texts.begin(), texts.end(), is_less);
    EXPECT_SAYING(odd == texts.end(), odd->c_str());
}

// ---- the library's

Texts take(char **env)
{
    EXPECT(env != nullptr);
    Texts texts = texts_of(env);
    kp_env_free(env);
    return texts;
}

void check(const Expected &expected, Texts got)
{
    check_order(got);
    std::sort(got.begin(), got.end());
    Texts wanted = expected.sorted();
    auto [want, have] = std::mismatch(wanted.begin(), wanted.end(), got.begin(), got.end());
    EXPECT_SAYING(want == wanted.end() && have == got.end(),
                  have == got.end() ? want->c_str() : have->c_str());
}

// The result holds also when the base is gone, and is its own result.
template <typename Make>
void check_twice(const Expected &expected, const Texts &base, Make make)
{
    auto make_of = [=](const Texts &texts) { return make(List(texts).get()); };
    Texts made = take(make_of(base));
    check(expected, made);
    EXPECT(take(make_of(made)) == made);
}

void check_bouquet(const Model &model, const kp_spec &spec)
{
    std::string url = "http://127.0.0.1:" + std::to_string(model.port);
    Expected expected;
    expected.add(model.base);
    expected.set(kUrlNames, url);
    expected.set(kNoProxyNames, spec.no_proxy);
    expected.remove(kRemoved);
    if (model.ca_bundle) {
        expected.set(kBundleNames, *model.ca_bundle);
        expected.remove(kRemovedWithBundle);
    }
    check_twice(expected, model.base,
                [&](char *const *base) { return kpi::bouquet(spec, exact_copy(url).get(), base); });
}

void check_proxy_environment(const Model &model, const kp_spec &spec)
{
    Expected expected;
    expected.variables[spec.port_env] = std::to_string(model.port);
    expected.add(Texts(model.env.rbegin(), model.env.rend())); // there the last counts
    if ((model.flags & KP_SPEC_CLEAR_ENV) == 0)
        expected.add_inherited(model.base, model.port);
    check_twice(expected, model.base,
                [&](char *const *host) { return kpi::proxy_environment(spec, model.port, host); });
}

void check_plain(const Model &model)
{
    EXPECT(take(kpi::plain_environment(List(model.base).get())) == model.base);
    EXPECT(take(kp_env_new(nullptr, List(model.base).get())) == model.base);
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Model model = read_model(Input(data, size));
    List argv({"proxy"}), env(model.env);
    Block<char> ca_bundle = exact_copy(model.ca_bundle), no_proxy = exact_copy(model.no_proxy),
                port_env = exact_copy(model.port_env);
    kp_spec spec = {}, checked;
    spec.size = sizeof spec;
    spec.argv = argv.get();
    spec.env = env.get();
    spec.ca_bundle = ca_bundle.get();
    spec.no_proxy = no_proxy.get();
    spec.port_env = port_env.get();
    spec.flags = model.flags;
    check_plain(model);
    if (kpi::check_spec(&spec, checked, nullptr) != KP_OK)
        return 0; // what is refused gets no further
    check_bouquet(model, checked);
    check_proxy_environment(model, checked);
    return 0;
}
