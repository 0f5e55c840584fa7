// SPDX-License-Identifier: Apache-2.0
#include "fuzz.h"
#include <stdio.h>
#include <string.h>

namespace fuzz {

void complain(const char *file, int line, const char *condition, const char *said)
{
    fprintf(stderr, "%s:%d: not true: %s\n", file, line, condition);
    if (said != nullptr)
        fprintf(stderr, "    \"%s\"\n", said);
    abort();
}

uint32_t Input::number()
{
    uint32_t number = 0;
    for (unsigned shift = 0; shift < 32; shift += 8)
        number |= uint32_t{byte()} << shift;
    return number;
}

std::string Input::take(bool ends_at_nul)
{
    std::string taken;
    while (!is_empty()) {
        char next = static_cast<char>(byte());
        if (ends_at_nul && next == '\0')
            break;
        taken.push_back(next);
    }
    return taken;
}

Block<char> exact_copy(const Text &text)
{
    if (!text)
        return nullptr;
    char *copy = static_cast<char *>(malloc(text->size() + 1));
    memcpy(copy, text->c_str(), text->size() + 1);
    return Block<char>(copy);
}

List::List(const Texts &texts)
    : list_(static_cast<char **>(malloc((texts.size() + 1) * sizeof(char *))))
{
    char **list = list_.get();
    for (const std::string &text : texts) {
        texts_.push_back(exact_copy(text));
        *list++ = texts_.back().get();
    }
    *list = nullptr;
}

Texts texts_of(char *const *list)
{
    Texts texts;
    for (; list != nullptr && *list != nullptr; ++list)
        texts.emplace_back(*list);
    return texts;
}

void fill(kp_error &error)
{
    memset(&error, 0xa5, sizeof error);
}

bool is_untouched(const kp_error &error)
{
    kp_error other;
    fill(other);
    return memcmp(&error, &other, sizeof error) == 0;
}

} // namespace fuzz
