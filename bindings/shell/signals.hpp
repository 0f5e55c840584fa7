/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KP_RUN_SIGNALS_HPP
#define KP_RUN_SIGNALS_HPP

#include <csignal>
#include <sys/signalfd.h>

/* The signals that kp-run takes by a descriptor, so that its one poll() sees them too:
 * SIGCHLD, and those that would end it. */
class Signals {
  public:
    Signals(); /* throws std::system_error */
    ~Signals();
    Signals(const Signals &) = delete;
    Signals &operator=(const Signals &) = delete;

    int fd() const { return fd_; }
    bool next(signalfd_siginfo &info); /* false: no more now */

    /* The mask that kp-run was started with, and COMMAND is to have. */
    const sigset_t &given_mask() const { return given_mask_; }

  private:
    sigset_t given_mask_;
    int fd_;
};

#endif
