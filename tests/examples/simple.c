/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a command behind a proxy: the first example of kp.h, made complete.
 *
 *     simple PROXY [ARGUMENT...] -- COMMAND [ARGUMENT...]
 *     simple tinyproxy -d -c tiny.conf -- curl https://example.org/
 *
 * The proxy finds its port in $KODA_PROXY_PORT. When it can't be started the command runs
 * without it: a host that must not do that returns instead.
 */
#include <kp/kp.h>

#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* Splits the arguments at "--"; the command, or NULL. */
static char **split(char **arguments)
{
    for (; *arguments != NULL; arguments++)
        if (strcmp(*arguments, "--") == 0) {
            *arguments = NULL;
            return arguments + 1;
        }
    return NULL;
}

/* The command's exit status, as a shell has it. */
static int run(char **command, char **env)
{
    pid_t pid;
    int status, error = posix_spawnp(&pid, command[0], NULL, NULL, command, env);
    if (error != 0) {
        fprintf(stderr, "%s: %s\n", command[0], strerror(error));
        return 127;
    }
    if (waitpid(pid, &status, 0) != pid)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
    char **command = argc > 1 ? split(argv + 1) : NULL;
    if (command == NULL || *command == NULL) {
        fprintf(stderr, "usage: simple PROXY [ARGUMENT...] -- COMMAND [ARGUMENT...]\n");
        return 2;
    }
    kp_spec spec = {.size = sizeof spec, .argv = argv + 1};
    kp_handle *proxy;
    kp_error error;
    if (kp_spawn(&spec, &proxy, &error) != KP_OK)
        fprintf(stderr, "going on without a proxy: %s\n%s\n", error.message, error.output);
    char **env = kp_env_new(proxy, NULL); /* proxy may be NULL here */
    int status = env == NULL ? 1 : run(command, env);
    kp_env_free(env);
    kp_handle_free(proxy); /* the proxy is gone now */
    return status;
}
