/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KP_RUN_SIGNALS_HPP
#define KP_RUN_SIGNALS_HPP

#include <csignal>
#include <sys/signalfd.h>

/* The signals that kp-run takes by a descriptor, so that its one poll() sees them too: all
 * but those that can't be taken, and those of a program's own faults. */
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

/* What a signal does to a process that does nothing about it. */
enum class Default { ignore, stop, end };
Default default_of(int number);

/* Stops this process as the signal would. Returns once it was continued, or at once where
 * nobody could continue it: pid 1 is never stopped, nor is an orphaned process group by a
 * terminal's signals. */
void stop_by(int number);

/* Ends this process as the signal would, without a core; returns as pid 1, which nothing
 * ends. */
void die_of(int number);

#endif
