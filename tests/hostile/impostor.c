/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another process listens on the proxy's port before the proxy does, or beside it: it is
 * never taken for the proxy. This program is a proxy itself: "test-hostile-impostor ADDRESS
 * FILE" listens on ADDRESS with SO_REUSEADDR and SO_REUSEPORT, as soon as FILE is there.
 */
#include "../process.h"
#include "../support.h"
#include "network.h"
#include "stranger.h"
#include "tally.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LOW = 40000, HIGH = 43999, ROUNDS = 40, SHARING = WITH_REUSEADDR | WITH_REUSEPORT };

static struct order take(const char *address, uint16_t port, int options)
{
    return order_for(ACT_TAKE, address, port, options);
}

static void leave(int channel)
{
    assert_int_equal(ask(channel, order_for(ACT_CLOSE, "", 0, 0)), 0);
}

static void end_proxy(struct scene *scene)
{
    kp_handle_stop(scene->proxy, 0);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
}

static kp_result wait_until_ready(struct scene *scene)
{
    return kp_handle_wait(scene->proxy, KP_STATE_READY, PATIENCE_MS, &scene->error);
}

/* One of this test's uid, or of another; -1 and words about it where that is not allowed. */
static int stranger_of(uid_t uid, const char *part)
{
    int channel = stranger(uid);
    if (channel < 0)
        left_out_here(part, "without the right to be another user");
    return channel;
}

/* ---- It comes first ------------------------------------------------------ */

static void assert_refused(struct scene *scene, kp_result result)
{
    char port[8];
    if (result != KP_ERR_EXITED)
        assert_result(KP_ERR_FOREIGN_LISTENER, result);
    assert_int_equal(scene->error.code, result);
    snprintf(port, sizeof port, "%u", kp_handle_port(scene->proxy));
    assert_contains(scene->error.message, port);
}

/* The proxy never binds, so that nothing but the impostor can have answered. */
static void refuse_before_a_proxy_that_never_binds(struct scene *scene, int channel,
                                                   const char *address, int options)
{
    assert_result(KP_OK, start(scene, quiet_spec(FIXTURE("never"))));
    uint16_t port = kp_handle_port(scene->proxy);
    assert_int_equal(ask(channel, take(address, port, options)), 0);
    assert_int_equal(listeners_at(port, kp_handle_pid(scene->proxy)).foreign, 1);
    assert_result(KP_ERR_FOREIGN_LISTENER, wait_until_ready(scene));
    assert_refused(scene, KP_ERR_FOREIGN_LISTENER);
    end_proxy(scene);
    leave(channel);
}

static void refuse_on_each_address(struct scene *scene, uid_t uid)
{
    int channel = stranger_of(uid, "an impostor of another uid that comes first");
    for (size_t i = 0; channel >= 0 && i < LOOPBACKS; i++) {
        refuse_before_a_proxy_that_never_binds(scene, channel, loopbacks[i], WITH_REUSEADDR);
        refuse_before_a_proxy_that_never_binds(scene, channel, loopbacks[i], SHARING);
        refuse_before_a_proxy_that_never_binds(scene, channel, loopbacks[i],
                                               WITH_REUSEADDR | WITH_DEVICE | WITH_FREEBIND);
    }
}

static void one_of_the_same_uid_that_comes_first_is_refused(void **state)
{
    refuse_on_each_address(*state, geteuid());
}

static void one_of_another_uid_that_comes_first_is_refused(void **state)
{
    refuse_on_each_address(*state, NOBODY);
}

/* Each of them ends with its parent. */
static void fork_in_line(unsigned count, int channel)
{
    for (; count > 0; count--) {
        pid_t parent = getpid();
        pid_t pid = fork();
        if (pid < 0)
            _exit(1);
        if (pid > 0)
            return;
        alarm(120);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || !channel_write(channel, &parent, sizeof parent))
            _exit(1);
    }
}

/* All of one line of descent, so that it is long work to find out whose children they are. */
static void be_many(int channel, const void *count)
{
    fork_in_line(*(const unsigned *)count, channel);
    for (;;)
        pause();
}

/* However many processes there are to look at. */
static void one_of_another_uid_that_is_many_is_refused(void **state)
{
    struct scene *scene = *state;
    static const unsigned count = 300;
    int channel = stranger_of(NOBODY, "an impostor of another uid that is many");
    if (channel < 0)
        return;
    int many = recruit(NOBODY, be_many, &count);
    for (unsigned i = 0; i < count; i++) {
        pid_t parent;
        assert_true(channel_read(many, &parent, sizeof parent));
    }
    refuse_before_a_proxy_that_never_binds(scene, channel, "127.0.0.1", WITH_REUSEADDR);
}

struct hoard {
    int fds[256];
    size_t count;
    struct rlimit before;
};

