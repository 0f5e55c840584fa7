/* SPDX-License-Identifier: Apache-2.0 */
#include "filter.h"
#include "../support.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { MOST = 32, STEPS = 6, GROUP_FLAG = 1 << 2 };

const struct refusal refuse_group_signals = {SYS_pidfd_send_signal, EINVAL, GROUP_FLAG, GROUP_FLAG,
                                             3};
const struct refusal refuse_pidfds = {.call = SYS_pidfd_open, .error = ENOSYS};

/* The lower half of an argument; the machines that this runs on have it first. */
static uint32_t place_of(unsigned argument)
{
    return (uint32_t)(offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t));
}

static void add(struct sock_filter *code, const struct refusal *refusal)
{
    const struct sock_filter steps[STEPS] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)refusal->call, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place_of(refusal->argument)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, refusal->mask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refusal->value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)refusal->error),
    };
    memcpy(code, steps, sizeof steps);
}

static void install(struct sock_filter *code, size_t size)
{
    struct sock_fprog filter = {(unsigned short)size, code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

void permit(const long *calls, size_t count)
{
    struct sock_filter code[2 * MOST + 2] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    struct sock_filter *next = code + 1;
    CHECK(count <= MOST);
    for (size_t i = 0; i < count; i++) {
        *next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i], 0, 1);
        *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, (uint32_t)SECCOMP_RET_ALLOW);
    }
    *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, (uint32_t)SECCOMP_RET_KILL_PROCESS);
    install(code, (size_t)(next - code));
}

void refuse(const struct refusal *list, size_t count)
{
    struct sock_filter code[MOST * STEPS + 1];
    CHECK(count <= MOST);
    for (size_t i = 0; i < count; i++)
        add(code + i * STEPS, &list[i]);
    code[count * STEPS] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, (uint32_t)SECCOMP_RET_ALLOW);
    install(code, count * STEPS + 1);
}
