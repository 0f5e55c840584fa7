// SPDX-License-Identifier: Apache-2.0
#include "guard.h"
#include "error.h"
#include "platform/file.h"
#include "platform/host.h"
#include <stdio.h>
#include <string.h>

namespace kpi {

namespace {

// The signals of the group's stop and of the terminal do not end it: ignored by the trap from there
// on, blocked from its first instruction on (dash empties its mask at its first external command).
// The read returns when the host is gone. The trap on EXIT is for a shell that can't fork its
// sleep. A sleep that knows no fractions gets whole seconds; it is looked for where the host's PATH
// does not lead, too: without it there would be no grace.
constexpr char kScript[] = "trap '' HUP INT QUIT TERM TSTP TTIN TTOU\n"
                           "read nothing\n"
                           "PATH=${PATH:+$PATH:}/usr/bin:/bin\n"
                           "trap 'kill -KILL 0' EXIT\n"
                           "kill -TERM 0\n"
                           "kill -CONT 0\n"
                           "sleep %u.%03u || sleep %u\n"
                           "kill -KILL 0\n";

// The shell finds its sleep by PATH; nothing else of the host's concerns it.
char *find_path(char **environment)
{
    for (; *environment != nullptr; ++environment)
        if (strncmp(*environment, "PATH=", 5) == 0)
            return *environment;
    return nullptr;
}

int spawn_shell(char *script, int input, Child &guard)
{
    char shell[] = "/bin/sh", option[] = "-c", name[] = "kp-guard";
    char *argv[] = {shell, option, script, name, nullptr};
    char *env[] = {find_path(sys::environment()), nullptr};
    sys::Launch launch = {};
    launch.program = shell;
    launch.argv = argv;
    launch.env = env;
    launch.cwd = "/";
    launch.input = input;
    launch.output = -1;
    launch.block_signals = true;
    return guard.spawn(launch);
}

} // namespace

kp_result start_guard(uint32_t grace_ms, Child &guard, Fd &pipe, kp_error *error)
{
    char script[sizeof kScript + 32];
    uint32_t seconds = grace_ms / 1000, rest = grace_ms % 1000;
    snprintf(script, sizeof script, kScript, seconds, rest, seconds + (rest != 0));
    Fd read_end;
    int result = sys::make_pipe(read_end, pipe);
    if (result != 0)
        return fail_system(error, result, "make the guard's pipe");
    result = spawn_shell(script, read_end.get(), guard);
    if (result != 0)
        return fail_guard_spawn(error, result);
    return KP_OK;
}

} // namespace kpi
