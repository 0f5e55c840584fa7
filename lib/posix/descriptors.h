// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "platform/fd.h"

namespace kpi {

// Takes over a descriptor that was just made and moves it above 2, where the host's standard
// streams are or, closed, are about to be opened again. It is empty, with errno set, where `number`
// is negative or the move fails.
Fd lifted(int number);

// Opens what a descriptor of this process has open once more, by its place in the system's folder
// of them. Empty, with errno set: the system has no such way, or refuses it.
Fd open_again(int fd, int flags);

// Whether an error number tells of what the host has not got at the moment, and may have again.
bool is_want(int error);

} // namespace kpi
