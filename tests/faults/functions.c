/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each function may fail with: what its manual page has for a call with valid arguments, and
 * what a filter (seccomp, a security module) answers in its place: EPERM, EACCES, ENOSYS. Not what
 * only a mistake of the library's would bring (EBADF, EFAULT, ENOTSOCK), nor what would be a lie
 * (ESRCH for a process that is there).
 */
#include "faults.h"
#include <errno.h>
#include <kp/kp.h>

#define SYSTEM CODE(KP_ERR_SYSTEM)
#define SURVIVED 0u

const struct function functions[FUNCTIONS] = {
    [F_MALLOC] = {"malloc", {ENOMEM}, CODE(KP_ERR_NO_MEMORY), PERSISTS | FATAL},
    [F_MMAP] = {"mmap", {ENOMEM, EAGAIN, EPERM}, SURVIVED, PERSISTS},
    [F_MADVISE] = {"madvise", {EINVAL /* Linux < 4.14 */, ENOMEM, EAGAIN}, SURVIVED, PERSISTS},
    [F_SOCKET] = {"socket",
                  {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES, EPERM, EAFNOSUPPORT, EPROTONOSUPPORT},
                  SYSTEM,
                  PERSISTS},
    [F_BIND] = {"bind",
                {EADDRINUSE, EACCES, EPERM, ENOMEM, ENOBUFS, EADDRNOTAVAIL},
                SYSTEM | CODE(KP_ERR_PORT_IN_USE),
                PERSISTS},
    [F_SETSOCKOPT] = {"setsockopt", {ENOPROTOOPT, ENOMEM, ENOBUFS, EPERM}, SYSTEM, PERSISTS},
    [F_GETSOCKNAME] = {"getsockname", {ENOBUFS, EPERM}, SYSTEM, PERSISTS},
    [F_GETPEERNAME] = {"getpeername",
                       {ENOBUFS, ENOTCONN /* reset meanwhile */},
                       SURVIVED,
                       PERSISTS},
    [F_CONNECT] = {"connect",
                   {ECONNREFUSED, EINTR, EINPROGRESS, EALREADY, EAGAIN, EADDRNOTAVAIL, EADDRINUSE,
                    ETIMEDOUT, ECONNRESET, ENETUNREACH, EACCES, EPERM, ENOBUFS, ENOMEM},
                   SURVIVED,
                   PERSISTS},
    [F_SEND] = {"send",
                {ENOBUFS, EINTR, EAGAIN, ECONNRESET, EPIPE, ENOMEM, EPERM, ECONNREFUSED},
                SYSTEM,
                PERSISTS},
    [F_RECV] = {"recv",
                {ENOBUFS, EINTR, EAGAIN, ECONNRESET, ETIMEDOUT, ENOMEM, EPERM},
                SYSTEM,
                PERSISTS},
    [F_SHUTDOWN] = {"shutdown",
                    {ENOBUFS, ENOTCONN /* reset meanwhile */, EPERM},
                    SURVIVED,
                    PERSISTS},
    [F_PIPE] = {"pipe2", {EMFILE, ENFILE, ENOMEM, EPERM}, SYSTEM, PERSISTS | FATAL},
    [F_OPEN] = {"open",
                {EMFILE, ENFILE, ENOMEM, EACCES, EPERM, EINTR, ENOENT /* no /proc, or hidden */},
                SYSTEM,
                PERSISTS},
    [F_READ] = {"read",
                {ENOMEM, EINTR, EIO, EACCES, ESRCH /* as /proc has it */},
                SYSTEM,
                PERSISTS},
    [F_PREAD] = {"pread", {EIO, EINTR, ENOMEM, EOVERFLOW}, SURVIVED, 0 /* EINTR */},
    /* ENOENT is how the system tells that the next child will be init of a pid namespace. */
    [F_READLINK] = {"readlink", {ENOMEM, EACCES, EPERM, ENOENT, EIO}, CODE(KP_ERR_STATE), PERSISTS},
    [F_READLINKAT] = {"readlinkat", {ENOMEM, EACCES, EPERM, ENOENT, EIO}, SYSTEM, PERSISTS},
    [F_GETDENTS] = {"getdents64", {ENOMEM, ENOENT, EPERM, EIO}, SYSTEM, PERSISTS},
    [F_STAT] = {"stat", {ENOMEM, EACCES, ENOENT, EIO}, SURVIVED, PERSISTS},
    [F_FSTAT] = {"fstat", {ENOMEM, EPERM, EIO}, SURVIVED, PERSISTS},
    [F_ACCESS] = {"faccessat", {EACCES, ENOMEM, EIO}, SURVIVED, PERSISTS},
    [F_ISATTY] = {"isatty", {ENOTTY, EIO /* hung up */, EPERM}, SURVIVED, PERSISTS},
    [F_CLOSE] = {"close", {EIO, EINTR, EDQUOT, ENOSPC}, SURVIVED, PERSISTS},
    [F_DUPLICATE] = {"fcntl(F_DUPFD_CLOEXEC)", {EMFILE, EPERM}, SYSTEM, PERSISTS},
    [F_FCNTL_GET] = {"fcntl(F_GETFD)", {EPERM}, CODE(KP_ERR_INVALID), PERSISTS},
    [F_STATUS_FLAGS] = {"fcntl(F_SETFL)", {EPERM, EINVAL, ENOMEM}, SURVIVED, PERSISTS},
    [F_PIPE_SIZE] = {"fcntl(F_SETPIPE_SZ)", {EPERM, ENOMEM, EBUSY, EINVAL}, SURVIVED, PERSISTS},
    [F_SETMNTENT] = {"setmntent", {ENOMEM, EMFILE, ENFILE, EACCES, ENOENT}, SYSTEM, PERSISTS},
    [F_GETMNTENT] = {"getmntent_r", {ENOMEM, EIO}, SURVIVED, PERSISTS},
    /* Lasting, it tells of nobody's end: a loop spins until the grace is over. */
    [F_POLL] = {"poll", {ENOMEM, EINTR, EINVAL /* RLIMIT_NOFILE */}, SURVIVED, 0},
    [F_PPOLL] = {"ppoll", {ENOMEM, EINTR, EINVAL /* RLIMIT_NOFILE */}, SURVIVED, PERSISTS},
    [F_EPOLL_CREATE] = {"epoll_create1",
                        {EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM},
                        SURVIVED,
                        PERSISTS},
    [F_EPOLL_ADD] = {"epoll_ctl(ADD)", {ENOMEM, ENOSPC, EPERM}, SURVIVED, PERSISTS},
    [F_TIMER_CREATE] = {"timerfd_create",
                        {EMFILE, ENFILE, ENOMEM, ENODEV, ENOSYS, EPERM},
                        SURVIVED,
                        PERSISTS},
    [F_SPAWN] = {"posix_spawnp",
                 {EAGAIN, ENOMEM, EMFILE, ENFILE, ENOENT, EACCES, EPERM, ENOSYS, E2BIG, ENOEXEC,
                  ELOOP, ENAMETOOLONG, ETXTBSY, EIO, EINVAL},
                 CODE(KP_ERR_SPAWN) | CODE(KP_ERR_GUARD),
                 PERSISTS | FATAL},
    [F_ACTIONS_INIT] = {"posix_spawn_file_actions_init", {ENOMEM}, SYSTEM, PERSISTS | FATAL},
    [F_ACTIONS_OPEN] = {"posix_spawn_file_actions_addopen", {ENOMEM}, SYSTEM, PERSISTS | FATAL},
    [F_ACTIONS_DUP2] = {"posix_spawn_file_actions_adddup2", {ENOMEM}, SYSTEM, PERSISTS | FATAL},
    [F_ACTIONS_CLOSE] = {"posix_spawn_file_actions_addclosefrom_np",
                         {ENOMEM},
                         SYSTEM,
                         PERSISTS | FATAL},
    [F_ACTIONS_CHDIR] = {"posix_spawn_file_actions_addchdir_np",
                         {ENOMEM},
                         SYSTEM,
                         PERSISTS | FATAL},
    [F_SPAWNATTR_INIT] = {"posix_spawnattr_init", {ENOMEM}, SYSTEM, PERSISTS | FATAL},
    /* ECHILD: reaped by another thread of the host's. wrap.c does that first, so it is no lie. */
    [F_WAIT_PIDFD] = {"waitid(P_PIDFD)",
                      {EINVAL /* Linux < 5.4 */, ECHILD, EPERM, ENOSYS},
                      SURVIVED,
                      PERSISTS},
    [F_WAIT_PID] = {"waitid(P_PID)", {ECHILD}, SURVIVED, PERSISTS},
    [F_PIDFD_OPEN] = {"pidfd_open",
                      {EMFILE, ENFILE, ENOMEM, ENODEV, ENOSYS, EPERM},
                      SYSTEM,
                      PERSISTS},
    [F_PIDFD_SIGNAL] = {"pidfd_send_signal",
                        {ENOSYS, EPERM, EINVAL /* an unknown flag */},
                        SURVIVED,
                        PERSISTS},
    [F_PIDFD_INFO] = {"ioctl(PIDFD_GET_INFO)", {ENOTTY, EINVAL, EPERM, ENOMEM}, SURVIVED, PERSISTS},
    [F_IOPRIO_SET] = {"ioprio_set", {EPERM, EINVAL, ENOSYS, ENOMEM}, SURVIVED, PERSISTS},
    [F_IOPRIO_GET] = {"ioprio_get", {ENOSYS, EPERM, EINVAL}, SURVIVED, PERSISTS},
    [F_CAPGET] = {"capget", {EPERM, ENOSYS, EINVAL}, SURVIVED, PERSISTS},
    [F_KILL] = {"kill", {EPERM}, SYSTEM, 0 /* nobody can be killed then */},
    [F_GETPGID] = {"getpgid", {EPERM, EACCES}, SURVIVED, 0},
    [F_GETPRIORITY] = {"getpriority", {EPERM, ENOSYS}, SURVIVED, PERSISTS},
    [F_SETPRIORITY] = {"setpriority", {EACCES, EPERM, ENOSYS}, SURVIVED, PERSISTS},
};

bool is_want(int error)
{
    static const int wants[] = {EMFILE, ENFILE, ENOMEM, ENOBUFS, EAGAIN};
    for (size_t i = 0; i < sizeof wants / sizeof *wants; i++)
        if (wants[i] == error)
            return true;
    return false;
}

unsigned codes_of(enum function_id function, int error)
{
    unsigned codes = functions[function].codes;
    return is_want(error) && (codes & ~CODE(KP_ERR_NO_MEMORY)) != 0 ? SYSTEM : codes;
}
