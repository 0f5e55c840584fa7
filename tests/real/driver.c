/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host of the tests with real proxies: starts one, tells about it, and does what its
 * own standard input asks for.
 *
 *     driver FOLDER CA_BUNDLE PORT FLAGS GRACE_MS COMMAND [NAME=value]...
 *
 * COMMAND is run by /bin/sh in FOLDER, with the variables given; FLAGS is the sum of
 * kp_spec.flags. What the proxy prints goes to the file proxy.log there. A line of input is
 * a command:
 *
 *     stop       stops the proxy; prints "exited CODE SIGNAL MICROSECONDS"
 *     restart    starts it again
 *
 * After each start it prints "ready PORT PID MICROSECONDS", the children's environment as
 * "env NAME=value" lines, and an empty line. Where the input ends it frees the handle and
 * exits: with 0 where all went well and the library has left no child and no descriptor.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kp/kp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STARTUP_TIMEOUT_MS = 30000 };

static long long microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static int open_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder != NULL && readdir(folder) != NULL)
        count++;
    if (folder != NULL)
        closedir(folder);
    return count;
}

static int open_log(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/proxy.log", folder);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

static int complain(const kp_error *error)
{
    fprintf(stderr, "driver: %s: %s\n%s\n", kp_result_name(error->code), error->message,
            error->output);
    return EXIT_FAILURE;
}

static uint32_t number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 10);
}

static kp_result start(char **argv, kp_handle **proxy, kp_error *error)
{
    char shell[] = "/bin/sh", option[] = "-c";
    char *command[] = {shell, option, argv[6], NULL};
    kp_spec spec = {.size = sizeof spec,
                    .argv = command,
                    .env = argv + 7,
                    .cwd = argv[1],
                    .ca_bundle = argv[2],
                    .port = number(argv[3]),
                    .flags = number(argv[4]),
                    .stop_grace_ms = number(argv[5]),
                    .log_fd = open_log(argv[1]),
                    .startup_timeout_ms = STARTUP_TIMEOUT_MS};
    kp_result result = kp_start(&spec, proxy, error);
    close(spec.log_fd);
    return result;
}

static void tell(const kp_handle *proxy, long long since)
{
    printf("ready %d %ld %lld\n", kp_handle_port(proxy), (long)kp_handle_pid(proxy),
           microseconds() - since);
    char **env = kp_env_new(proxy, NULL);
    for (char **variable = env; variable != NULL && *variable != NULL; variable++)
        printf("env %s\n", *variable);
    printf("\n");
    fflush(stdout);
    kp_env_free(env);
}

static int tell_when_ready(kp_handle *proxy, long long since)
{
    kp_error error;
    if (kp_handle_wait(proxy, KP_STATE_READY, -1, &error) != KP_OK)
        return complain(&error);
    tell(proxy, since);
    return EXIT_SUCCESS;
}

static int restart(kp_handle *proxy)
{
    kp_error error;
    long long since = microseconds();
    if (kp_handle_restart(proxy, &error) != KP_OK)
        return complain(&error);
    return tell_when_ready(proxy, since);
}

static int stop(kp_handle *proxy)
{
    kp_error error;
    int exit_code = -1, term_signal = 0;
    long long since = microseconds();
    kp_handle_stop(proxy, -1);
    if (kp_handle_wait(proxy, KP_STATE_EXITED, -1, &error) != KP_OK)
        return complain(&error);
    kp_handle_exit_status(proxy, &exit_code, &term_signal);
    printf("exited %d %d %lld\n", exit_code, term_signal, microseconds() - since);
    fflush(stdout);
    return EXIT_SUCCESS;
}

static int obey(kp_handle *proxy)
{
    char line[16];
    int status = EXIT_SUCCESS;
    while (status == EXIT_SUCCESS && fgets(line, sizeof line, stdin) != NULL)
        status = strcmp(line, "restart\n") == 0 ? restart(proxy) : stop(proxy);
    return status;
}

static int run(char **argv)
{
    kp_handle *proxy;
    kp_error error;
    long long since = microseconds();
    if (start(argv, &proxy, &error) != KP_OK)
        return complain(&error);
    int status = tell_when_ready(proxy, since);
    if (status == EXIT_SUCCESS)
        status = obey(proxy);
    kp_handle_free(proxy);
    return status;
}

static int check_nothing_left(int descriptors)
{
    int status = EXIT_SUCCESS;
    if (open_descriptors() != descriptors) {
        fprintf(stderr, "driver: %d descriptors before, %d after\n", descriptors,
                open_descriptors());
        status = EXIT_FAILURE;
    }
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD) {
        fprintf(stderr, "driver: a child is left\n");
        status = EXIT_FAILURE;
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 7)
        return EXIT_FAILURE;
    int descriptors = open_descriptors();
    int status = run(argv);
    return check_nothing_left(descriptors) == EXIT_SUCCESS ? status : EXIT_FAILURE;
}
