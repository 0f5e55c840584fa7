/* SPDX-License-Identifier: Apache-2.0 */
#include "faults.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- The plan ------------------------------------------------------------- */

static struct {
    const struct plan *plan;
    struct outcome *outcome;
    enum arrival arrival;
    int startup_ms;
    bool inside, armed, old;
    long live;
    unsigned connects; /* since the proxy was started */
    int listener;      /* the test's own */
    pid_t spawned[MOST_SPAWNED];
    size_t spawned_count;
} now;

void wrap_begin(const struct plan *plan, struct outcome *outcome, enum arrival arrival,
                int startup_ms, bool old)
{
    now.plan = plan;
    now.outcome = outcome;
    now.arrival = arrival;
    now.startup_ms = startup_ms;
    now.old = old;
    now.armed = true;
    now.connects = 0;
    now.listener = -1;
    now.spawned_count = 0;
}

void wrap_enter(void)
{
    now.inside = true;
}

void wrap_leave(void)
{
    now.inside = false;
}

void wrap_disarm(void)
{
    now.armed = false;
}

long wrap_live(void)
{
    return now.live;
}

bool wrap_spawned(pid_t pid)
{
    for (size_t i = 0; i < now.spawned_count; i++)
        if (now.spawned[i] == pid)
            return true;
    return false;
}

static bool is_due(const struct fault *fault, enum function_id function)
{
    unsigned calls = now.outcome->calls[function];
    return fault->function == function &&
           (calls == fault->call || (fault->lasts && calls > fault->call));
}

/* The error number that this call is to fail with; 0: it is not to fail. */
static int fault(enum function_id function)
{
    struct outcome *outcome = now.outcome;
    if (!now.inside || !now.armed)
        return 0;
    outcome->calls[function]++;
    for (size_t i = 0; i < outcome->hit; i++)
        if (now.plan->faults[i].lasts && is_due(&now.plan->faults[i], function))
            return now.plan->faults[i].error;
    if (outcome->hit == now.plan->count || !is_due(&now.plan->faults[outcome->hit], function))
        return 0;
    const struct fault *hit = &now.plan->faults[outcome->hit++];
    if (!hit->lasts)
        memset(outcome->calls, 0, sizeof outcome->calls);
    return hit->error;
}

/* ---- The proxy's arrival -------------------------------------------------- */

void sleep_us(long us)
{
    struct timespec rest = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    while (nanosleep(&rest, &rest) != 0)
        ;
}

uint16_t port_beside(uint16_t port)
{
    return (uint16_t)(port ^ 1);
}

static struct sockaddr_in address_of(uint32_t host, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(host);
    return address;
}

int __real_connect(int fd, const struct sockaddr *address, socklen_t size);
int __real_socket(int domain, int type, int protocol);

/* From an address of its own, so that it can't meet itself. */
bool port_is_open(uint16_t port)
{
    struct sockaddr_in from = address_of(0x7f000003, 0), to = address_of(INADDR_LOOPBACK, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool open = fd >= 0 && bind(fd, (const struct sockaddr *)&from, sizeof from) == 0 &&
                connect(fd, (const struct sockaddr *)&to, sizeof to) == 0;
    if (fd >= 0)
        close(fd);
    return open;
}

static uint16_t port_in(char *const env[])
{
    for (; *env != NULL; env++)
        if (strncmp(*env, "KODA_PROXY_PORT=", 16) == 0)
            return (uint16_t)atoi(*env + 16);
    return 0;
}

static bool has_ended(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
}

/* A stranger's, as far as the library can know. */
static void listen_for(uint16_t port)
{
    struct sockaddr_in address = address_of(INADDR_LOOPBACK, port);
    int on = 1;
    if (now.listener >= 0)
        return;
    now.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(now.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bind(now.listener, (const struct sockaddr *)&address, sizeof address);
    listen(now.listener, SOMAXCONN);
}

void wrap_close(void)
{
    if (now.listener >= 0)
        close(now.listener);
    now.listener = -1;
}

static bool has_arrived(pid_t pid, uint16_t port)
{
    switch (now.arrival) {
    case LISTENS:
        return port_is_open(port);
    case LISTENS_BESIDE:
        return port_is_open(port_beside(port));
    case ENDS:
        return has_ended(pid);
    case LISTENED_FOR:
        listen_for(port);
        return true;
    case NEVER:
        return true;
    }
    return true;
}

/* One that can't arrive, since a fault kept it from that, is not waited for for long. */
static void await_arrival(pid_t pid, uint16_t port)
{
    now.inside = false;
    for (int i = 0; i < 20000 && !has_arrived(pid, port) && !(i > 20 && has_ended(pid)); i++)
        sleep_us(50);
    now.inside = true;
}

int __real_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[],
                        char *const envp[]);
int __wrap_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[],
                        char *const envp[]);
