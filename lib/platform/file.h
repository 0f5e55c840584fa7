// SPDX-License-Identifier: Apache-2.0
// Descriptors of files and pipes. What returns int returns 0 or an error number.
#pragma once

#include "platform/fd.h"
#include <stddef.h>
#include <stdint.h>

namespace kpi::sys {

bool is_open(int fd);
bool is_inherited(int fd); // open, and still so after an exec
bool is_writable(int fd);  // as it was opened

int duplicate(int fd, Fd &copy);

// The same pipe, FIFO or terminal opened anew: it blocks, and what is set on one of the two is not
// set on the other. Never waits. Empty where `fd` is something else, or can't be opened again.
Fd reopen(int fd);

// A pipe that takes little of the kernel's memory.
int make_pipe(Fd &read_end, Fd &write_end);
bool is_broken(const Fd &write_end); // nobody can read it any more

// 0 where `path` can be a working directory.
int check_directory(const char *path);

// The size of a regular file; -1: it is something else.
int64_t regular_file_size(int fd);

// Reads from a place in a file, also through a write-only descriptor where the system has a way;
// returns the number of bytes, 0 where it can't.
size_t read_file(int fd, int64_t offset, char *buffer, size_t size);

} // namespace kpi::sys
