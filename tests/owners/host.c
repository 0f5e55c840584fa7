/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host of the tests about owners of a listener: starts one proxy, tells what came of it,
 * and frees it when its own standard input ends.
 *
 *     host [OPTION]... -- COMMAND [ARGUMENT]...
 *
 *   any               KP_SPEC_ANY_LISTENER
 *   http              KP_SPEC_PROBE_HTTP
 *   no-guard          KP_SPEC_NO_GUARD
 *   timeout=MS        the start-up time-out; 20000 without
 *   grace=MS          the stop's; 300 without
 *   hold              wait for a line on standard input before the first look at the proxy
 *   no-netlink=ERRNO  have the kernel refuse a socket(AF_NETLINK) with this number
 *   no-info=ERRNO     have it refuse PIDFD_GET_INFO (before Linux 6.13: ENOTTY)
 *   no-pidfd=ERRNO    have it refuse a pidfd
 *   become=UID        become this user, after what root had refused: its programs may be setuid
 *
 * Prints, each on a line: "started PORT PID"; "result NAME" and "message TEXT"; "took MS",
 * from the first look to the result; after the end of its input "freed MS", and "children none"
 * or "children left", zombies too.
 */
#include <errno.h>
#include <grp.h>
#include <kp/kp.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIFETIME_S = 40, EXIT_USAGE = 2, EXIT_CANNOT = 4, PIDFD_CALLS = 0xFF00 };

static bool hold;

static _Noreturn void stop_with(int status, const char *what)
{
    fprintf(stderr, "host: %s: %s\n", what, strerror(errno));
    exit(status);
}

/* ---- Options ------------------------------------------------------------ */

/* Where these bits of this argument are so. All of the filter's system calls are this machine's:
 * the host makes no others. */
static void refuse(unsigned call, unsigned argument, unsigned bits, unsigned so, unsigned error)
{
    unsigned offset = (unsigned)(offsetof(struct seccomp_data, args) + 8 * argument);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, bits),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, so, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof code[0], code};
    if ((geteuid() != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        stop_with(EXIT_CANNOT, "seccomp");
}

static void refuse_netlink(unsigned error)
{
    refuse(SYS_socket, 0, UINT_MAX, AF_NETLINK, error);
    if (socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) >= 0 || errno != (int)error)
        stop_with(EXIT_CANNOT, "netlink is still there");
}

static void become(uid_t user)
{
    if (setgroups(0, NULL) != 0 || setresgid(user, user, user) != 0 ||
        setresuid(user, user, user) != 0)
        stop_with(EXIT_CANNOT, "setresuid");
}

static bool takes_number(const char *option, const char *name, unsigned *value)
{
    size_t length = strlen(name);
    if (strncmp(option, name, length) != 0)
        return false;
    *value = (unsigned)strtoul(option + length, NULL, 10);
    return true;
}

static void take_option(const char *option, kp_spec *spec)
{
    unsigned error = 0, user = 0;
    if (takes_number(option, "timeout=", &spec->startup_timeout_ms) ||
        takes_number(option, "grace=", &spec->stop_grace_ms))
        return;
    if (strcmp(option, "any") == 0)
        spec->flags |= KP_SPEC_ANY_LISTENER;
    else if (strcmp(option, "http") == 0)
        spec->flags |= KP_SPEC_PROBE_HTTP;
    else if (strcmp(option, "no-guard") == 0)
        spec->flags |= KP_SPEC_NO_GUARD;
    else if (strcmp(option, "hold") == 0)
        hold = true;
    else if (takes_number(option, "no-netlink=", &error))
        refuse_netlink(error);
    else if (takes_number(option, "no-info=", &error))
        refuse(SYS_ioctl, 1, PIDFD_CALLS, PIDFD_CALLS, error);
    else if (takes_number(option, "no-pidfd=", &error))
        refuse(SYS_pidfd_open, 0, 0, 0, error);
    else if (takes_number(option, "become=", &user))
        become(user);
    else
        stop_with(EXIT_USAGE, option);
}

static kp_spec read_command_line(char **arguments)
{
    kp_spec spec = {.size = sizeof spec, .startup_timeout_ms = 20000, .stop_grace_ms = 300};
    for (; *arguments != NULL && strcmp(*arguments, "--") != 0; arguments++)
        take_option(*arguments, &spec);
    if (*arguments == NULL)
        stop_with(EXIT_USAGE, "no command");
    spec.argv = arguments + 1;
    return spec;
}

/* ---- One proxy's life --------------------------------------------------- */

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void tell_result(kp_result result, const kp_error *error, long since)
{
    printf("result %s\n", kp_result_name(result));
    printf("message %s\n", result == KP_OK ? "" : error->message);
    printf("took %ld\n", now_ms() - since);
    fflush(stdout);
}

static kp_handle *start(const kp_spec *spec)
{
    kp_handle *proxy;
    kp_error error;
    long began = now_ms();
    kp_result result = kp_start(spec, &proxy, &error);
    if (result == KP_OK) {
        printf("started %d %ld\n", kp_handle_port(proxy), (long)kp_handle_pid(proxy));
        fflush(stdout);
    } else {
        tell_result(result, &error, began);
    }
    return proxy;
}

static void wait_for_line(void)
{
    char byte = 0;
    while (read(STDIN_FILENO, &byte, 1) > 0 && byte != '\n')
        ;
}

static void wait_for_end_of_input(void)
{
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

static void get_ready(kp_handle *proxy)
{
    kp_error error;
    if (hold)
        wait_for_line();
    long began = now_ms();
    kp_result result = kp_handle_wait(proxy, KP_STATE_READY, -1, &error);
    tell_result(result, &error, began);
}

static bool has_children(void)
{
    siginfo_t unused;
    return waitid(P_ALL, 0, &unused, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static void end(kp_handle *proxy)
{
    long began = now_ms();
    kp_handle_free(proxy);
    printf("freed %ld\n", now_ms() - began);
    printf("children %s\n", has_children() ? "left" : "none");
}

int main(int argc, char **argv)
{
    (void)argc;
    alarm(LIFETIME_S);
    kp_spec spec = read_command_line(argv + 1);
    kp_handle *proxy = start(&spec);
    if (proxy == NULL)
        return EXIT_FAILURE;
    get_ready(proxy);
    wait_for_end_of_input();
    end(proxy);
    return EXIT_SUCCESS;
}
