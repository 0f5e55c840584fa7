/* SPDX-License-Identifier: Apache-2.0 */
#include "lives.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PORT = 8100,            /* in a network namespace of its own; both ports of the pair are free */
    STARTUP_MS = 5000,      /* of a busy machine */
    SHORT_STARTUP_MS = 200, /* where the start may well fail */
    GRACE_MS = 15,
    KILL_MS = 1000,
    SLACK_MS = 2000, /* of a busy machine */
    MOST_STEPS = 3000,
    DESCRIPTORS = 64
};

const struct life lives[] = {
    {.name = "guarded", .mode = "serve", .pairs = true},
    {.name = "rich",
     .mode = "serve",
     .flags = KP_SPEC_NO_GUARD | KP_SPEC_PROBE_HTTP,
     .rich = true,
     .pairs = true},
    {.name = "bare", .mode = "serve", .bare = true},
    {.name = "old", .mode = "serve", .old = true},
    {.name = "old worker", .mode = "worker", .old = true},
    {.name = "unreserved", .mode = "serve", .flags = KP_SPEC_NO_RESERVE | KP_SPEC_PROBE_HTTP},
    {.name = "deaf", .mode = "deaf"},
    {.name = "terminal", .mode = "serve", .flags = KP_SPEC_NO_GUARD, .terminal = true},
    {.name = "worker", .mode = "worker"},
    {.name = "worker alone", .mode = "worker", .flags = KP_SPEC_NO_GUARD},
    {.name = "left", .mode = "leave", .wants = true},
    {.name = "private", .mode = "private", .unprivileged = true},
    {.name = "attached",
     .mode = "serve",
     .flags = KP_SPEC_ATTACH | KP_SPEC_PROBE_HTTP,
     .pairs = true},
    {.name = "missing", .expected = KP_ERR_SPAWN, .rich = true, .pairs = true},
    {.name = "taken",
     .mode = "serve",
     .expected = KP_ERR_PORT_IN_USE,
     .taken = true,
     .pairs = true},
    {.name = "exits",
     .mode = "exit",
     .arrival = ENDS,
     .expected = KP_ERR_EXITED,
     .rich = true,
     .pairs = true},
    {.name = "silent",
     .mode = "never",
     .arrival = NEVER,
     .expected = KP_ERR_TIMED_OUT,
     .startup_ms = 10},
    {.name = "beside",
     .mode = "beside",
     .arrival = LISTENS_BESIDE,
     .expected = KP_ERR_TIMED_OUT,
     .startup_ms = 10},
    {.name = "foreign",
     .mode = "never",
     .arrival = LISTENED_FOR,
     .expected = KP_ERR_FOREIGN_LISTENER,
     .unprivileged = true},
    {.name = "talk", .mode = "talk", .flags = KP_SPEC_PROBE_HTTP, .expected = KP_ERR_NOT_HTTP},
};
const size_t life_count = sizeof lives / sizeof *lives;

/* ---- The host ------------------------------------------------------------- */

static struct {
    const struct life *life;
    enum drive drive;
    const struct plan *plan;
    struct outcome *outcome;
    kp_spec spec;
    kp_handle *proxy;
    kp_error error; /* of the call that failed last */
    sigset_t mask;
    uint64_t descriptors;
    int log, taken;
    pid_t attached;
} host;

/* The first complaint counts: what comes after it follows from it. */
static __attribute__((format(printf, 1, 2))) void complain(const char *format, ...)
{
    va_list arguments;
    if (host.outcome->complaint[0] != '\0')
        return;
    va_start(arguments, format);
    vsnprintf(host.outcome->complaint, sizeof host.outcome->complaint, format, arguments);
    va_end(arguments);
}

static int64_t now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000) + time.tv_nsec / 1000000;
}

/* ---- What a result may be ------------------------------------------------- */

struct call {
    const char *name;
    unsigned codes; /* that the header names */
    bool blocks;
};

enum {
    LATER = CODE(KP_ERR_EXITED) | CODE(KP_ERR_TIMED_OUT) | CODE(KP_ERR_FOREIGN_LISTENER) |
            CODE(KP_ERR_NOT_HTTP),
    AT_ONCE = CODE(KP_ERR_INVALID) | CODE(KP_ERR_STATE) | CODE(KP_ERR_NO_MEMORY) |
              CODE(KP_ERR_SYSTEM) | CODE(KP_ERR_PORT_IN_USE) | CODE(KP_ERR_SPAWN) |
              CODE(KP_ERR_GUARD)
};

