// SPDX-License-Identifier: Apache-2.0
// Specs: what is refused and with which words, and the handle's own copy of what is not. Nothing is
// started. The input is a series of records: a letter for the field, and its value.
#include "fuzz.h"
#include "spec.h"
#include <algorithm>
#include <errno.h>
#include <fcntl.h>
#include <iterator>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

using namespace fuzz;

namespace {

// A spec by value.
struct Model {
    std::optional<Texts> argv, env;
    Text cwd, ca_bundle, no_proxy, port_env;
    uint32_t flags = 0, startup_timeout_ms = 0, stop_grace_ms = 0, port = 0, reserved = 0;
    int32_t log_fd = 0;
    size_t size = sizeof(kp_spec);
    std::string tail; // of a caller from the future
};

// ---- from the input

// Of all kinds; the last one is not open.
struct Descriptors {
    int kinds[4] = {open("/dev/null", O_RDONLY | O_CLOEXEC),
                    open("/dev/null", O_WRONLY | O_CLOEXEC), open("/dev/null", O_RDWR | O_CLOEXEC),
                    1 << 20};
    ~Descriptors()
    {
        for (int kind : kinds)
            close(kind);
    }
};

int32_t descriptor(uint8_t choice)
{
    static const Descriptors descriptors;
    return descriptors.kinds[choice % std::size(descriptors.kinds)];
}

void append(std::optional<Texts> &list, const std::string &text, size_t times)
{
    if (!list)
        list.emplace();
    list->insert(list->end(), times, text);
}

void repeat_last(std::optional<Texts> &list, size_t times)
{
    if (list && !list->empty())
        append(list, std::string(list->back()), times);
}

void read_strings(uint8_t kind, Input &input, Model &model)
{
    switch (kind) {
    case 'a':
        return append(model.argv, input.text(), 1);
    case 'A':
        return append(model.argv, "", 0);
    case 'r':
        return repeat_last(model.argv, input.byte());
    case 'e':
        return append(model.env, input.text(), 1);
    case 'E':
        return append(model.env, "", 0);
    case 'R':
        return repeat_last(model.env, input.byte());
    case 'd':
        return void(model.cwd = input.text());
    case 'c':
        return void(model.ca_bundle = input.text());
    case 'n':
        return void(model.no_proxy = input.text());
    case 'v':
        return void(model.port_env = input.text());
    case 't':
        return void(model.tail = input.text());
    }
}

void read_numbers(uint8_t kind, Input &input, Model &model)
{
    switch (kind) {
    case 'f':
        return void(model.flags = input.byte());
    case 'F':
        return void(model.flags = input.number());
    case 's':
        return void(model.startup_timeout_ms = input.number());
    case 'g':
        return void(model.stop_grace_ms = input.number());
    case 'l':
        return void(model.log_fd = descriptor(input.byte()));
    case 'L':
        return void(model.log_fd = static_cast<int32_t>(input.number()));
    case 'p':
        return void(model.port = input.number());
    case 'z':
        return void(model.reserved = input.number());
    case 'w':
        return void(model.size = input.byte() * sizeof(void *));
    case 'W':
        return void(model.size = input.number());
    case 'H': // both halves
        return void(model.size = input.number() * size_t{0x100000001});
    }
}

Model read_model(Input input)
{
    Model model;
    while (!input.is_empty()) {
        uint8_t kind = input.byte();
        read_strings(kind, input, model);
        read_numbers(kind, input, model);
    }
    return model;
}

// ---- to a spec, in memory that ends where the caller says

struct Built {
    List argv, env;
    Block<char> cwd, ca_bundle, no_proxy, port_env, bytes;

