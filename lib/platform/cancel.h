// SPDX-License-Identifier: Apache-2.0
// Threads that are cancelled, by pthread_cancel(3). The library's frames are unwound without
// running destructors, so that may happen at one place alone: where Waiter sleeps.
#pragma once

namespace kpi::sys {

// As long as it lives, this thread is not cancelled.
class Uncancelled {
  public:
    Uncancelled();
    Uncancelled(const Uncancelled &) = delete;
    Uncancelled &operator=(const Uncancelled &) = delete;
    ~Uncancelled();

  private:
    friend class Waiter;
    int host_state_;
};

// Calls body(data); if the thread is cancelled in it, clean_up(data), and does not return.
void call_cancellable(void (*body)(void *), void (*clean_up)(void *), void *data);

} // namespace kpi::sys