static const struct call call_start = {"kp_start", AT_ONCE, false};
static const struct call call_spawn = {"kp_spawn", AT_ONCE | LATER, true};
static const struct call call_restart = {"kp_handle_restart", AT_ONCE & ~CODE(KP_ERR_INVALID),
                                         false};
static const struct call call_step = {"kp_handle_step",
                                      LATER | CODE(KP_ERR_SYSTEM) | CODE(KP_ERR_GUARD), false};
static const struct call call_wait_ready = {
    "kp_handle_wait(READY)", LATER | CODE(KP_ERR_SYSTEM) | CODE(KP_ERR_GUARD) | CODE(KP_ERR_STATE),
    true};
static const struct call call_wait_exited = {"kp_handle_wait(EXITED)", CODE(KP_ERR_SYSTEM), true};
static const struct call call_stop = {"kp_handle_stop", 0, false};
static const struct call call_free = {"kp_handle_free", 0, true};

/* Whoever traces this process makes calls fail, in each start. */
static bool is_failed_from_outside(void)
{
    return host.plan->count != 0 && host.plan->faults[0].call == OUTSIDE;
}

/* What this life may come to by itself, and by the faults that it has met. */
static unsigned possible_codes(void)
{
    unsigned codes = CODE(host.life->expected);
    for (size_t i = 0; i < host.outcome->hit; i++)
        codes |= codes_of(host.plan->faults[i].function, host.plan->faults[i].error);
    return codes;
}

/* What lasts may come to anything that is documented, and has little time for that. */
static bool lasts(void)
{
    return host.plan->faults[0].lasts;
}

/* Only what was given up has none. */
static bool is_known(const struct call *call, int error)
{
    bool may_give_up = call == &call_step || call->blocks || lasts();
    bool known = (error == 0 && may_give_up) || host.life->expected != KP_OK;
    for (size_t i = 0; i < host.outcome->hit; i++)
        known = known || host.plan->faults[i].error == error;
    return known;
}

static void check_error(const struct call *call, kp_result result)
{
    const char *name = call->name;
    const kp_error *error = &host.error;
    if (error->code != result)
        complain("%s: error.code is %s, not %s", name, kp_result_name(error->code),
                 kp_result_name(result));
    if (error->message[0] == '\0' || memchr(error->message, '\0', sizeof error->message) == NULL)
        complain("%s: %s without a message", name, kp_result_name(result));
    if (result == KP_ERR_SYSTEM && !is_known(call, error->sys_errno))
        complain("%s: %s with errno %d, which is no fault's: %s", name, kp_result_name(result),
                 error->sys_errno, error->message);
    for (size_t i = 0; i < 4; i++)
        if (error->reserved[i] != 0)
            complain("%s: error.reserved is not 0", name);
}

static void check_result(const struct call *call, kp_result result)
{
    if (result >= 0)
        return;
    if ((call->codes & CODE(result)) == 0)
        complain("%s: %s, which it does not document: %s", call->name, kp_result_name(result),
                 host.error.message);
    if (!lasts() && (possible_codes() & CODE(result)) == 0)
        complain("%s: %s is not what this may come to: %s", call->name, kp_result_name(result),
                 host.error.message);
    check_error(call, result);
}

static void check_call(const struct call *call, int64_t began)
{
    sigset_t mask = {0}; /* the kernel's part of it is not the whole */
    int64_t took = now_ms() - began;
    int64_t limit =
        (call->blocks ? (int64_t)host.spec.startup_timeout_ms + GRACE_MS : 0) + KILL_MS + SLACK_MS;
    if (took > limit)
        complain("%s took %lld ms", call->name, (long long)took);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    if (memcmp(&mask, &host.mask, sizeof mask) != 0)
        complain("%s: the signal mask is another one", call->name);
}

/* Runs one call of the interface, with faults, and checks what it came to. */
#define CALL(which, expression)                                                                    \
    do {                                                                                           \
        int64_t began = now_ms();                                                                  \
        wrap_enter();                                                                              \
        kp_result call_result = expression;                                                        \
        wrap_leave();                                                                              \
        check_call(which, began);                                                                  \
        check_result(which, call_result);                                                          \
        result = call_result;                                                                      \
    } while (0)

