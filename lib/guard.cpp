// SPDX-License-Identifier: Apache-2.0
#include "guard.h"
#include "error.h"
#include "platform/file.h"
#include "platform/host.h"
#include <stdio.h>
#include <string.h>

namespace kpi {

namespace {

// What is sent to the group does not end it: blocked from its first instruction on, and the usual
// signals ignored by the trap from there on. dash empties its mask when it first waits for a child,
// and dies of what has come until then; so the one that ends the group is a child that waits for
// nobody but reads a pipe until the sleep is over (before: of 59 signals tried 49 left a deaf proxy
// behind a dash). For the sleep dash empties it too, unless that is an exec's. The first read
// returns when the host is gone. The trap on EXIT is for a shell that can't fork. A sleep that
// knows no fractions gets whole seconds; it is looked for where the host's PATH does not lead, too:
// without it there would be no grace.
constexpr char kScript[] =
    "trap '' HUP INT QUIT TERM TSTP TTIN TTOU ALRM PIPE USR1 USR2\n"
    "read nothing\n"
    "PATH=${PATH:+$PATH:}/usr/bin:/bin\n"
    "trap 'kill -KILL 0' EXIT\n"
    "kill -TERM 0\n"
    "kill -CONT 0\n"
    "{ (exec sleep %u.%03u) || exec sleep %u; } | { read nothing; kill -KILL 0; }\n";

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