/* All descriptors but `spare` are taken. */
static void take_descriptors(struct hoard *hoard, size_t spare)
{
    struct rlimit low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &hoard->before), 0);
    low = hoard->before;
    low.rlim_cur = sizeof hoard->fds / sizeof *hoard->fds;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    hoard->count = 0;
    for (int fd = dup(STDOUT_FILENO); fd >= 0; fd = dup(STDOUT_FILENO))
        hoard->fds[hoard->count++] = fd;
    for (; spare > 0; spare--)
        close(hoard->fds[--hoard->count]);
}

static void give_back(struct hoard *hoard)
{
    while (hoard->count > 0)
        close(hoard->fds[--hoard->count]);
    setrlimit(RLIMIT_NOFILE, &hoard->before);
}

/* A host that has no descriptor left to look with does not believe what it can't see. */
static void one_that_comes_first_is_refused_without_descriptors(void **state)
{
    struct scene *scene = *state;
    struct hoard hoard;
    int channel = stranger(geteuid());
    for (size_t spare = 0; spare < 6; spare++) {
        assert_result(KP_OK, start(scene, quiet_spec(FIXTURE("never"))));
        uint16_t port = kp_handle_port(scene->proxy);
        assert_int_equal(ask(channel, take("127.0.0.1", port, WITH_REUSEADDR)), 0);
        take_descriptors(&hoard, spare);
        kp_result result = wait_until_ready(scene);
        give_back(&hoard);
        if (result != KP_ERR_SYSTEM)
            assert_result(KP_ERR_FOREIGN_LISTENER, result);
        end_proxy(scene);
        leave(channel);
    }
}

/* Where the proxy should run already, its user decides; this test's own might run it. */
static void one_of_another_uid_is_refused_where_one_attaches(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = {.size = sizeof spec, .flags = KP_SPEC_ATTACH, .port = free_port()};
    int channel = stranger_of(NOBODY, "another uid's listener where one attaches");
    for (size_t i = 0; channel >= 0 && i < LOOPBACKS; i++) {
        assert_int_equal(ask(channel, take(loopbacks[i], (uint16_t)spec.port, 0)), 0);
        assert_result(KP_ERR_FOREIGN_LISTENER, kp_spawn(&spec, &scene->proxy, &scene->error));
        assert_null(scene->proxy);
        leave(channel);
    }
}

/* ---- It races ------------------------------------------------------------ */

struct race {
    unsigned rounds, proxy_won, impostor_won;
};

/* Whoever listens, the library must say so. */
static void judge_race(struct scene *scene, struct race *race, kp_result result, int impostor)
{
    struct listeners found =
        listeners_at(kp_handle_port(scene->proxy), kp_handle_pid(scene->proxy));
    race->rounds++;
    if (impostor == 0) {
        assert_refused(scene, result);
        assert_int_equal(found.foreign, 1);
        race->impostor_won++;
    } else {
        assert_int_equal(impostor, EADDRINUSE);
        assert_result(KP_OK, result);
        assert_int_equal(found.own, 1);
        assert_int_equal(found.foreign, 0);
        race->proxy_won++;
    }
}

/* Now the one has the lead and now the other. */
static void run_race(struct scene *scene, int channel, struct race *race)
{
    bool is_late = race->rounds % 2 == 0;
    const char *lead = WORDS("0", "1", "2", "3", "4")[race->rounds % 5];
    const char *address = loopbacks[race->rounds % LOOPBACKS];
    assert_result(KP_OK, start(scene, quiet_spec(FIXTURE("late", is_late ? lead : "0"))));
    if (!is_late)
        sleep_ms(atoi(lead));
    tell(channel, take(address, kp_handle_port(scene->proxy), WITH_REUSEADDR));
    kp_result result = wait_until_ready(scene);
    judge_race(scene, race, result, answer(channel));
    end_proxy(scene);
    leave(channel);
}

static void race_against(struct scene *scene, uid_t uid)
{
    struct race race = {0};
    int channel = stranger_of(uid, "an impostor of another uid that races the proxy");
    if (channel < 0)
        return;
    while (race.rounds < ROUNDS)
        run_race(scene, channel, &race);
    printf("# races against uid %u: %u, the proxy won %u, the impostor %u; none was taken for "
           "the other\n",
           uid, race.rounds, race.proxy_won, race.impostor_won);
}

static void one_of_the_same_uid_that_races_is_told_apart(void **state)
{
    race_against(*state, geteuid());
}

static void one_of_another_uid_that_races_is_told_apart(void **state)
{
    race_against(*state, NOBODY);
}

/* ---- It shares the port -------------------------------------------------- */

static const char *own_program(void)
{
    static char path[4096];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
    assert_true(size > 0);
    path[size] = '\0';
    return path;
}