/* ---- The two drives ------------------------------------------------------- */

/* Until a step is due. */
static bool pause_for_step(void)
{
    const struct timespec most = {.tv_sec = (KILL_MS + SLACK_MS) / 1000};
    struct timespec rest;
    wrap_enter();
    int fd = kp_handle_fd(host.proxy);
    int64_t ns = kp_handle_timeout_ns(host.proxy);
    wrap_leave();
    if (fd >= 0) {
        struct pollfd wanted = {.fd = fd, .events = POLLIN};
        if (ppoll(&wanted, 1, &most, NULL) > 0)
            return true;
        complain("no step was due for %ld s in state %d", (long)most.tv_sec,
                 kp_handle_state(host.proxy));
        return false;
    }
    if (ns < 0) {
        complain("neither descriptor nor time-out in state %d", kp_handle_state(host.proxy));
        return false;
    }
    rest = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&rest, NULL);
    return true;
}

/* As kp_handle_wait() does, without ever blocking in the library. */
static kp_result step_until(kp_state until)
{
    kp_result result = KP_AGAIN;
    for (int i = 0; i < MOST_STEPS; i++) {
        CALL(&call_step, kp_handle_step(host.proxy, &host.error));
        kp_state state = kp_handle_state(host.proxy);
        if (result < 0 && (until == KP_STATE_READY || state == KP_STATE_EXITED))
            return result;
        if (state == until || state == KP_STATE_EXITED)
            return KP_OK;
        if (!pause_for_step())
            return KP_AGAIN;
    }
    complain("it spins in state %d", kp_handle_state(host.proxy));
    return KP_AGAIN;
}

/* A signal handler ends the wait, and EINTR is what tells of one. */
static kp_result wait_until(kp_state until)
{
    const struct call *call = until == KP_STATE_READY ? &call_wait_ready : &call_wait_exited;
    kp_result result = KP_AGAIN;
    for (int i = 0; result == KP_AGAIN && i < MOST_STEPS; i++)
        CALL(call, kp_handle_wait(host.proxy, until, -1, &host.error));
    if (result == KP_AGAIN)
        complain("%s: no end of KP_AGAIN", call->name);
    return result;
}

static kp_result reach(kp_state until)
{
    return host.drive == STEPPING ? step_until(until) : wait_until(until);
}

static void release(void)
{
    kp_result result;
    if (host.proxy != NULL)
        CALL(&call_free, (kp_handle_free(host.proxy), KP_OK));
    (void)result;
    host.proxy = NULL;
}

/* ---- The parts of a life -------------------------------------------------- */

static bool proxy_answers(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char answer[64];
    address.sin_port = htons(kp_handle_port(host.proxy));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool answers = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                   send(fd, "?", 1, MSG_NOSIGNAL) == 1 && recv(fd, answer, sizeof answer, 0) > 8 &&
                   memcmp(answer, "HTTP/1.1", 8) == 0;
    if (fd >= 0)
        close(fd);
    return answers;
}

static bool is_marked(char **env)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "HTTPS_PROXY=%s", kp_handle_url(host.proxy));
    for (; *env != NULL; env++)
        if (strcmp(*env, wanted) == 0)
            return true;
    return false;
}

static void check_environment(const kp_handle *proxy, char *const base[])
{
    size_t hit = host.outcome->hit;
    wrap_enter();
    char **env = kp_env_new(proxy, base);
    wrap_leave();
    if (env == NULL && host.outcome->hit == hit && !lasts())
        complain("kp_env_new: NULL, though there was memory");
    if (env != NULL && is_marked(env) != (proxy != NULL))
        complain("kp_env_new: the proxy is %s the environment", proxy != NULL ? "not in" : "in");
    wrap_enter();
    kp_env_free(env);
    wrap_leave();
}

static void check_environments(void)
{
    char *const none[] = {NULL};
    check_environment(host.proxy, NULL);
    check_environment(host.proxy, none);
    check_environment(NULL, NULL);
}

static void check_ready(void)
{
    if (kp_handle_state(host.proxy) != KP_STATE_READY)
        complain("READY was told in state %d", kp_handle_state(host.proxy));
    if (host.life->expected != KP_OK && host.outcome->hit == 0)
        complain("READY, not %s", kp_result_name(host.life->expected));
    else if (host.life->expected == KP_OK && !proxy_answers())
        complain("READY, but the proxy does not answer");
    else if (host.life->rich)
        check_environments();
}

