/* SPDX-License-Identifier: Apache-2.0 */
#include "meter.h"
#include <dlfcn.h>
#include <errno.h>
#include <spawn.h>
#include <time.h>
#include <unistd.h>

struct sockaddr;

struct meter bench_meter;

/* Not from <sys/socket.h>: with _GNU_SOURCE glibc declares it with a union of all kinds of
 * addresses, which ISO C can't define it with. */
int connect(int fd, const struct sockaddr *address, socklen_t size);

static int (*real_connect)(int, const struct sockaddr *, socklen_t);
static int (*real_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *,
                          const posix_spawnattr_t *, char *const[], char *const[]);

/* The way that POSIX shows to get a function out of dlsym(). */
__attribute__((constructor)) static void find_real_ones(void)
{
    *(void **)&real_connect = dlsym(RTLD_NEXT, "connect");
    *(void **)&real_spawnp = dlsym(RTLD_NEXT, "posix_spawnp");
}

static int64_t read_clock(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t meter_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t meter_cpu(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    bench_meter.asked_cpu = meter_cpu();
    int result = real_connect(fd, address, size);
    bench_meter.refused += result != 0 && errno == ECONNREFUSED;
    return result;
}

int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    bench_meter.spawn_begun = meter_now();
    int result = real_spawnp(pid, file, actions, attributes, argv, envp);
    bench_meter.spawn_ended = meter_now();
    bench_meter.spawn_ended_cpu = meter_cpu();
    return result;
}
