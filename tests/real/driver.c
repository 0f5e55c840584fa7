/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host of the tests with real proxies: starts one, tells about it, and stops it when
 * its own standard input ends.
 *
 *     driver FOLDER CA_BUNDLE COMMAND [NAME=value]...
 *
 * COMMAND is run by /bin/sh in FOLDER, with the variables given. What the proxy prints
 * goes to the file proxy.log there. Prints "ready PORT PID", the children's environment
 * as "env NAME=value" lines, and an empty line; after the stop "exited CODE SIGNAL".
 */
#include <fcntl.h>
#include <kp/kp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { STARTUP_TIMEOUT_MS = 30000, STOP_GRACE_MS = 5000 };

static int open_log(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/proxy.log", folder);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

static kp_handle *start(const char *folder, const char *ca_bundle, char *command, char **env)
{
    char shell[] = "/bin/sh", option[] = "-c";
    char *argv[] = {shell, option, command, NULL};
    kp_spec spec = {.size = sizeof spec,
                    .argv = argv,
                    .env = env,
                    .cwd = folder,
                    .ca_bundle = ca_bundle,
                    .log_fd = open_log(folder),
                    .startup_timeout_ms = STARTUP_TIMEOUT_MS,
                    .stop_grace_ms = STOP_GRACE_MS};
    kp_handle *proxy;
    kp_error error;
    if (kp_spawn(&spec, &proxy, &error) != KP_OK)
        fprintf(stderr, "driver: %s: %s\n%s", kp_result_name(error.code), error.message,
                error.output);
    close(spec.log_fd);
    return proxy;
}

static void tell(const kp_handle *proxy)
{
    char **env = kp_env_new(proxy, NULL);
    printf("ready %d %ld\n", kp_handle_port(proxy), (long)kp_handle_pid(proxy));
    for (char **variable = env; variable != NULL && *variable != NULL; variable++)
        printf("env %s\n", *variable);
    printf("\n");
    fflush(stdout);
    kp_env_free(env);
}

static void wait_for_end_of_input(void)
{
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

static int stop(kp_handle *proxy)
{
    kp_error error;
    int exit_code = -1, term_signal = 0;
    kp_handle_stop(proxy, -1);
    if (kp_handle_wait(proxy, KP_STATE_EXITED, -1, &error) != KP_OK) {
        fprintf(stderr, "driver: %s\n", error.message);
        return EXIT_FAILURE;
    }
    kp_handle_exit_status(proxy, &exit_code, &term_signal);
    printf("exited %d %d\n", exit_code, term_signal);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return EXIT_FAILURE;
    kp_handle *proxy = start(argv[1], argv[2], argv[3], argv + 4);
    if (proxy == NULL)
        return EXIT_FAILURE;
    tell(proxy);
    wait_for_end_of_input();
    int status = stop(proxy);
    kp_handle_free(proxy);
    return status;
}