/* A failure by itself, or by a fault that has just been met. */
static void check_failure(kp_result result, size_t hit_before)
{
    bool by_fault = host.outcome->hit != hit_before || lasts() || is_failed_from_outside();
    if (!by_fault && result != host.life->expected)
        complain("%s without a fault: %s", kp_result_name(result), host.error.message);
}

/* What a start can't do without is not passed over, such as a guard that can't be had. */
static void check_fatal(const struct call *call, kp_result result, size_t hit_before)
{
    for (size_t i = hit_before; result >= 0 && i < host.outcome->hit; i++) {
        const struct fault *fault = &host.plan->faults[i];
        const struct function *failed = &functions[fault->function];
        bool passes = fault->error == ETXTBSY && !fault->lasts;
        if ((failed->traits & FATAL) != 0 && !passes)
            complain("%s: %s, though %s has failed", call->name, kp_result_name(result),
                     failed->name);
    }
}

static void check_start(kp_result result, size_t hit_before)
{
    if (result == KP_OK)
        check_ready();
    else if (result < 0)
        check_failure(result, hit_before);
}

/* Once READY, or not. */
static void begin(void)
{
    kp_result result;
    size_t hit = host.outcome->hit;
    if (host.drive == BLOCKING)
        CALL(&call_spawn, kp_spawn(&host.spec, &host.proxy, &host.error));
    else
        CALL(&call_start, kp_start(&host.spec, &host.proxy, &host.error));
    check_fatal(host.drive == BLOCKING ? &call_spawn : &call_start, result, hit);
    if (result == KP_OK && host.drive == STEPPING)
        result = reach(KP_STATE_READY);
    else if (result != KP_OK && host.proxy != NULL)
        complain("a handle is left by a failed start");
    check_start(result, hit);
}

static void begin_again(void)
{
    kp_result result;
    size_t hit = host.outcome->hit;
    CALL(&call_restart, kp_handle_restart(host.proxy, &host.error));
    check_fatal(&call_restart, result, hit);
    if (result == KP_OK)
        result = reach(KP_STATE_READY);
    check_start(result, hit);
}

static void stop(void)
{
    kp_result result;
    CALL(&call_stop, kp_handle_stop(host.proxy, -1));
    result = reach(KP_STATE_EXITED);
    if (result == KP_OK && kp_handle_state(host.proxy) != KP_STATE_EXITED)
        complain("EXITED was told in state %d", kp_handle_state(host.proxy));
}

/* Every failing start is left behind, every other one is stopped and started again, also after a
 * failure that a fault was the cause of. */
static void run(void)
{
    begin();
    if (host.proxy != NULL && host.outcome->complaint[0] == '\0')
        stop();
    if (host.proxy != NULL && host.life->expected == KP_OK && host.outcome->complaint[0] == '\0')
        begin_again();
    release();
    wrap_close();
}

/* ---- Before and after ----------------------------------------------------- */

static uint64_t open_descriptors(void)
{
    uint64_t set = 0;
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            set |= UINT64_C(1) << fd;
    return set;
}

static void check_descriptors(void)
{
    uint64_t set = open_descriptors();
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        if (((set ^ host.descriptors) >> fd & 1) != 0) {
            char path[32], target[64] = "";
            snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
            (void)!readlink(path, target, sizeof target - 1);
            complain("descriptor %d is %s: %s", fd, (set >> fd & 1) != 0 ? "left" : "gone", target);
        }
}

/* What the proxy's processes have left comes to this one, a subreaper; zombies among that are the
 * host's to reap. */
static void check_processes(void)
{
    int64_t end = now_ms() + KILL_MS + SLACK_MS;
    while (now_ms() < end) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0)
            return;
        if (info.si_pid == 0)
            sleep_us(500);
        else if (wrap_spawned(info.si_pid))
            complain("process %ld is left, a zombie", (long)info.si_pid);
    }
    complain("a process is left alive");
}

static void check_nothing_left(void)
{
    if (host.attached != 0) {
        kill(host.attached, SIGKILL);
        waitpid(host.attached, NULL, 0);
    }
    check_processes();
    check_descriptors();
    if (wrap_live() != 0)
        complain("%ld allocations are left", wrap_live());
}

