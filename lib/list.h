// SPDX-License-Identifier: Apache-2.0
// Lists of strings as C has them: ended by NULL.
#pragma once

#include <stddef.h>

namespace kpi {

// NULL is an empty list.
inline size_t list_length(char *const *list)
{
    size_t length = 0;
    while (list != nullptr && list[length] != nullptr)
        ++length;
    return length;
}

} // namespace kpi
