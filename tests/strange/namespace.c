/* SPDX-License-Identifier: Apache-2.0 */
#include "namespace.h"
#include "../process.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_S = 45 };

/* ---- Entering ------------------------------------------------------------ */

bool write_to(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return written;
}

static bool become_root(unsigned user, unsigned group)
{
    char users[32], groups[32];
    snprintf(users, sizeof users, "0 %u 1", user);
    snprintf(groups, sizeof groups, "0 %u 1", group);
    return write_to("/proc/self/setgroups", "deny") && write_to("/proc/self/uid_map", users) &&
           write_to("/proc/self/gid_map", groups);
}

/* The next fork is the namespace's init. */
static bool leave_namespaces(void)
{
    unsigned user = geteuid(), group = getegid();
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) == 0)
        return true;
    return unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS) == 0 && become_root(user, group);
}

/* Of this mount namespace alone: an instance of proc that is mounted again would be shared. */
static bool mount_proc(enum proc proc)
{
    if (proc == PROC_OF_PARENT)
        return true;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return false;
    if (proc == PROC_ABSENT)
        return mount("none", "/proc", "tmpfs", 0, NULL) == 0;
    const char *options = proc == PROC_HIDING ? "hidepid=2" : NULL;
    return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) == 0;
}

static struct {
    enum proc proc;
    host_body *host;
} plan;

/* For the child of an init; the exit status of that. */
static int reap_until_gone(pid_t pid)
{
    int status;
    pid_t reaped;
    while ((reaped = waitpid(-1, &status, 0)) != pid)
        CHECK(reaped > 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* cmocka goes on with its next test after one that dies: here that would be another one's. */
static void die_of_faults(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGABRT};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        signal(faults[i], SIG_DFL);
}

static void enter(struct scene *scene)
{
    die_of_faults();
    alarm(LIMIT_S); /* no default action ends an init, but the death of its parent does */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(leave_namespaces());
    pid_t init = fork();
    CHECK(init >= 0);
    if (init > 0)
        _exit(reap_until_gone(init));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(getpid() == 1);
    CHECK(mount_proc(plan.proc));
    plan.host(scene);
    _exit(0);
}

int as_init(enum proc proc, host_body *host, struct scene *scene)
{
    plan.proc = proc;
    plan.host = host;
    return in_child(enter, scene);
}

static host_body *below;

static void be_init(struct scene *scene)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0)
        _exit(reap_until_gone(pid));
    below(scene);
    _exit(0);
}

int below_init(enum proc proc, host_body *host, struct scene *scene)
{
    below = host;
    return as_init(proc, be_init, scene);
}

/* ---- What is not there --------------------------------------------------- */

static bool must_be_there(void)
{
    const char *require = getenv("KP_TEST_REQUIRE");
    return require != NULL && strcmp(require, "1") == 0;
}

int leave_out(const char *reason)
{
    printf("1..0 # SKIP %s\n", reason);
    return must_be_there() ? EXIT_FAILURE : EXIT_SUCCESS;
}

bool left_out_part(const char *part, const char *reason)
{
    left_out(part, reason);
    if (must_be_there())
        fail_msg("%s is left out", part);
    return true;
}

static void do_nothing(struct scene *scene)
{
    (void)scene;
}

int leave_out_without_namespaces(void)
{
    if (as_init(PROC_FRESH, do_nothing, NULL) == 0)
        return -1;
    return leave_out("no pid namespace with a /proc of its own is to be had here");
}

int leave_out_without_root(void)
{
    return geteuid() == 0 ? -1 : leave_out("only root can become other users");
}

/* ---- Who is there -------------------------------------------------------- */

static bool is_alone(const void *unused)
{
    (void)unused;
    return kill(-1, 0) != 0 && errno == ESRCH;
}

bool alone_in_namespace(void)
{
    return eventually(is_alone, NULL);
}

size_t reap_all(void)
{
    size_t reaped = 0;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        reaped++;
    return reaped;
}
