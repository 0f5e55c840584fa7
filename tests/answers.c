/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a system answers rarely, or not here: the library's calls come to this program's functions,
 * which play it, and let the system's own through otherwise.
 */
#include "support.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- The answers ----------------------------------------------------------- */

static struct {
    int connect;        /* the error that each gives */
    bool is_connected;  /* a second connect() of a socket tells so by EISCONN */
    bool no_folder;     /* of descriptors */
    const char *folder; /* instead of that */
    int add_close;      /* the error */
    bool none_polled;   /* ppoll() of any descriptor fails, as above RLIMIT_NOFILE */
    int pause;          /* the error of one without descriptors */
    bool no_stops;      /* waitid() knows nothing of those who are stopped */
    unsigned told;      /* how often one of these was given */
} answers;

static void forget_answers(void)
{
    memset(&answers, 0, sizeof answers);
}

static int answer(int error)
{
    answers.told++;
    errno = error;
    return -1;
}

static void (*next_of(const char *name))(void)
{
    void *found = dlsym(RTLD_NEXT, name);
    void (*function)(void);
    memcpy(&function, &found, sizeof function);
    return function;
}

#define REAL(name) ((__typeof__(&(name)))next_of(#name))

int connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t size)
{
    if (answers.connect != 0)
        return answer(answers.connect);
    int result = REAL(connect)(fd, address, size);
    return result == 0 && answers.is_connected ? answer(EISCONN) : result;
}

DIR *opendir(const char *path)
{
    if (answers.no_folder)
        return answer(ENOENT), NULL;
    answers.told += answers.folder != NULL;
    return REAL(opendir)(answers.folder != NULL ? answers.folder : path);
}

int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t *actions, int fd)
{
    answers.told += answers.add_close != 0;
    return answers.add_close != 0 ? answers.add_close
                                  : REAL(posix_spawn_file_actions_addclose)(actions, fd);
}

int ppoll(struct pollfd *list, nfds_t count, const struct timespec *limit, const sigset_t *mask)
{
    int error = count == 0 ? answers.pause : answers.none_polled ? EINVAL : 0;
    return error != 0 ? answer(error) : REAL(ppoll)(list, count, limit, mask);
}

int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    if (answers.no_stops && (options & WSTOPPED) != 0)
        return answer(ECHILD);
    return REAL(waitid)(type, id, info, options);
}

/* ---- The probe ----------------------------------------------------------------- */

static kp_spec soon(char *const *argv)
{
    kp_spec spec = spec_for(argv);
    spec.startup_timeout_ms = under_valgrind() ? 3000 : 500;
    return spec;
}

static void a_probe_that_is_not_just_refused(void **state)
{
    struct scene *scene = *state;
    answers.connect = ETIMEDOUT;
    kp_result result = spawn(scene, soon(FIXTURE("never")));
    assert_true(answers.told > 0);
    forget_answers();
    assert_result(KP_ERR_TIMED_OUT, result);
    assert_int_equal(scene->error.sys_errno, ETIMEDOUT);
    assert_contains(scene->error.message, strerror(ETIMEDOUT));
}

static const struct {
    int error;
    const char *hint;
} out_of_reach[] = {
    {ENETUNREACH, "is the loopback interface up?"},
    {EHOSTUNREACH, "is the loopback interface up?"},
    {ENETDOWN, "is the loopback interface up?"},
    {EADDRNOTAVAIL, "is the loopback interface up?"},
    {EACCES, "does a sandbox or a packet filter forbid it to the host?"},
    {EPERM, "does a sandbox or a packet filter forbid it to the host?"},
};

/* The start-up time is one that would not be lived out. */
static kp_spec much_later(char *const *argv)
{
    kp_spec spec = spec_for(argv);
    spec.startup_timeout_ms = 10 * PATIENCE_MS;
    return spec;
}

static void an_address_that_is_out_of_reach(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof out_of_reach / sizeof *out_of_reach; i++) {
        int64_t begin = now_ms();
        answers.connect = out_of_reach[i].error;
        kp_result result = spawn(scene, much_later(FIXTURE("serve")));
        forget_answers();
        assert_result(KP_ERR_SYSTEM, result);
        assert_true(now_ms() - begin >= 200);
        assert_int_equal(scene->error.sys_errno, out_of_reach[i].error);
        assert_starts_with(scene->error.message, "external proxy did not bind 127.0.0.1:");
        assert_contains(scene->error.message, "127.0.0.1 can't be reached");
        assert_contains(scene->error.message, strerror(out_of_reach[i].error));
        assert_contains(scene->error.message, out_of_reach[i].hint);
    }
}

static void nor_can_a_proxy_be_attached_to_there(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = much_later(NULL);
    spec.flags = KP_SPEC_ATTACH;
    spec.port = 9;
    answers.connect = ENETUNREACH;
    kp_result result = spawn(scene, spec);
    forget_answers();
    assert_result(KP_ERR_SYSTEM, result);
    assert_starts_with(scene->error.message,
                       "no proxy to attach to on 127.0.0.1:9: 127.0.0.1 can't be reached (");
}