    const kp_spec *spec() const { return reinterpret_cast<const kp_spec *>(bytes.get()); }
};

constexpr size_t kLargest = 4096;

size_t readable_bytes(const Model &model)
{
    return model.size > kLargest ? sizeof(size_t) : std::max(model.size, sizeof(size_t));
}

Built build(const Model &model)
{
    Built built;
    if (model.argv)
        built.argv = List(*model.argv);
    if (model.env)
        built.env = List(*model.env);
    built.cwd = exact_copy(model.cwd);
    built.ca_bundle = exact_copy(model.ca_bundle);
    built.no_proxy = exact_copy(model.no_proxy);
    built.port_env = exact_copy(model.port_env);
    kp_spec spec = {model.size,           built.argv.get(),      built.env.get(),
                    built.cwd.get(),      built.ca_bundle.get(), built.no_proxy.get(),
                    built.port_env.get(), model.flags,           model.startup_timeout_ms,
                    model.stop_grace_ms,  model.log_fd,          model.port,
                    model.reserved};
    size_t bytes = readable_bytes(model);
    built.bytes.reset(static_cast<char *>(calloc(1, bytes)));
    memcpy(built.bytes.get(), &spec, std::min(bytes, sizeof spec));
    if (bytes > sizeof spec)
        memcpy(built.bytes.get() + sizeof spec, model.tail.data(),
               std::min(bytes - sizeof spec, model.tail.size()));
    return built;
}

// ---- what the header says about it

bool is_size_right(const Model &model)
{
    return model.size >= offsetof(kp_spec, env) && model.size <= kLargest &&
           model.size % sizeof(void *) == 0;
}

bool has_unknown_fields(const Model &model)
{
    size_t tail = model.size > sizeof(kp_spec) ? model.size - sizeof(kp_spec) : 0;
    return model.tail.substr(0, tail).find_first_not_of('\0') != std::string::npos;
}

template <typename Value>
void unset(std::optional<Value> &field)
{
    field.reset();
}

template <typename Number>
void unset(Number &field)
{
    field = 0;
}

// As a caller was compiled with, whose kp_spec is `size` bytes long.
Model as_far_as_known(Model model)
{
    size_t size = model.size;
    auto forget = [size](size_t offset, auto &field) {
        if (size <= offset)
            unset(field);
    };
    forget(offsetof(kp_spec, env), model.env);
    forget(offsetof(kp_spec, cwd), model.cwd);
    forget(offsetof(kp_spec, ca_bundle), model.ca_bundle);
    forget(offsetof(kp_spec, no_proxy), model.no_proxy);
    forget(offsetof(kp_spec, port_env), model.port_env);
    forget(offsetof(kp_spec, flags), model.flags);
    forget(offsetof(kp_spec, startup_timeout_ms), model.startup_timeout_ms);
    forget(offsetof(kp_spec, stop_grace_ms), model.stop_grace_ms);
    forget(offsetof(kp_spec, log_fd), model.log_fd);
    forget(offsetof(kp_spec, port), model.port);
    forget(offsetof(kp_spec, reserved), model.reserved);
    return model;
}

void fill_defaults(Model &model)
{
    model.no_proxy = model.no_proxy.value_or(KP_DEFAULT_NO_PROXY);
    model.port_env = model.port_env.value_or(KP_PORT_ENV);
    if (model.startup_timeout_ms == 0)
        model.startup_timeout_ms = 5000;
    if (model.stop_grace_ms == 0)
        model.stop_grace_ms = 2000;
}

bool is_empty(const std::optional<Texts> &list)
{
    return !list || list->empty();
}

using Words = std::vector<const char *>;

void find_wrong_attach(const Model &model, Words &words)
{
    if (model.port == 0)
        words.push_back("needs spec.port");
    if ((model.flags & (KP_SPEC_CLEAR_ENV | KP_SPEC_NO_GUARD | KP_SPEC_NO_RESERVE)) != 0)
        words.push_back("KP_SPEC_ATTACH goes with");
    if (!is_empty(model.argv))
        words.push_back("spec.argv");
    if (!is_empty(model.env))
        words.push_back("spec.env must not be set");
    if (model.cwd)
        words.push_back("spec.cwd");
    if (model.log_fd != 0)
        words.push_back("spec.log_fd");
}

void find_wrong_variables(const Model &model, Words &words)
{
    if (model.port_env->empty() || model.port_env->find('=') != std::string::npos)
        words.push_back("spec.port_env");
    if (model.ca_bundle && model.ca_bundle->empty())
        words.push_back("spec.ca_bundle");
    for (const std::string &entry : model.env.value_or(Texts())) {
        size_t equals = entry.find('=');
        if (equals == std::string::npos || equals == 0)
            words.push_back("spec.env entry");
        else if (entry.substr(0, equals) == *model.port_env)
            words.push_back("spec.env must not set ");
    }
}

void find_wrong_log(const Model &model, Words &words)
{
    int flags = fcntl(model.log_fd, F_GETFL);
    if (model.log_fd == 0)
        return;
    if (flags < 0)
        words.push_back("is not an open descriptor");
    else if ((flags & O_ACCMODE) == O_RDONLY)
        words.push_back("is not open for writing");
}

// Everything that is wrong, by a word that its message holds. The model has its defaults.
Words find_wrong(const Model &model)
{
    Words words;
    if ((model.flags & ~0x3fu) != 0)
        words.push_back("spec.flags");
    if ((model.flags & KP_SPEC_ATTACH) != 0)
        find_wrong_attach(model, words);
    else if (is_empty(model.argv) || model.argv->front().empty())
        words.push_back("command must not be empty");
    find_wrong_variables(model, words);
    if (model.port > 65535)
        words.push_back("spec.port ");
    if (model.reserved != 0)
        words.push_back("spec.reserved");
    find_wrong_log(model, words);
    return words;
}

Words expected_words(const Model &given, const Model &known)
{
    if (!is_size_right(given))
        return {"spec.size"};
    if (has_unknown_fields(given))
        return {"spec sets a field that this version"};
    return find_wrong(known);
}

// ---- what the library makes of it

void check_refusal(const kp_error &error, const Words &words)
{
    const char *message = error.message;
    EXPECT(memchr(message, '\0', sizeof error.message) != nullptr);
    EXPECT_SAYING(std::any_of(words.begin(), words.end(),
                              [=](const char *word) { return strstr(message, word) != nullptr; }),
                  message);
    for (const char *byte = message; *byte != '\0'; ++byte)
        EXPECT_SAYING(static_cast<uint8_t>(*byte) >= ' ' && *byte != 0x7f, message);
    EXPECT_SAYING(error.code == KP_ERR_INVALID && error.sys_errno == 0 && error.exit_code == -1 &&
                      error.term_signal == 0 && error.output[0] == '\0',
                  message);
    for (uint32_t reserved : error.reserved)
        EXPECT_SAYING(reserved == 0, message);
}

// Refused, so this starts nothing.
void check_start(const Built &built, kp_result begin(const kp_spec *, kp_handle **, kp_error *),
                 const kp_error &expected)
{
    char unset;
    kp_handle *handle = reinterpret_cast<kp_handle *>(&unset);
    kp_error error;
    fill(error);
    EXPECT(begin(built.spec(), &handle, &error) == KP_ERR_INVALID);
    EXPECT(handle == nullptr);
    EXPECT_SAYING(memcmp(&error, &expected, sizeof error) == 0, error.message);
}

bool are_same(const Text &text, const char *copy)
{
    return text ? copy != nullptr && *text == copy : copy == nullptr;
}

bool are_same(const std::optional<Texts> &list, char *const *copy)
{
    return list ? copy != nullptr && *list == texts_of(copy) : copy == nullptr;
}

void check_equal(const Model &model, const kp_spec &spec)
{
    EXPECT(spec.size == sizeof spec);
    EXPECT(are_same(model.argv, spec.argv));
    EXPECT(are_same(model.env, spec.env));
    EXPECT(are_same(model.cwd, spec.cwd));
    EXPECT(are_same(model.ca_bundle, spec.ca_bundle));
    EXPECT(are_same(model.no_proxy, spec.no_proxy));
    EXPECT(are_same(model.port_env, spec.port_env));
    EXPECT(spec.flags == model.flags);
    EXPECT(spec.startup_timeout_ms == model.startup_timeout_ms);
    EXPECT(spec.stop_grace_ms == model.stop_grace_ms);
    EXPECT(spec.log_fd == model.log_fd);
    EXPECT(spec.port == model.port);
    EXPECT(spec.reserved == 0);
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Model given = read_model(Input(data, size));
    Model known = as_far_as_known(given);
    fill_defaults(known);
    Words words = expected_words(given, known);

    Built built = build(given);
    kp_spec checked;
    kp_error error;
    fill(error);
    kp_result result = kpi::check_spec(built.spec(), checked, &error);
    EXPECT_SAYING(result == (words.empty() ? KP_OK : KP_ERR_INVALID),
                  words.empty() ? error.message : words.front());
    EXPECT(kpi::check_spec(built.spec(), checked, nullptr) == result);
    if (result != KP_OK) {
        check_refusal(error, words);
        check_start(built, kp_start, error);
        check_start(built, kp_spawn, error);
        return 0;
    }
    EXPECT(is_untouched(error));
    check_equal(known, checked);
    Block<kp_spec> copy(kpi::copy_spec(checked));
    EXPECT(copy != nullptr);
    built = Built(); // the copy holds also when the caller's memory is gone
    check_equal(known, *copy);
    return 0;
}