int __wrap_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    int error = fault(F_SPAWN);
    if (error != 0)
        return error;
    int result = __real_posix_spawnp(pid, file, actions, attributes, argv, envp);
    if (result == 0 && now.spawned_count < MOST_SPAWNED)
        now.spawned[now.spawned_count++] = *pid;
    now.connects = 0;
    uint16_t port = port_in(envp); /* 0: it is the guard */
    if (result == 0 && port != 0)
        await_arrival(*pid, port);
    return result;
}

/* The first probe is refused, as it is where the proxy takes a while; and where it never listens,
 * two are as many as the time-out lets pass. */
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    int error = fault(F_CONNECT);
    if (now.inside)
        now.connects++;
    if (error == 0 && now.inside && now.connects == 1)
        error = ECONNREFUSED;
    if (now.inside && now.connects == 3 && (now.arrival == LISTENS_BESIDE || now.arrival == NEVER))
        sleep_us(now.startup_ms * 1000L);
    if (error == 0)
        return __real_connect(fd, address, size);
    errno = error;
    return -1;
}

/* ---- Allocations ---------------------------------------------------------- */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    int error = fault(F_MALLOC);
    void *memory = error == 0 ? __real_malloc(size) : NULL;
    if (error != 0)
        errno = error;
    if (now.inside)
        now.live += memory != NULL;
    return memory;
}

void __real_free(void *memory);
void __wrap_free(void *memory);
void __wrap_free(void *memory)
{
    if (now.inside)
        now.live -= memory != NULL;
    __real_free(memory);
}

void *__real_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    errno = fault(F_MMAP);
    void *memory = errno != 0 ? MAP_FAILED : __real_mmap64(at, size, protection, flags, fd, offset);
    if (now.inside)
        now.live += memory != MAP_FAILED;
    return memory;
}

int __real_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size)
{
    if (now.inside)
        now.live--;
    return __real_munmap(at, size);
}

/* What the kernel wipes on a fork the process keeps for good. */
int __real_madvise(void *at, size_t size, int advice);
int __wrap_madvise(void *at, size_t size, int advice);
int __wrap_madvise(void *at, size_t size, int advice)
{
    errno = fault(F_MADVISE);
    int result = errno != 0 ? -1 : __real_madvise(at, size, advice);
    if (now.inside)
        now.live -= result == 0;
    return result;
}

FILE *__real_setmntent(const char *path, const char *mode);
FILE *__wrap_setmntent(const char *path, const char *mode);
FILE *__wrap_setmntent(const char *path, const char *mode)
{
    errno = fault(F_SETMNTENT);
    FILE *file = errno == 0 ? __real_setmntent(path, mode) : NULL;
    now.live += file != NULL;
    return file;
}

int __real_endmntent(FILE *file);
int __wrap_endmntent(FILE *file);
int __wrap_endmntent(FILE *file)
{
    now.live--;
    return __real_endmntent(file);
}

struct mntent *__real_getmntent_r(FILE *file, struct mntent *entry, char *text, int size);
struct mntent *__wrap_getmntent_r(FILE *file, struct mntent *entry, char *text, int size);
struct mntent *__wrap_getmntent_r(FILE *file, struct mntent *entry, char *text, int size)
{
    errno = fault(F_GETMNTENT);
    return errno == 0 ? __real_getmntent_r(file, entry, text, size) : NULL;
}

/* ---- Those that return -1 ------------------------------------------------- */

#define WRAP(type, name, function, parameters, ...)                                                \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        int kept = errno, error = fault(function);                                                 \
        errno = error != 0 ? error : kept;                                                         \
        return error != 0 ? -1 : __real_##name(__VA_ARGS__);                                       \
    }

struct dirent64;

WRAP(int, socket, F_SOCKET, (int domain, int type, int protocol), domain, type, protocol)
WRAP(int, bind, F_BIND, (int fd, const struct sockaddr *to, socklen_t size), fd, to, size)
WRAP(int, setsockopt, F_SETSOCKOPT,
     (int fd, int level, int option, const void *value, socklen_t size), fd, level, option, value,
     size)
