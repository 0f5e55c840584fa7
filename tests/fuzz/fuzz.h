// SPDX-License-Identifier: Apache-2.0
// What the targets share. A target takes any bytes, makes of them what it tests, and aborts where
// something is not as the documentation promises. It is run by libFuzzer (-Dfuzz=true, clang), and
// by replay.cpp on the inputs in corpus/ alone.
#pragma once

#include "kp/kp.h"
#include <memory>
#include <optional>
#include <stdint.h>
#include <stdlib.h>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPECT(condition)                                                                          \
    ((condition) ? void() : fuzz::complain(__FILE__, __LINE__, #condition, nullptr))
// `said`: what the library said or made, for the person who reads the finding.
#define EXPECT_SAYING(condition, said)                                                             \
    ((condition) ? void() : fuzz::complain(__FILE__, __LINE__, #condition, said))

namespace fuzz {

[[noreturn]] void complain(const char *file, int line, const char *condition, const char *said);

// The bytes of the input, from the first on; what is missing is zero.
class Input {
  public:
    Input(const uint8_t *data, size_t size) : at_(data), end_(data + size) {}

    bool is_empty() const { return at_ == end_; }
    uint8_t byte() { return is_empty() ? uint8_t{0} : *at_++; }
    uint32_t number();                        // four bytes, the lowest first
    std::string text() { return take(true); } // up to a NUL, as the library's strings are
    std::string rest() { return take(false); }

  private:
    std::string take(bool ends_at_nul);

    const uint8_t *at_, *end_;
};

using Text = std::optional<std::string>; // none: NULL
using Texts = std::vector<std::string>;

struct Free {
    void operator()(void *block) const { free(block); }
};
template <typename Type>
using Block = std::unique_ptr<Type, Free>;

// In a block that is not a byte larger, so that AddressSanitizer sees each byte read too much.
Block<char> exact_copy(const Text &text);

// The same as a list that C understands.
class List {
  public:
    List() = default; // NULL
    explicit List(const Texts &texts);
    char *const *get() const { return list_.get(); }

  private:
    std::vector<Block<char>> texts_;
    Block<char *> list_;
};

Texts texts_of(char *const *list);

// What no error looks like, and whether it still is that.
void fill(kp_error &error);
bool is_untouched(const kp_error &error);

} // namespace fuzz
