// SPDX-License-Identifier: Apache-2.0
// The world from the test's side.
#include "sim.h"
#include "memory.h"
#include "world.h"
#include <algorithm>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

using namespace sim;

// ---- the test's side

void sim_begin(uint64_t seed, unsigned quirks)
{
    world = World{};
    forget_memory();
    world.seed = seed;
    world.quirks = quirks;
}

void sim_teach(const sim_program *program)
{
    world.programs.push_back(program);
}

const char *sim_left()
{
    static std::string left;
    left.clear();
    for (size_t fd = 3; fd < world.table.size(); ++fd)
        if (world.table[fd].kind != Descriptor::Closed)
            left += "descriptor " + std::to_string(fd) + "; ";
    for (const Being &being : world.beings) {
        if (being.state == Being::Zombie && being.parent == kHost && being.ours && !being.held)
            left += "zombie " + std::to_string(being.pid) + "; ";
        if (being.state == Being::Alive && !being.program->stuck && being.ours &&
            (being.parent == kHost || !being.left))
            left += "process " + std::to_string(being.pid) + "; ";
    }
    if (world.blocks != 0)
        left += std::to_string(world.blocks) + " blocks of memory";
    return left.c_str();
}

int64_t sim_now()
{
    return world.now;
}

void sim_run(int64_t ns)
{
    run_until(world.now + ns);
}

int sim_readable(int fd)
{
    use(fd, Descriptor::Events, "sim_readable");
    return is_ready({fd, false});
}

int sim_run_until_readable(int fd)
{
    while (!sim_readable(fd)) {
        int64_t limit = use(use(fd, "sim").timer, Descriptor::Timer, "sim").due.at;
        bool happened = happen_next(limit);
        if (!happened && limit == kNever)
            return 0;
        if (!happened)
            run_until(limit);
    }
    return 1;
}

void sim_interrupt_after(int64_t ns)
{
    world.interrupt_at = world.now + ns;
}

void sim_lack_watches()
{
    world.short_of = kWatches;
}

namespace {

int64_t stop;

} // namespace

void sim_stop_host(long calls, int64_t ns)
{
    stop = ns;
    world.quiet_calls = calls;
    meanwhile = [] { run_until(world.now + stop); };
}

pid_t sim_pid(size_t nth)
{
    return nth < world.beings.size() ? world.beings[nth].pid : 0;
}

pid_t sim_group(pid_t pid)
{
    return find(pid).group;
}

int sim_nice(pid_t pid)
{
    return find(pid).nice;
}

int sim_lives(pid_t pid)
{
    return find(pid).state == Being::Alive;
}

int64_t sim_told(pid_t pid, int signo)
{
    return find(pid).told[signo];
}

int64_t sim_grace(pid_t guard)
{
    return find(guard).grace;
}

void sim_kill(pid_t pid, int signo)
{
    deliver(known(pid, "sim_kill"), signo);
}

void sim_join(pid_t pid, pid_t group)
{
    Being &being = find(pid);
    being.group = group;
    being.band = find(group).self;
    being.left = true;
}

size_t sim_living()
{
    return static_cast<size_t>(
        std::count_if(world.beings.begin(), world.beings.end(),
                      [](const Being &being) { return being.state == Being::Alive; }));
}

void sim_cut_off(int error, int64_t until)
{
    world.cut_off_by = error;
    world.cut_off_until = until;
}

void sim_occupy(uint16_t port, unsigned uid)
{
    world.occupied[port] = {uid, world.turn};
}

int sim_can_bind(uint16_t port)
{
    return !is_listened_on(port) && !is_reserved_from(port, true);
}

sim_counts sim_counted()
{
    return world.counts;
}

void sim_kill_host_everywhere()
{
    world.doubtful = true;
}

int sim_complains(void (*deed)())
{
    fflush(nullptr);
    pid_t pid = fork();
    if (pid == 0) {
        deed();
        _exit(0);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
