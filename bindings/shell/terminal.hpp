/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KP_RUN_TERMINAL_HPP
#define KP_RUN_TERMINAL_HPP

#include <sys/types.h>

/* The terminal that controls kp-run, if any, and which process group has it. */
class Terminal {
  public:
    Terminal();
    ~Terminal();
    Terminal(const Terminal &) = delete;
    Terminal &operator=(const Terminal &) = delete;

    /* Notes whether kp-run's own group has it now. */
    void look();

    /* The group that has it; -1: there is no terminal. */
    pid_t foreground() const;

    /* Gives it back to kp-run's own group, where that has had it. */
    void take_back() const;

  private:
    int fd_;
    bool was_ours_ = false;
};

#endif
