// SPDX-License-Identifier: Apache-2.0
// The one place that spawns and waits.
#include "platform/process.h"
#include "system.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace kpi::sys {

namespace {

// Collects the first error of a row of calls that return one.
class First {
  public:
    void operator()(int result)
    {
        if (error_ == 0)
            error_ = result;
    }
    int error() const { return error_; }

  private:
    int error_ = 0;
};

class Actions {
  public:
    Actions() : made_(posix_spawn_file_actions_init(&actions_)) {}
    Actions(const Actions &) = delete;
    Actions &operator=(const Actions &) = delete;
    ~Actions()
    {
        if (made_ == 0)
            posix_spawn_file_actions_destroy(&actions_);
    }

    int fill(const Launch &launch)
    {
        if (made_ != 0)
            return made_;
        become(0, launch.input, O_RDONLY);
        become(1, launch.output, O_WRONLY);
        become(2, launch.output, O_WRONLY);
        first_(close_others(actions_));
        if (launch.cwd != nullptr)
            first_(posix_spawn_file_actions_addchdir_np(&actions_, launch.cwd));
        return first_.error();
    }
    const posix_spawn_file_actions_t *get() const { return &actions_; }

  private:
    void become(int number, int source, int mode)
    {
        if (source < 0)
            first_(posix_spawn_file_actions_addopen(&actions_, number, "/dev/null", mode, 0));
        else
            first_(posix_spawn_file_actions_adddup2(&actions_, source, number));
    }

    posix_spawn_file_actions_t actions_;
    int made_; // or why not
    First first_;
};

class Attributes {
  public:
    Attributes() : made_(posix_spawnattr_init(&attributes_)) {}
    Attributes(const Attributes &) = delete;
    Attributes &operator=(const Attributes &) = delete;
    ~Attributes()
    {
        if (made_ == 0)
            posix_spawnattr_destroy(&attributes_);
    }

    int fill(const Launch &launch)
    {
        if (made_ != 0)
            return made_;
        sigset_t all, mask;
        sigfillset(&all);
        sigemptyset(&mask);
        if (launch.block_signals) {
            sigfillset(&mask);
            sigdelset(&mask, SIGCHLD);
        }
        first_(posix_spawnattr_setsigdefault(&attributes_, &all));
        first_(posix_spawnattr_setsigmask(&attributes_, &mask));
        first_(posix_spawnattr_setpgroup(&attributes_, launch.group));
        first_(posix_spawnattr_setflags(
            &attributes_, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP));
        return first_.error();
    }
    const posix_spawnattr_t *get() const { return &attributes_; }

  private:
    posix_spawnattr_t attributes_;
    int made_; // or why not
    First first_;
};

// Where the host reaps every child, the number may have been reused, and the `end` be a stranger's
// that is a child of the host's too. What the library started is in its group, or has moved itself
// to one that it leads. (Without an `end` the system may be one whose posix_spawn() returns before
// its child has joined the group, as under valgrind.)
bool is_lost(const Process &child, pid_t group)
{
    siginfo_t info;
    if (wait_for(child, info, WEXITED | WNOHANG | WNOWAIT) != 0)
        return errno == ECHILD;
    pid_t its = getpgid(child.pid); // 0: one that has no number in this pid namespace
    return child.end && its >= 0 && its != child.pid && (group == 0 || its != group);
}

} // namespace

int spawn(const Launch &launch, Process &child, bool &lost)
{
    Actions actions;
    Attributes attributes;
    int result = actions.fill(launch);
    if (result == 0)
        result = attributes.fill(launch);
    if (result == 0)
        result = posix_spawnp(&child.pid, launch.program, actions.get(), attributes.get(),
                              launch.argv, launch.env);
    if (result != 0) {
        child.pid = 0;
        return result;
    }
    child.end = open_end(child.pid);
    lost = (!child.end && errno == ESRCH) || is_lost(child, launch.group);
    if (lost)
        child.end.reset();
    return 0;
}

Life look(const Process &child, Exit &exit)
{
    siginfo_t info;
    // Asked before: who is over then is a zombie, which nobody but a tracer can keep from its
    // parent.
    bool over = child.end && is_over(child);
    if (wait_for(child, info, WEXITED | WNOHANG | WNOWAIT) != 0)
        return errno == ECHILD ? Life::Gone : Life::Alive;
    if (info.si_pid == 0)
        return over ? Life::Ended : Life::Alive;
    if (info.si_code == CLD_EXITED)
        exit.code = info.si_status;
    else
        exit.signal = info.si_status;
    return Life::Ended;
}

bool reap(const Process &child)
{
    siginfo_t info;
    return wait_for(child, info, WEXITED | WNOHANG) != 0 || info.si_pid != 0;
}

} // namespace kpi::sys