WRAP(int, getsockname, F_GETSOCKNAME, (int fd, struct sockaddr *to, socklen_t *size), fd, to, size)
WRAP(int, getpeername, F_GETPEERNAME, (int fd, struct sockaddr *to, socklen_t *size), fd, to, size)
WRAP(ssize_t, send, F_SEND, (int fd, const void *data, size_t size, int flags), fd, data, size,
     flags)
WRAP(ssize_t, recv, F_RECV, (int fd, void *data, size_t size, int flags), fd, data, size, flags)
WRAP(int, shutdown, F_SHUTDOWN, (int fd, int how), fd, how)
WRAP(int, pipe2, F_PIPE, (int ends[2], int flags), ends, flags)
WRAP(ssize_t, read, F_READ, (int fd, void *data, size_t size), fd, data, size)
WRAP(ssize_t, pread64, F_PREAD, (int fd, void *data, size_t size, off_t at), fd, data, size, at)
WRAP(ssize_t, readlink, F_READLINK, (const char *path, char *text, size_t size), path, text, size)
WRAP(ssize_t, readlinkat, F_READLINKAT, (int fd, const char *path, char *text, size_t size), fd,
     path, text, size)
WRAP(int, stat64, F_STAT, (const char *path, struct stat *info), path, info)
WRAP(int, lstat64, F_STAT, (const char *path, struct stat *info), path, info)
WRAP(int, fstat64, F_FSTAT, (int fd, struct stat *info), fd, info)
WRAP(int, faccessat, F_ACCESS, (int fd, const char *path, int mode, int flags), fd, path, mode,
     flags)

int __real_isatty(int fd);
int __wrap_isatty(int fd);
int __wrap_isatty(int fd)
{
    errno = fault(F_ISATTY);
    return errno == 0 ? __real_isatty(fd) : 0;
}

WRAP(int, poll, F_POLL, (struct pollfd * list, nfds_t count, int timeout), list, count, timeout)
WRAP(int, ppoll, F_PPOLL,
     (struct pollfd * list, nfds_t count, const struct timespec *timeout, const sigset_t *mask),
     list, count, timeout, mask)
WRAP(int, epoll_create1, F_EPOLL_CREATE, (int flags), flags)
WRAP(int, timerfd_create, F_TIMER_CREATE, (int clock, int flags), clock, flags)
WRAP(int, kill, F_KILL, (pid_t pid, int signo), pid, signo)
WRAP(pid_t, getpgid, F_GETPGID, (pid_t pid), pid)
WRAP(int, getpriority, F_GETPRIORITY, (int which, id_t who), which, who)
WRAP(int, setpriority, F_SETPRIORITY, (int which, id_t who, int value), which, who, value)

/* Taking away what is there allocates nothing: that can't fail. */
int __real_epoll_ctl(int fd, int operation, int what, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int operation, int what, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int operation, int what, struct epoll_event *event)
{
    int error = operation == EPOLL_CTL_DEL ? 0 : fault(F_EPOLL_ADD);
    if (error == 0)
        return __real_epoll_ctl(fd, operation, what, event);
    errno = error;
    return -1;
}

/* It is closed all the same, as on Linux. */
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    int error = fault(F_CLOSE);
    int result = __real_close(fd);
    if (error == 0)
        return result;
    errno = error;
    return -1;
}

/* That the status is lost is true only once it is. */
int __real_waitid(idtype_t type, id_t id, siginfo_t *info, int options);

static int lose(idtype_t type, id_t id, siginfo_t *info)
{
    siginfo_t found = {0};
    int result = __real_waitid(type, id, &found, WEXITED | WNOHANG | WNOWAIT);
    memset(info, 0, sizeof *info);
    if (result == 0 && found.si_pid == 0)
        return 0;
    __real_waitid(type, id, &found, WEXITED | WNOHANG);
    errno = ECHILD;
    return -1;
}

int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options);
int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    int error = fault(type == P_PID ? F_WAIT_PID : F_WAIT_PIDFD);
    if (error == 0)
        return __real_waitid(type, id, info, options);
    if (error == ECHILD)
        return lose(type, id, info);
    errno = error;
    return -1;
}