static int be_a_sharing_proxy(const char *address, const char *file)
{
    const char *port = getenv(KP_PORT_ENV);
    alarm(120);
    while (!file_exists(file))
        sleep_ms(1);
    if (port == NULL || bind_socket(address, (uint16_t)atoi(port),
                                    BIND_REUSEADDR | BIND_REUSEPORT | BIND_LISTEN) < 0)
        return EXIT_FAILURE;
    for (;;)
        pause();
}

static void start_sharing(struct scene *scene, const char *address)
{
    unlink(scene_path(scene, "go"));
    kp_spec spec = quiet_spec(WORDS(own_program(), address, scene_path(scene, "go")));
    assert_result(KP_OK, start(scene, spec));
}

static void let_it_listen(struct scene *scene)
{
    file_write(scene_path(scene, "go"), "", 0600);
    assert_true(eventually_listens(kp_handle_port(scene->proxy), kp_handle_pid(scene->proxy)));
}

/* Both listen before the library has made its first probe. */
static void share(struct scene *scene, int channel, const char *own, const char *other, bool first)
{
    start_sharing(scene, own);
    uint16_t port = kp_handle_port(scene->proxy);
    if (!first)
        let_it_listen(scene);
    assert_int_equal(ask(channel, take(other, port, SHARING)), 0);
    if (first)
        let_it_listen(scene);
    assert_result(KP_ERR_FOREIGN_LISTENER, wait_until_ready(scene));
    end_proxy(scene);
    leave(channel);
}

static void one_that_shares_the_port_is_refused(void **state)
{
    int channel = stranger(geteuid());
    for (size_t own = 0; own < LOOPBACKS; own++) {
        for (size_t other = 0; other < LOOPBACKS; other++) {
            share(*state, channel, loopbacks[own], loopbacks[other], true);
            share(*state, channel, loopbacks[own], loopbacks[other], false);
        }
    }
}

/* Without a joiner the same proxy is ready, and the kernel lets no other user join. */
static void one_of_another_uid_cannot_share_it(void **state)
{
    struct scene *scene = *state;
    int channel = stranger(NOBODY);
    start_sharing(scene, "127.0.0.1");
    let_it_listen(scene);
    if (channel >= 0)
        assert_int_equal(ask(channel, take("127.0.0.1", kp_handle_port(scene->proxy), SHARING)),
                         EADDRINUSE);
    else
        left_out_here("a joiner of another uid", "without the right to be another user");
    assert_result(KP_OK, wait_until_ready(scene));
}

/* ---- It is harmless ------------------------------------------------------ */

/* It was there before the proxy, and receives nothing that is sent to 127.0.0.1. */
static void accept_beside(struct scene *scene, int channel, const char *address, int options)
{
    kp_spec spec = quiet_spec(FIXTURE("serve"));
    spec.port = free_port();
    int result = ask(channel, take(address, (uint16_t)spec.port, options));
    if (result == EAFNOSUPPORT && left_out(address, "without IPv6"))
        return;
    assert_int_equal(result, 0);
    assert_result(KP_OK, spawn(scene, spec));
    assert_true(eventually_listens((uint16_t)spec.port, kp_handle_pid(scene->proxy)));
    end_proxy(scene);
    leave(channel);
}

static void one_that_receives_nothing_of_ours_is_harmless(void **state)
{
    static const struct {
        const char *address;
        int options;
    } harmless[] = {{"::1", 0},          {"::1", SHARING},
                    {"::", WITH_V6ONLY}, {"::", WITH_V6ONLY | SHARING},
                    {"127.0.0.2", 0},    {"127.0.0.2", SHARING}};
    int channel = stranger(geteuid());
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        accept_beside(*state, channel, harmless[i].address, harmless[i].options);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        HOSTILE(one_of_the_same_uid_that_comes_first_is_refused),
        HOSTILE(one_of_another_uid_that_comes_first_is_refused),
        HOSTILE(one_of_another_uid_that_is_many_is_refused),
        HOSTILE(one_that_comes_first_is_refused_without_descriptors),
        HOSTILE(one_of_another_uid_is_refused_where_one_attaches),
        HOSTILE(one_of_the_same_uid_that_races_is_told_apart),
        HOSTILE(one_of_another_uid_that_races_is_told_apart),
        HOSTILE(one_that_shares_the_port_is_refused),
        HOSTILE(one_of_another_uid_cannot_share_it),
        HOSTILE(one_that_receives_nothing_of_ours_is_harmless),
    };
    if (argc == 3)
        return be_a_sharing_proxy(argv[1], argv[2]);
    if (!own_network() || !narrow_ports(LOW, HIGH))
        return leave_out_all("no network of its own to play in");
    quiet_spec(NULL);
    return RUN(tests);
}
