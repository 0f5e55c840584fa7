/* SPDX-License-Identifier: Apache-2.0 */
/* What the proxy gets from its host, and what it does not. */
#include "process.h"
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Reports of the fixture ---------------------------------------------- */

static char report[64 * 1024];

/* Starts the fixture in a mode that writes the report, and reads that. */
static void read_report(struct scene *scene, const char *mode, kp_spec spec)
{
    const char *path = scene_path(scene, "report");
    spec.argv = FIXTURE(mode, path);
    get_ready(scene, spec);
    assert_true(file_read(path, report, sizeof report) > 0);
}

/* How many lines of the report are this one. */
static int lines_equal(const char *line)
{
    int found = 0;
    size_t size = strlen(line);
    for (const char *at = report; at != NULL && *at != '\0'; at = strchr(at, '\n')) {
        at += *at == '\n';
        found += strncmp(at, line, size) == 0 && at[size] == '\n';
    }
    return found;
}

static int lines_starting(const char *start)
{
    int found = 0;
    for (const char *at = report; at != NULL && *at != '\0'; at = strchr(at, '\n')) {
        at += *at == '\n';
        found += strncmp(at, start, strlen(start)) == 0;
    }
    return found;
}

static kp_spec defaults(void)
{
    return spec_for(NULL);
}

/* ---- Environment --------------------------------------------------------- */

static void assert_variable(const char *name, const char *value)
{
    char line[512], start[256];
    snprintf(line, sizeof line, "env %s=%s", name, value);
    snprintf(start, sizeof start, "env %s=", name);
    assert_contains(report, line);
    assert_int_equal(lines_equal(line), 1);
    assert_int_equal(lines_starting(start), 1);
}

static void assert_port_variable(const struct scene *scene, const char *name)
{
    char port[16];
    snprintf(port, sizeof port, "%u", kp_handle_port(scene->proxy));
    assert_variable(name, port);
}

static void the_hosts_environment_comes_first(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = defaults();
    setenv("KP_A", "host", 1);
    setenv("KP_B", "host", 1);
    spec.env = WORDS("KP_B=spec", "KP_C=spec=with=more", "KP_D=");
    read_report(scene, "environ", spec);
    unsetenv("KP_A");
    unsetenv("KP_B");
    assert_variable("KP_A", "host");
    assert_variable("KP_B", "spec");
    assert_variable("KP_C", "spec=with=more");
    assert_variable("KP_D", "");
    assert_port_variable(scene, KP_PORT_ENV);
}

static void the_last_of_two_counts(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = defaults();
    spec.env = WORDS("KP_A=first", "KP_A=last");
    read_report(scene, "environ", spec);
    assert_variable("KP_A", "last");
}

/* A host that is itself behind a proxy of this kind. */
static void the_port_beats_an_inherited_one(void **state)
{
    struct scene *scene = *state;
    setenv(KP_PORT_ENV, "1", 1);
    read_report(scene, "environ", defaults());
    unsetenv(KP_PORT_ENV);
    assert_port_variable(scene, KP_PORT_ENV);
}

static void a_clear_environment_holds_two_things(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = defaults();
    setenv("KP_A", "host", 1);
    spec.flags = KP_SPEC_CLEAR_ENV;
    spec.env = WORDS("KP_C=spec");
    read_report(scene, "environ", spec);
    unsetenv("KP_A");
    assert_variable("KP_C", "spec");
    assert_port_variable(scene, KP_PORT_ENV);
    assert_int_equal(lines_starting("env "), 2);
}

static void another_variable_carries_the_port(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = defaults();
    spec.port_env = "OWN_PORT";
    spec.env = WORDS("FIXTURE_PORT_ENV=OWN_PORT");
    read_report(scene, "environ", spec);
    assert_port_variable(scene, "OWN_PORT");
    assert_int_equal(lines_starting("env " KP_PORT_ENV "="), 0);
}

/* What tells a host alone of itself. */
static const char *const hosts_alone[] = {"NOTIFY_SOCKET",  "WATCHDOG_USEC",  "WATCHDOG_PID",
                                          "LISTEN_FDS",     "LISTEN_PID",     "LISTEN_FDNAMES",
                                          "LISTEN_PIDFDID", "NODE_CHANNEL_FD"};
enum { HOSTS_ALONE = sizeof hosts_alone / sizeof *hosts_alone };

