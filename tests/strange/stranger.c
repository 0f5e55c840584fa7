/* SPDX-License-Identifier: Apache-2.0 */
#include "stranger.h"
#include "../process.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ATTEMPTS = 300, LAST_SIGNAL = 64, EXIT_STATUS = 9 };

/* Shared by all processes of one test. */
static struct note {
    atomic_int pid; /* once it is ready */
    atomic_int total;
    atomic_int last;
    atomic_bool ends;
} * note;

/* ---- The stranger -------------------------------------------------------- */

static void count_signal(int signal_number)
{
    note->last = signal_number;
    note->total++;
}

static void count_all_signals(void)
{
    struct sigaction action = {.sa_handler = count_signal};
    for (int i = 1; i <= LAST_SIGNAL; i++)
        sigaction(i, &action, NULL); /* not SIGKILL and SIGSTOP: it would not live, or run */
}

static _Noreturn void be_stranger(bool leads)
{
    for (int fd = STDERR_FILENO + 1; fd < MAX_FDS; fd++)
        close(fd);
    if (leads)
        setpgid(0, 0);
    count_all_signals();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    note->pid = getpid();
    while (!note->ends)
        usleep(2000);
    _exit(EXIT_STATUS);
}

/* Who else forks in the namespace may be faster. */
static void fork_stranger(pid_t number, bool leads)
{
    char before[16];
    snprintf(before, sizeof before, "%ld", (long)number - 1);
    for (int i = 0; i < ATTEMPTS; i++) {
        CHECK(write_to("/proc/sys/kernel/ns_last_pid", before));
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0 && getpid() == number)
            be_stranger(leads);
        if (pid == 0)
            _exit(0);
        if (pid == number)
            return;
        waitpid(pid, NULL, 0);
    }
    check_failed(__FILE__, __LINE__, "the number could not be had");
}

/* ---- Init, which makes them too ------------------------------------------- */

struct order {
    pid_t number;
    bool leads;
};

static int channel = -1;
static host_body *host;

static _Noreturn void be_host(struct scene *scene, int end)
{
    channel = end;
    host(scene);
    _exit(0);
}

static void make_strangers(struct scene *scene)
{
    int ends[2], status = 0;
    struct order order;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        be_host(scene, ends[1]);
    }
    close(ends[1]);
    for (pid_t reaped = 0; reaped != pid;) {
        struct pollfd orders = {.fd = ends[0], .events = POLLIN};
        if (poll(&orders, 1, 5) == 1 && read(ends[0], &order, sizeof order) == sizeof order)
            fork_stranger(order.number, order.leads);
        do /* orphans, too, who keep their group's number until then */
            reaped = waitpid(-1, &status, WNOHANG);
        while (reaped > 0 && reaped != pid);
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int beside_strangers(host_body *body, struct scene *scene)
{
    host = body;
    note = mmap(NULL, sizeof *note, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(note != MAP_FAILED);
    int status = as_init(PROC_FRESH, make_strangers, scene);
    munmap(note, sizeof *note);
    return status;
}

/* ---- The host ------------------------------------------------------------- */

static bool is_ready(const void *number)
{
    return note->pid == *(const pid_t *)number;
}

void take_number(pid_t number, enum whose whose, bool leads)
{
    struct order order = {number, leads};
    note->total = note->pid = 0;
    note->ends = false;
    if (whose == THE_HOSTS)
        fork_stranger(number, leads);
    else
        CHECK(write(channel, &order, sizeof order) == sizeof order);
    CHECK(eventually(is_ready, &number));
    CHECK((getpgid(number) == number) == leads);
    struct process process;
    CHECK(process_read(number, &process));
    CHECK((process.parent == getpid()) == (whose == THE_HOSTS));
}

static bool is_free(const void *data)
{
    pid_t number = *(const pid_t *)data;
    return kill(number, 0) != 0 && errno == ESRCH && kill(-number, 0) != 0 && errno == ESRCH;
}

void await_free(pid_t number)
{
    CHECK(eventually(is_free, &number));
}

static bool is_told(const void *unused)
{
    (void)unused;
    return note->total != 0;
}

static long io_class_of(pid_t pid)
{
    return syscall(SYS_ioprio_get, 1, pid) >> 13;
}

void check_unharmed(void)
{
    if (note->total != 0)
        dprintf(STDERR_FILENO, "%d signals, the last of them %d\n", note->total, note->last);
    struct process process;
    CHECK(note->total == 0);
    CHECK(process_read(note->pid, &process) && process.state != 'Z' && process.state != 'T');
    CHECK(getpriority(PRIO_PROCESS, (id_t)note->pid) == getpriority(PRIO_PROCESS, 0));
    CHECK(io_class_of(note->pid) == io_class_of(0));
    CHECK(kill(note->pid, SIGTERM) == 0);
    CHECK(eventually(is_told, NULL) && note->last == SIGTERM);
    note->total = 0;
}

void end_stranger(void)
{
    note->ends = true;
}

struct list {
    pid_t group, *pids;
    size_t size, found;
};

static bool visit_member(const struct process *process, void *data)
{
    struct list *list = data;
    if (process->group == list->group && process_lives_in(process) && list->found < list->size)
        list->pids[list->found++] = process->pid;
    return true;
}

size_t list_group(pid_t group, pid_t *pids, size_t size)
{
    struct list list = {group, pids, size, 0};
    process_each(visit_member, &list);
    return list.found;
}

static bool visit_left(const struct process *process, void *data)
{
    size_t *left = data;
    *left += process_lives_in(process) && process->pid != 1 && process->pid != getpid() &&
             process->pid != note->pid;
    return true;
}

static bool is_nothing_left(const void *unused)
{
    size_t left = 0;
    (void)unused;
    process_each(visit_left, &left);
    return left == 0;
}

bool nothing_left_but_stranger(void)
{
    return eventually(is_nothing_left, NULL);
}