/* Nor has the proxy it then: it would be out of sight. */
static void drop_capability(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, data) == 0) {
        data[0].effective &= ~(1u << CAP_SYS_PTRACE);
        data[0].permitted &= ~(1u << CAP_SYS_PTRACE);
        prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE);
        syscall(SYS_capset, &header, data);
    }
}

static int hold_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bind(fd, (struct sockaddr *)&address, sizeof address);
    listen(fd, 1);
    return fd;
}

static pid_t start_proxy_to_attach(char *const argv[])
{
    pid_t pid = fork();
    if (pid == 0) {
        char port[32];
        snprintf(port, sizeof port, "KODA_PROXY_PORT=%d", PORT);
        char *env[] = {port, NULL};
        execve(argv[0], argv, env);
        _exit(127);
    }
    for (int i = 0; i < 20000 && !port_is_open(PORT); i++)
        sleep_us(50);
    return pid;
}

static int open_log(void)
{
    return open("/tmp", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600); /* is read by another way */
}

/* Its other side stays open, too. */
static int open_terminal(void)
{
    char name[64];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    unlockpt(master);
    ptsname_r(master, name, sizeof name);
    return open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static void make_spec(void)
{
    static char *argv[] = {NULL, NULL, NULL};
    static char name[] = "/no/such/proxy";
    argv[0] = host.life->mode != NULL ? getenv("KP_FAULTS_PROXY") : name;
    argv[1] = strdup(host.life->mode != NULL ? host.life->mode : "");
    host.spec =
        (kp_spec){.size = sizeof host.spec,
                  .argv = argv,
                  .flags = host.life->flags,
                  .startup_timeout_ms = host.plan->faults[0].lasts ? SHORT_STARTUP_MS : STARTUP_MS,
                  .stop_grace_ms = GRACE_MS};
    if (host.life->startup_ms != 0)
        host.spec.startup_timeout_ms = host.life->startup_ms;
    if (host.life->taken || host.life->arrival == LISTENS_BESIDE ||
        (host.life->flags & (KP_SPEC_ATTACH | KP_SPEC_NO_RESERVE)) != 0)
        host.spec.port = PORT;
    if (host.life->taken)
        host.taken = hold_port();
    if ((host.life->flags & KP_SPEC_ATTACH) != 0) {
        host.attached = start_proxy_to_attach(argv);
        host.spec.argv = NULL;
    }
    if (host.life->terminal)
        host.spec.log_fd = open_terminal();
    if (host.life->rich) {
        host.spec.log_fd = host.log = open_log();
        host.spec.cwd = "/";
        host.spec.ca_bundle = "/etc/ca.pem";
    }
}

/* The next start works, once the faults are over. */
static void check_next(void)
{
    const kp_result expected = host.life->expected;
    if ((host.spec.flags & KP_SPEC_ATTACH) == 0)
        host.spec.flags |= KP_SPEC_NO_GUARD; /* is quicker */
    if (host.life->startup_ms == 0)
        host.spec.startup_timeout_ms = STARTUP_MS;
    wrap_enter();
    kp_result result = kp_spawn(&host.spec, &host.proxy, &host.error);
    kp_handle_free(host.proxy);
    wrap_leave();
    wrap_close();
    host.proxy = NULL;
    if (result != expected)
        complain("the next start: %s: %s", kp_result_name(result),
                 result < 0 ? host.error.message : "");
}

_Noreturn void live(const struct life *life, enum drive drive, const struct plan *plan,
                    struct outcome *outcome)
{
    host.life = life;
    host.drive = drive;
    host.plan = plan;
    host.outcome = outcome;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    make_spec();
    for (int fd = 0; life->bare && fd < 2; fd++)
        close(fd);
    if (life->unprivileged)
        drop_capability();
    sigprocmask(SIG_SETMASK, NULL, &host.mask);
    host.descriptors = open_descriptors();
    wrap_begin(plan, outcome, life->arrival, (int)host.spec.startup_timeout_ms, life->old);
    outcome->hit = is_failed_from_outside();
    run();
    wrap_disarm();
    if (outcome->complaint[0] == '\0' && !is_failed_from_outside())
        check_next();
    check_nothing_left();
    outcome->done = true;
    _exit(0);
}