static void tell_the_host(void)
{
    for (size_t i = 0; i < HOSTS_ALONE; i++)
        setenv(hosts_alone[i], "host", 1);
    setenv("LISTEN_FD", "host", 1);
    setenv("NOTIFY_SOCKETS", "host", 1);
    setenv("notify_socket", "host", 1);
}

static void forget_what_was_told(void)
{
    for (size_t i = 0; i < HOSTS_ALONE; i++)
        unsetenv(hosts_alone[i]);
    unsetenv("LISTEN_FD");
    unsetenv("NOTIFY_SOCKETS");
    unsetenv("notify_socket");
}

static void what_speaks_of_the_host_alone_stays_with_it(void **state)
{
    struct scene *scene = *state;
    char start[64];
    tell_the_host();
    read_report(scene, "environ", defaults());
    forget_what_was_told();
    for (size_t i = 0; i < HOSTS_ALONE; i++) {
        snprintf(start, sizeof start, "env %s=", hosts_alone[i]);
        assert_int_equal(lines_starting(start), 0);
    }
    assert_variable("LISTEN_FD", "host");
    assert_variable("NOTIFY_SOCKETS", "host");
    assert_variable("notify_socket", "host");
}

/* What the host starts behind the proxy is its own affair. */
static void its_children_may_have_it(void **state)
{
    struct scene *scene = *state;
    char *const *base = WORDS("NOTIFY_SOCKET=host");
    get_ready(scene, spec_for(FIXTURE("serve")));
    char **env = kp_env_new(scene->proxy, base);
    size_t found = 0;
    for (size_t i = 0; env[i] != NULL; i++)
        found += strcmp(env[i], base[0]) == 0;
    kp_env_free(env);
    assert_int_equal(found, 1);
}

static void the_spec_may_tell_the_proxy_all_the_same(void **state)
{
    struct scene *scene = *state;
    char url[64];
    kp_spec spec = defaults();
    spec.port = free_port();
    snprintf(url, sizeof url, "HTTP_PROXY=http://127.0.0.1:%u", spec.port);
    spec.env = WORDS("NOTIFY_SOCKET=spec", url);
    tell_the_host();
    read_report(scene, "environ", spec);
    forget_what_was_told();
    assert_variable("NOTIFY_SOCKET", "spec");
    assert_variable("HTTP_PROXY", strchr(url, '=') + 1);
}

/* Variables of the host's; a '*' is the proxy's own port. */
static const char *const to_itself[] = {
    "HTTP_PROXY=http://127.0.0.1:*",
    "http_proxy=http://127.0.0.1:*/",
    "HTTPS_PROXY=http://localhost:*",
    "https_proxy=https://LocalHost:*/a/path",
    "ALL_PROXY=socks5h://[::1]:*",
    "all_proxy=127.0.0.1:*",
    "FTP_PROXY=localhost:*",
    "ftp_proxy=http://user:password@127.0.0.1:*",
    "npm_config_https_proxy=http://user@127.1.2.3:*?query",
    "NPM_CONFIG_PROXY=http://u:p@ss@0.0.0.0:*#fragment",
    "YARN_HTTP_PROXY=http://[::]:*",
    "Cargo_Http_Proxy=HTTP://[::FFFF:127.0.0.1]:*",
    "RSYNC_PROXY=::1:*",
    "grpc_proxy=http://:*",
    "ws_proxy=http://127.0.0.1:0*",
};
static const char *const elsewhere[] = {
    "HTTP_PROXY=http://127.0.0.1:1",
    "http_proxy=http://127.0.0.1",
    "HTTPS_PROXY=http://proxy.example:*",
    "https_proxy=http://10.0.0.1:*",
    "ALL_PROXY=http://127.0.0.1.example:*",
    "all_proxy=http://localhost.example:*",
    "FTP_PROXY=http://127.0.0.1:*1",
    "ftp_proxy=http://127.0.0.1:x*",
    "Ftp_Proxy=http://127.0.0.1:-*",
    "PIP_PROXY=http://127.0.0.1:",
    "grpc_proxy=",
    "ws_proxy=http://[::1]",
    "wss_proxy=http://[::2]:*",
    "rsync_proxy=http://127.0.0.1:9@proxy.example:*",
    "socks_proxy=http://127.0.0.1:99999999999*",
    "NO_PROXY=127.0.0.1:*",
    "no_grpc_proxy=127.0.0.1:*",
    "YARN_NO_PROXY=127.0.0.1:*",
    "PROXY_URL=http://127.0.0.1:*",
    "PROXY=http://127.0.0.1:*",
};

