// SPDX-License-Identifier: Apache-2.0
// A child of the host that the library started, from its spawn to its reaping.
#pragma once

#include "platform/process.h"

namespace kpi {

class Child {
  public:
    explicit operator bool() const { return process_.pid != 0; }
    pid_t pid() const { return process_.pid; }

    // Readable once it has ended; -1: there is none, look by the clock.
    int end_fd() const { return process_.end.get(); }

    // On failure it stays what it was.
    int spawn(const sys::Launch &launch);

    // Looks. An ended child stays a zombie that pins its number until reap().
    bool ended();
    bool was_ended() const { return ended_; }
    const Exit &exit() const { return exit_; }

    void reap();
    bool is_reaped() const { return reaped_; }

    // Looks: whether its number is certain to be its own still.
    bool is_pinned();

    // Of one that was reaped: its descriptor, by which the group that it led can still be reached.
    sys::Process take() { return static_cast<sys::Process &&>(process_); }

    // Keeps what is known of it, gives its descriptor back.
    void close() { process_.end.reset(); }

    // 0 or an error number; ESRCH also where the number may be another's by now.
    int signal(int signo);

    // To the group that it leads.
    int signal_group(int signo);

    // Whether the group can still be signalled once its leader was reaped. Remembered: what is left
    // may be another user's, which reads as a refusal of the call.
    bool outlives_reaping();

  private:
    sys::Process process_;
    Exit exit_;
    bool ended_ = false;
    bool reaped_ = false;
    bool signals_groups_ = false;
};

} // namespace kpi
