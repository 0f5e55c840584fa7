/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts that can't connect to 127.0.0.1: whatever the proxy does, it is not waited for. */
#include "filter.h"
#include "life.h"
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One that is not lived out. */
static kp_spec never_late(const struct scene *scene, char *const *argv)
{
    kp_spec spec = marked(scene, argv);
    spec.startup_timeout_ms = 10 * PATIENCE_MS;
    return spec;
}

static void check_told(const struct scene *scene, int error, const char *hint)
{
    CHECK(scene->error.sys_errno == error);
    CHECK(strstr(scene->error.message, "127.0.0.1 can't be reached") != NULL);
    CHECK(strstr(scene->error.message, hint) != NULL);
}

static void fail_to_reach(struct scene *scene, int error, const char *hint)
{
    kp_spec attached = {.size = sizeof attached, .port = 9, .flags = KP_SPEC_ATTACH};
    attached.startup_timeout_ms = 10 * PATIENCE_MS;
    witness(scene);
    CHECK_RESULT(KP_ERR_SYSTEM, begin(scene, never_late(scene, FIXTURE("serve"))));
    check_told(scene, error, hint);
    CHECK_RESULT(KP_ERR_SYSTEM, kp_spawn(&attached, &scene->proxy, &scene->error));
    check_told(scene, error, hint);
    check_witness(scene);
}

/* ---- A network namespace ---------------------------------------------------------------- */

static void leave_the_network(void)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        cannot("no namespace can be made");
}

static void be_in_a_bare_namespace(struct scene *scene)
{
    leave_the_network();
    fail_to_reach(scene, ENETUNREACH, "is the loopback interface up?");
}

static void the_loopback_interface_is_down(void **state)
{
    run_host(be_in_a_bare_namespace, *state, __func__);
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0);
    close(fd);
}

static void raise_it_while_the_proxy_starts(struct scene *scene)
{
    leave_the_network();
    CHECK_RESULT(KP_OK, start(scene, never_late(scene, FIXTURE("serve"))));
    CHECK_RESULT(KP_AGAIN, kp_handle_step(scene->proxy, &scene->error));
    raise_loopback();
    CHECK_RESULT(KP_OK, go_on(scene, KP_STATE_READY));
    free_proxy(scene);
}

static void it_may_come_up_a_moment_later(void **state)
{
    run_host(raise_it_while_the_proxy_starts, *state, __func__);
}

/* ---- A jail ------------------------------------------------------------------------------- */

/* Of <linux/landlock.h>, Linux 6.7. */
struct rules {
    uint64_t files, network;
};
enum { TELL_VERSION = 1, CONNECT_TCP = 1 << 1, FIRST_WITH_NETWORK = 4 };

static void be_in_a_jail(struct scene *scene)
{
    const struct rules rules = {.network = CONNECT_TCP};
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, TELL_VERSION) < FIRST_WITH_NETWORK)
        cannot("no Landlock for the network");
    int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
    CHECK(fd >= 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(syscall(SYS_landlock_restrict_self, fd, 0) == 0);
    close(fd);
    fail_to_reach(scene, EACCES, "does a sandbox or a packet filter forbid it to the host?");
}

static void landlock_forbids_it(void **state)
{
    run_host(be_in_a_jail, *state, __func__);
}

static void be_behind_a_filter(struct scene *scene)
{
    const struct refusal connects = {.call = SYS_connect, .error = EPERM};
    refuse(&connects, 1);
    fail_to_reach(scene, EPERM, "does a sandbox or a packet filter forbid it to the host?");
}

static void seccomp_forbids_it(void **state)
{
    run_host(be_behind_a_filter, *state, __func__);
}

int main(void)
{
    static const struct CMUnitTest own[] = {
        EACH_WAY(the_loopback_interface_is_down),
        EACH_WAY(it_may_come_up_a_moment_later),
        EACH_WAY(landlock_forbids_it),
        EACH_WAY(seccomp_forbids_it),
    };
    return run_strange(NULL, 0, own, sizeof own / sizeof *own);
}