/* NAME=value, with the port. */
static const char *with_port(const char *variable, uint16_t port)
{
    static char text[256];
    const char *star = strchr(variable, '*');
    if (star == NULL)
        return variable;
    snprintf(text, sizeof text, "%.*s%u%s", (int)(star - variable), variable, port, star + 1);
    return text;
}

/* Starts a proxy on this port in a host that has just these variables, and reads its report. */
static void report_beside(struct scene *scene, uint16_t port, const char *const *list, size_t count)
{
    static char text[32][256];
    static char *env[33];
    char **kept = environ;
    kp_spec spec = defaults();
    assert_true(count < 32);
    for (size_t i = 0; i < count; i++)
        env[i] = strcpy(text[i], with_port(list[i], port));
    env[count] = NULL;
    spec.port = port;
    environ = env;
    const char *path = scene_path(scene, "report");
    spec.argv = FIXTURE("environ", path);
    kp_result result = kp_spawn(&spec, &scene->proxy, &scene->error);
    environ = kept;
    assert_result(KP_OK, result);
    assert_true(file_read(path, report, sizeof report) > 0);
}

static void no_proxy_is_sent_to_itself(void **state)
{
    struct scene *scene = *state;
    size_t count = sizeof to_itself / sizeof *to_itself;
    report_beside(scene, free_port(), to_itself, count);
    for (size_t i = 0; i < count; i++) {
        char line[256];
        snprintf(line, sizeof line, "env %.*s=", (int)strcspn(to_itself[i], "="), to_itself[i]);
        if (lines_starting(line) != 0)
            fail_msg("%s is left", to_itself[i]);
    }
    assert_int_equal(lines_starting("env "), 1); /* its port */
}

/* To another proxy, such as that of a kp-run around this host. */
static void it_is_sent_on_to_others(void **state)
{
    struct scene *scene = *state;
    uint16_t port = free_port();
    size_t count = sizeof elsewhere / sizeof *elsewhere;
    report_beside(scene, port, elsewhere, count);
    for (size_t i = 0; i < count; i++) {
        char line[300];
        snprintf(line, sizeof line, "env %s", with_port(elsewhere[i], port));
        if (lines_equal(line) != 1)
            fail_msg("%s is gone", elsewhere[i]);
    }
    assert_int_equal(lines_starting("env "), (int)count + 1);
}

/* Of two with one name the first is what programs see: the second does not take its place. */
static void nor_to_what_the_first_of_two_has_hidden(void **state)
{
    struct scene *scene = *state;
    static const char *const both[] = {"HTTP_PROXY=http://127.0.0.1:*",
                                       "HTTP_PROXY=http://proxy.example:1"};
    report_beside(scene, free_port(), both, 2);
    assert_int_equal(lines_starting("env HTTP_PROXY="), 0);
}

static void a_restart_is_not_sent_to_itself_either(void **state)
{
    struct scene *scene = *state;
    const char *path = scene_path(scene, "report");
    get_ready(scene, spec_for(FIXTURE("environ", path)));
    kp_handle_stop(scene->proxy, -1);
    get_exited(scene);
    setenv("HTTPS_PROXY", kp_handle_url(scene->proxy), 1);
    kp_result result = kp_handle_restart(scene->proxy, &scene->error);
    unsetenv("HTTPS_PROXY");
    assert_result(KP_OK, result);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    file_read(path, report, sizeof report);
    assert_int_equal(lines_starting("env HTTPS_PROXY="), 0);
}

/* ---- Program and folder -------------------------------------------------- */

static void the_folder_is_the_specs(void **state)
{
    struct scene *scene = *state;
    char line[64];
    kp_spec spec = defaults();
    spec.cwd = scene->dir;
    read_report(scene, "environ", spec);
    snprintf(line, sizeof line, "cwd %s", scene->dir);
    assert_int_equal(lines_equal(line), 1);
}

static void the_folder_is_the_hosts(void **state)
{
    struct scene *scene = *state;
    char folder[1024], line[1100];
    assert_non_null(getcwd(folder, sizeof folder));
    read_report(scene, "environ", defaults());
    snprintf(line, sizeof line, "cwd %s", folder);
    assert_int_equal(lines_equal(line), 1);
}

static void a_name_with_a_slash_counts_from_the_folder(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(symlink(fixture(), scene_path(scene, "proxy")), 0);
    kp_spec spec = spec_for(WORDS("./proxy", "serve"));
    spec.cwd = scene->dir;
    get_ready(scene, spec);
}

