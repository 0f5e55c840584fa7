// SPDX-License-Identifier: Apache-2.0
// Reading /proc. What it says of another process is true at that moment only.
#pragma once

#include "platform/fd.h"
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

namespace kpi {

class Directory {
  public:
    explicit Directory(const char *path);
    Directory(const Directory &) = delete;
    Directory &operator=(const Directory &) = delete;

    explicit operator bool() const { return bool(fd_); }
    int fd() const { return fd_.get(); }

    // NULL: that was all, or it can't be read on.
    const dirent *next();
    // The next name that is a number above 0, as all processes' and threads' are; 0: as NULL.
    pid_t next_number();
    // Of opening and reading it; 0: none.
    int error() const { return error_; }

  private:
    Fd fd_;
    size_t at_ = 0, length_ = 0;
    alignas(dirent) char buffer_[4096];
    int error_;
};

// The /proc of another pid namespace has other processes under our numbers.
bool proc_is_ours();

// Whether it hides processes that this one can't look into (hidepid=2), or that can't be told for
// the reason in `error`.
bool hides_processes(int &error);

struct Stat {
    char state; // of the main thread
    pid_t parent;
    uint64_t used;  // of the processors, in ticks, with its children that were reaped
    int threads;    // that have not ended
    uint64_t start; // in ticks since the system's
};

// 0 or an error number. ENOENT and ESRCH: there is no such process, or it is hidden; others are
// reasons of the host's, such as no descriptor being left.
int read_stat(pid_t pid, Stat &stat);

} // namespace kpi