/* ---- Those with any number of arguments ----------------------------------- */

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    int error = fault(F_OPEN);
    if (error == 0)
        return __real_open64(path, flags);
    errno = error;
    return -1;
}

static enum function_id fcntl_function(int command)
{
    switch (command) {
    case F_DUPFD_CLOEXEC:
        return F_DUPLICATE;
    case F_SETFL:
        return F_STATUS_FLAGS;
    case F_SETPIPE_SZ:
        return F_PIPE_SIZE;
    default:
        return F_FCNTL_GET;
    }
}

int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    int value = command == F_GETFD || command == F_GETFL ? 0 : va_arg(arguments, int);
    va_end(arguments);
    int error = fault(fcntl_function(command));
    if (error == 0)
        return __real_fcntl64(fd, command, value);
    errno = error;
    return -1;
}

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    int error = fault(F_PIDFD_INFO);
    if (error == 0)
        return __real_ioctl(fd, request, data);
    errno = error;
    return -1;
}

static enum function_id call_function(long number)
{
    switch (number) {
    case SYS_getdents64:
        return F_GETDENTS;
    case SYS_pidfd_open:
        return F_PIDFD_OPEN;
    case SYS_pidfd_send_signal:
        return F_PIDFD_SIGNAL;
    case SYS_ioprio_set:
        return F_IOPRIO_SET;
    case SYS_ioprio_get:
        return F_IOPRIO_GET;
    case SYS_capget:
        return F_CAPGET;
    }
    fprintf(stderr, "system call %ld is not in the list of functions\n", number);
    abort();
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list arguments;
    long each[4];
    va_start(arguments, number);
    for (int i = 0; i < 4; i++)
        each[i] = va_arg(arguments, long); /* none of the calls has more */
    va_end(arguments);
    bool lacks = now.old && number == SYS_pidfd_open;
    int error = lacks ? ENOSYS : now.inside ? fault(call_function(number)) : 0;
    if (error == 0)
        return __real_syscall(number, each[0], each[1], each[2], each[3]);
    errno = error;
    return -1;
}

/* ---- posix_spawn's objects ------------------------------------------------ */

/* One that could not be made holds anything. */
#define WRAP_OBJECT(object, init, destroy, function)                                               \
    int __real_##init(object *it);                                                                 \
    int __wrap_##init(object *it);                                                                 \
    int __wrap_##init(object *it)                                                                  \
    {                                                                                              \
        int error = fault(function);                                                               \
        if (error == 0)                                                                            \
            error = __real_##init(it);                                                             \
        else                                                                                       \
            memset(it, 0xa5, sizeof *it);                                                          \
        now.live += error == 0;                                                                    \
        return error;                                                                              \
    }                                                                                              \
    int __real_##destroy(object *it);                                                              \
    int __wrap_##destroy(object *it);                                                              \
    int __wrap_##destroy(object *it)                                                               \
    {                                                                                              \
        now.live--;                                                                                \
        return __real_##destroy(it);                                                               \
    }

WRAP_OBJECT(posix_spawn_file_actions_t, posix_spawn_file_actions_init,
            posix_spawn_file_actions_destroy, F_ACTIONS_INIT)
WRAP_OBJECT(posix_spawnattr_t, posix_spawnattr_init, posix_spawnattr_destroy, F_SPAWNATTR_INIT)

#define WRAP_ACTION(name, function, parameters, ...)                                               \
    int __real_##name parameters;                                                                  \
    int __wrap_##name parameters;                                                                  \
    int __wrap_##name parameters                                                                   \
    {                                                                                              \
        int error = fault(function);                                                               \
        return error != 0 ? error : __real_##name(__VA_ARGS__);                                    \
    }

WRAP_ACTION(posix_spawn_file_actions_addopen, F_ACTIONS_OPEN,
            (posix_spawn_file_actions_t * it, int fd, const char *path, int flags, mode_t mode), it,
            fd, path, flags, mode)
WRAP_ACTION(posix_spawn_file_actions_adddup2, F_ACTIONS_DUP2,
            (posix_spawn_file_actions_t * it, int from, int to), it, from, to)
WRAP_ACTION(posix_spawn_file_actions_addclosefrom_np, F_ACTIONS_CLOSE,
            (posix_spawn_file_actions_t * it, int from), it, from)
WRAP_ACTION(posix_spawn_file_actions_addchdir_np, F_ACTIONS_CHDIR,
            (posix_spawn_file_actions_t * it, const char *path), it, path)