/* Starts `kp-test-proxy`, which is in the scene's folder alone, with this PATH of the host's. */
static kp_result spawn_from_path(struct scene *scene, kp_spec spec, const char *path)
{
    char *kept = strdup(getenv("PATH"));
    spec.argv = WORDS("kp-test-proxy", "serve");
    setenv("PATH", path, 1);
    kp_result result = spawn(scene, spec);
    setenv("PATH", kept, 1);
    free(kept);
    return result;
}

static void a_plain_name_is_looked_up_in_the_hosts_path(void **state)
{
    struct scene *scene = *state;
    char path[256];
    kp_spec spec = defaults();
    assert_int_equal(symlink(fixture(), scene_path(scene, "kp-test-proxy")), 0);
    snprintf(path, sizeof path, "/no-such-folder:%s:/usr/bin", scene->dir);
    spec.env = WORDS("PATH=/no-such-folder");
    assert_result(KP_OK, spawn_from_path(scene, spec, path));
}

static void nor_does_a_clear_environment_hide_the_path(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = defaults();
    assert_int_equal(symlink(fixture(), scene_path(scene, "kp-test-proxy")), 0);
    spec.flags = KP_SPEC_CLEAR_ENV;
    assert_result(KP_OK, spawn_from_path(scene, spec, scene->dir));
}

/* As a shell does it: what can't be executed is passed over. */
static void what_is_not_executable_is_passed_over(void **state)
{
    struct scene *scene = *state;
    char path[256];
    const char *other = scene_path(scene, "other");
    assert_int_equal(mkdir(other, 0700), 0);
    snprintf(path, sizeof path, "%s/kp-test-proxy", other);
    file_write(path, "not a program", 0600);
    assert_int_equal(symlink(fixture(), scene_path(scene, "kp-test-proxy")), 0);
    char *both = scene_path(scene, "other:");
    strcat(both, scene->dir);
    kp_result result = spawn_from_path(scene, defaults(), both);
    unlink(path);
    rmdir(other);
    assert_result(KP_OK, result);
}

/* ---- Descriptors --------------------------------------------------------- */

static void assert_descriptor(const char *number, const char *target)
{
    char line[256];
    snprintf(line, sizeof line, "%s %s", number, target);
    assert_contains(report, line);
    assert_int_equal(lines_equal(line), 1);
}

/* Descriptors that a careless host left inheritable, low ones and high ones. */
static void leave_open(int *fds)
{
    fds[0] = open("/dev/zero", O_RDONLY);
    fds[1] = fcntl(fds[0], F_DUPFD, 60);
    fds[2] = fcntl(fds[0], F_DUPFD, 500);
}