/* As some systems tell of a connection that was made meanwhile. */
static void a_probe_that_is_connected_already(void **state)
{
    answers.is_connected = true;
    kp_result result = spawn(*state, spec_for(FIXTURE("serve")));
    unsigned told = answers.told;
    forget_answers();
    assert_result(KP_OK, result);
    assert_true(told > 0);
}

/* ---- The descriptors of others ---------------------------------------------------- */

enum { LEFT_OPEN = 90 };

static bool has_no_list(const char *test)
{
    return !on_posix() && left_out(test, "where the system closes them");
}

/* Of the descriptors that this careless host left open the proxy has none. */
static void assert_none_inherited(struct scene *scene)
{
    char report[4096];
    int fd = open("/dev/zero", O_RDONLY), high = fcntl(fd, F_DUPFD, LEFT_OPEN);
    const char *path = scene_path(scene, "report");
    kp_result result = spawn(scene, spec_for(FIXTURE("fds", path)));
    unsigned told = answers.told;
    forget_answers();
    close(fd);
    close(high);
    assert_result(KP_OK, result);
    assert_true(told > 0);
    assert_true(file_read(path, report, sizeof report) > 0);
    assert_contains(report, "0 /dev/null");
    assert_null(strstr(report, "/dev/zero"));
}

static void no_folder_of_descriptors(void **state)
{
    if (has_no_list(__func__))
        return;
    answers.no_folder = true;
    assert_none_inherited(*state);
}

/* As on systems that have the first three there alone. */
static void a_folder_of_three_descriptors(void **state)
{
    struct scene *scene = *state;
    static const char *const names[] = {"0", "1", "2"};
    if (has_no_list(__func__))
        return;
    for (int i = 0; i < 3; i++)
        file_write(scene_path(scene, names[i]), "", 0600);
    answers.folder = scene->dir;
    assert_none_inherited(scene);
}

/* Then nobody is started who would have what is the host's. */
static void descriptors_that_can_not_be_closed(void **state)
{
    struct scene *scene = *state;
    if (has_no_list(__func__))
        return;
    for (int without_folder = 0; without_folder < 2; without_folder++) {
        int fd = open("/dev/zero", O_RDONLY);
        answers.add_close = ENOMEM;
        answers.no_folder = without_folder;
        kp_result result = spawn(scene, spec_for(FIXTURE("serve")));
        forget_answers();
        close(fd);
        assert_result(KP_ERR_SYSTEM, result);
        assert_int_equal(scene->error.sys_errno, ENOMEM);
    }
}

/* ---- Waiting ------------------------------------------------------------------------ */

/* What no call waits for is looked at by the clock: it is told within the usual time. */
static void none_may_be_polled(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("exit-when-asked", "3")));
    assert_true(ask_to_exit(kp_handle_port(scene->proxy)));
    answers.none_polled = true;
    kp_result result = kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL);
    unsigned told = answers.told;
    forget_answers();
    assert_result(KP_OK, result);
    assert_true(told > 0 || on_posix()); /* where there is none to be polled */
}

/* A signal ends the wait there, too; what else may be amiss does not. */
static void nor_may_nobody(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    answers.none_polled = true;
    answers.pause = EINTR;
    int64_t begin = now_ms();
    kp_result interrupted = kp_handle_wait(scene->proxy, KP_STATE_EXITED, PATIENCE_MS, NULL);
    int64_t took = now_ms() - begin;
    answers.pause = ENOMEM;
    kp_result result = kp_handle_wait(scene->proxy, KP_STATE_EXITED, 100, NULL);
    forget_answers();
    assert_result(KP_AGAIN, interrupted);
    assert_true(took < PATIENCE_MS);
    assert_result(KP_AGAIN, result);
    assert_true(now_ms() - begin >= took + 100);
}

/* ---- Hints ---------------------------------------------------------------------------- */

static void a_stop_that_can_not_be_seen(void **state)
{
    struct scene *scene = *state;
    if (!on_posix() && left_out(__func__, "where /proc tells"))
        return;
    answers.no_stops = true;
    kp_result result = spawn(scene, soon(FIXTURE("stop")));
    unsigned told = answers.told;
    forget_answers();
    assert_true(told > 0);
    assert_result(KP_ERR_TIMED_OUT, result);
    assert_null(strstr(scene->error.message, "it is stopped"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_WAY(a_probe_that_is_not_just_refused),
        EACH_WAY(an_address_that_is_out_of_reach),
        EACH_GUARDED_WAY(nor_can_a_proxy_be_attached_to_there),
        EACH_WAY(a_probe_that_is_connected_already),
        TEST_WAY(no_folder_of_descriptors, "guard", &ways[0]),
        TEST_WAY(no_folder_of_descriptors, "no guard", &ways[3]),
        TEST_WAY(a_folder_of_three_descriptors, "guard", &ways[0]),
        TEST_WAY(a_folder_of_three_descriptors, "no guard", &ways[3]),
        TEST_WAY(descriptors_that_can_not_be_closed, "guard", &ways[0]),
        TEST_WAY(descriptors_that_can_not_be_closed, "no guard", &ways[3]),
        TEST(none_may_be_polled),
        TEST(nor_may_nobody),
        TEST_WAY(a_stop_that_can_not_be_seen, "blocking", &ways[0]),
    };
    return RUN(tests);
}
