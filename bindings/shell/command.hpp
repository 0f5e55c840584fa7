/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KP_RUN_COMMAND_HPP
#define KP_RUN_COMMAND_HPP

#include <csignal>
#include <kp/kp.hpp>
#include <sys/signalfd.h>

/* The process of COMMAND. */
class Command {
  public:
    /* Returns an errno. Dispositions and descriptors are as they were given to kp-run. */
    int start(char *const argv[], const kp::Environment &env, const sigset_t &mask);

    /* Sees what has become of it. By its pid alone: proxy and guard are kp-run's children
     * too, and the library's. */
    void look();

    bool runs() const { return pid_ != 0; }
    int stopped_by() const { return stopped_by_; } /* the signal; 0: it is not stopped */
    int exit_code() const;                         /* of one that does not run */
    int term_signal() const;                       /* 0: none has ended it */

    /* Whether it has the signal that kp-run got already, or has sent it. */
    bool knows(const signalfd_siginfo &info) const;
    void hand_on(const signalfd_siginfo &info) const;

    bool is(pid_t pid) const { return pid == pid_; }
    bool led(pid_t group) const { return group == last_pid_; } /* or leads it */

  private:
    bool leads_a_group() const;

    pid_t pid_ = 0;
    pid_t last_pid_ = 0;
    int status_ = 0;
    int stopped_by_ = 0;
};

#endif