static void close_all(const int *fds)
{
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

static void three_descriptors_and_no_more(void **state)
{
    struct scene *scene = *state;
    int fds[3];
    kp_spec spec = defaults();
    leave_open(fds);
    spec.log_fd = open(scene_path(scene, "log"), O_WRONLY | O_CREAT, 0600);
    read_report(scene, "fds", spec);
    close(spec.log_fd);
    close_all(fds);
    assert_descriptor("0", "/dev/null");
    assert_descriptor("1", scene_path(scene, "log"));
    assert_descriptor("2", scene_path(scene, "log"));
    assert_null(strstr(report, "/dev/zero"));
    assert_int_equal(lines_starting(""), 3 + 1); /* and the end */
}

/* The log may be the host's standard output or error itself. */
static void log_to(struct scene *scene, int fd)
{
    kp_spec spec = spec_for(FIXTURE("fds", scene_path(scene, "report")));
    spec.log_fd = fd;
    CHECK(kp_spawn(&spec, &scene->proxy, &scene->error) == KP_OK);
    kp_handle_free(scene->proxy);
}

static void log_to_standard_output(struct scene *scene)
{
    int fd = open(scene_path(scene, "log"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(dup2(fd, 1) == 1);
    log_to(scene, 1);
}

static void the_log_may_be_standard_output(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(in_child(log_to_standard_output, scene), 0);
    file_read(scene_path(scene, "report"), report, sizeof report);
    assert_descriptor("1", scene_path(scene, "log"));
    assert_descriptor("2", scene_path(scene, "log"));
}

static bool is_closed(int fd)
{
    return fcntl(fd, F_GETFD) == -1 && errno == EBADF;
}

static void start_without_standard_streams(struct scene *scene)
{
    kp_spec spec = spec_for(FIXTURE("fds", scene_path(scene, "report")));
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    kp_result result = kp_spawn(&spec, &scene->proxy, &scene->error);
    bool kept_closed = is_closed(0) && is_closed(1) && is_closed(2);
    bool above = (on_posix() || kp_handle_fd(scene->proxy) > 2) && is_closed(0) && is_closed(1) &&
                 is_closed(2);
    kp_handle_free(scene->proxy);
    _exit(result != KP_OK ? 2 : !kept_closed ? 3 : !above ? 4 : 0);
}

static void a_host_whose_standard_streams_are_closed(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(in_child(start_without_standard_streams, scene), 0);
    file_read(scene_path(scene, "report"), report, sizeof report);
    assert_descriptor("0", "/dev/null");
    assert_descriptor("1", "/dev/null");
    assert_descriptor("2", "/dev/null");
}

static bool was_open(const struct census *before, int fd)
{
    for (size_t i = 0; i < before->fds; i++)
        if (before->fd[i] == fd)
            return true;
    return false;
}

static void the_librarys_own_are_not_inherited(void **state)
{
    struct scene *scene = *state;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_true(on_posix() || kp_handle_fd(scene->proxy) >= 0);
    struct census now = census_take();
    assert_true(now.fds > scene->before.fds);
    for (size_t i = 0; i < now.fds; i++)
        if (!was_open(&scene->before, now.fd[i])) {
            assert_true(now.fd[i] > 2);
            assert_int_equal(fcntl(now.fd[i], F_GETFD), FD_CLOEXEC);
        }
}

/* The budget of a handle that is ready. A probe that were left open would be one more, and a
 * connection to the proxy. */
static void assert_new_descriptors(const struct scene *scene, size_t limit)
{
    struct census now = census_take();
    assert_in_range(now.fds - scene->before.fds, 0, limit);
}

static void a_ready_handle_holds_few_descriptors(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("late", "20"));
    bool guarded = scene->way->flags != KP_SPEC_NO_GUARD;
    spec.flags = scene->way->flags;
    assert_result(KP_OK, kp_spawn(&spec, &scene->proxy, &scene->error));
    assert_new_descriptors(scene, guarded ? 4 : 2);
    assert_true(on_posix() || kp_handle_fd(scene->proxy) >= 0);
    assert_new_descriptors(scene, guarded ? 6 : 4);
    assert_result(KP_OK, kp_handle_stop(scene->proxy, -1));
    get_exited(scene);
    assert_new_descriptors(scene, 3); /* the reservation and the two of the loop */
}

/* ---- Signals ------------------------------------------------------------- */

static const int harsh_signals[] = {SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXFSZ};
enum { HARSH_SIGNALS = sizeof harsh_signals / sizeof *harsh_signals };

static void set_dispositions(void (*handler)(int))
{
    for (int i = 0; i < HARSH_SIGNALS; i++)
        signal(harsh_signals[i], handler);
}

/* Python ignores SIGPIPE, daemons block SIGTERM to read it from a signalfd. */
static kp_result spawn_in_a_harsh_host(struct scene *scene, kp_spec spec, sigset_t *after)
{
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGALRM);
    set_dispositions(SIG_IGN);
    sigprocmask(SIG_SETMASK, &all, &old);
    kp_result result = spawn(scene, spec);
    sigprocmask(SIG_SETMASK, &old, after);
    set_dispositions(SIG_DFL);
    return result;
}

static unsigned long long signals_of(const char *name)
{
    unsigned long long bits = ~0ull;
    const char *line = strstr(report, name);
    assert_non_null(line);
    assert_int_equal(sscanf(line + strlen(name), " %llx", &bits), 1);
    return bits;
}

/* glibc keeps these two for itself, and gives them to every child ignored. */
static const unsigned long long of_glibc = 3ull << (32 - 1);

static void no_signal_is_blocked_or_ignored(void **state)
{
    struct scene *scene = *state;
    sigset_t after;
    const char *path = scene_path(scene, "report");
    kp_spec spec = spec_for(FIXTURE("signals", path));
    assert_result(KP_OK, spawn_in_a_harsh_host(scene, spec, &after));
    file_read(path, report, sizeof report);
    assert_true(signals_of("SigBlk:") == 0);
    assert_true((signals_of("SigIgn:") & ~of_glibc) == 0);
}

static void the_hosts_mask_stays(void **state)
{
    struct scene *scene = *state;
    sigset_t after;
    assert_result(KP_OK, spawn_in_a_harsh_host(scene, spec_for(FIXTURE("serve")), &after));
    assert_int_equal(sigismember(&after, SIGTERM), 1);
    assert_int_equal(sigismember(&after, SIGALRM), 0);
}

static void the_hosts_mask_stays_after_a_failure(void **state)
{
    struct scene *scene = *state;
    sigset_t after;
    kp_result result = spawn_in_a_harsh_host(scene, spec_for(WORDS("/no/such/proxy")), &after);
    assert_true(result == KP_ERR_SPAWN || (under_valgrind() && result == KP_ERR_EXITED));
    assert_int_equal(sigismember(&after, SIGTERM), 1);
    assert_int_equal(sigismember(&after, SIGALRM), 0);
}

/* SIGTERM works on a proxy of a host that ignores it. */
static void a_harsh_hosts_proxy_can_be_stopped(void **state)
{
    struct scene *scene = *state;
    sigset_t after;
    int signal_number = 0;
    assert_result(KP_OK, spawn_in_a_harsh_host(scene, spec_for(FIXTURE("serve")), &after));
    assert_result(KP_OK, kp_handle_stop(scene->proxy, PATIENCE_MS));
    get_exited(scene);
    assert_int_equal(kp_handle_exit_status(scene->proxy, NULL, &signal_number), 1);
    assert_int_equal(signal_number, SIGTERM);
}

/* ---- Groups -------------------------------------------------------------- */

static void the_proxy_is_in_a_group_of_its_own(void **state)
{
    struct scene *scene = *state;
    struct process proxy;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_true(process_read(kp_handle_pid(scene->proxy), &proxy));
    assert_int_not_equal(proxy.group, getpgrp());
    assert_int_equal(proxy.session, getsid(0));
    assert_int_equal(proxy.parent, getpid());
}

static void the_guard_leads_the_group(void **state)
{
    struct scene *scene = *state;
    struct process proxy, leader;
    get_ready(scene, spec_for(FIXTURE("serve")));
    assert_true(process_read(kp_handle_pid(scene->proxy), &proxy));
    assert_int_not_equal(proxy.group, proxy.pid);
    assert_true(process_read(proxy.group, &leader));
    assert_int_equal(leader.parent, getpid());
    assert_int_equal(group_size(proxy.group), 2);
}

static void without_a_guard_the_proxy_leads_it(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.flags = KP_SPEC_NO_GUARD;
    get_ready(scene, spec);
    assert_int_equal(getpgid(kp_handle_pid(scene->proxy)), kp_handle_pid(scene->proxy));
    assert_int_equal(group_size(kp_handle_pid(scene->proxy)), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_hosts_environment_comes_first),
        TEST(the_last_of_two_counts),
        TEST(the_port_beats_an_inherited_one),
        TEST(a_clear_environment_holds_two_things),
        TEST(another_variable_carries_the_port),
        TEST(what_speaks_of_the_host_alone_stays_with_it),
        TEST(its_children_may_have_it),
        TEST(the_spec_may_tell_the_proxy_all_the_same),
        TEST(no_proxy_is_sent_to_itself),
        TEST(it_is_sent_on_to_others),
        TEST(nor_to_what_the_first_of_two_has_hidden),
        TEST(a_restart_is_not_sent_to_itself_either),
        TEST(the_folder_is_the_specs),
        TEST(the_folder_is_the_hosts),
        TEST(a_name_with_a_slash_counts_from_the_folder),
        TEST(a_plain_name_is_looked_up_in_the_hosts_path),
        TEST(nor_does_a_clear_environment_hide_the_path),
        TEST(what_is_not_executable_is_passed_over),
        EACH_WAY(three_descriptors_and_no_more),
        TEST(the_log_may_be_standard_output),
        TEST(a_host_whose_standard_streams_are_closed),
        EACH_WAY(the_librarys_own_are_not_inherited),
        TEST_WAY(a_ready_handle_holds_few_descriptors, "descriptor", &ways[1]),
        TEST_WAY(a_ready_handle_holds_few_descriptors, "no guard", &ways[3]),
        EACH_WAY(no_signal_is_blocked_or_ignored),
        TEST(the_hosts_mask_stays),
        TEST(the_hosts_mask_stays_after_a_failure),
        EACH_WAY(a_harsh_hosts_proxy_can_be_stopped),
        EACH_WAY(the_proxy_is_in_a_group_of_its_own),
        EACH_GUARDED_WAY(the_guard_leads_the_group),
        TEST(without_a_guard_the_proxy_leads_it),
    };
    return RUN(tests);
}
