/* SPDX-License-Identifier: Apache-2.0 */
#include "support.h"
#include "process.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- The census --------------------------------------------------------- */

static bool is_number(const char *name)
{
    return *name >= '0' && *name <= '9';
}

static void list_descriptors(struct census *census)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL && census->fds < MAX_FDS)
        if (is_number(entry->d_name) && atoi(entry->d_name) != dirfd(folder))
            census->fd[census->fds++] = atoi(entry->d_name);
    if (folder != NULL)
        closedir(folder);
}

struct census census_take(void)
{
    struct census census = {.children = count_children()};
    list_descriptors(&census);
    return census;
}

static bool census_has(const struct census *census, int fd)
{
    for (size_t i = 0; i < census->fds; i++)
        if (census->fd[i] == fd)
            return true;
    return false;
}

/* A text that grows, up to its end. */
struct text {
    char bytes[2048];
    size_t used;
};

static __attribute__((format(printf, 2, 3))) void text_add(struct text *text, const char *format,
                                                           ...)
{
    size_t room = sizeof text->bytes - text->used;
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text->bytes + text->used, room, format, arguments);
    va_end(arguments);
    text->used += size < 0 ? 0 : (size_t)size < room ? (size_t)size : room - 1;
}

static void add_descriptor(struct text *text, int fd)
{
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(path, target, sizeof target);
    text_add(text, "descriptor %d is new: %.*s; ", fd, size < 0 ? 0 : (int)size, target);
}

static void compare_descriptors(struct text *text, const struct census *before,
                                const struct census *now)
{
    for (size_t i = 0; i < now->fds; i++)
        if (!census_has(before, now->fd[i]))
            add_descriptor(text, now->fd[i]);
    for (size_t i = 0; i < before->fds; i++)
        if (!census_has(now, before->fd[i]))
            text_add(text, "descriptor %d is gone; ", before->fd[i]);
}

struct stray_search {
    const char *mark;
    struct text *text;
    bool kill;
    size_t found;
};

/* A child that the test forked has the same environment as this process: no mark in /proc. */
static bool visit_stray(const struct process *process, void *data)
{
    struct stray_search *search = data;
    if (!process_lives_in(process) || !process_has_variable(process->pid, search->mark))
        return true;
    search->found++;
    if (search->text != NULL)
        text_add(search->text, "process %ld lives; ", (long)process->pid);
    if (search->kill)
        kill(process->pid, SIGKILL);
    return true;
}

size_t census_end_strays(const struct census *before)
{
    struct stray_search search = {.mark = before->mark, .kill = true};
    process_each(visit_stray, &search);
    return search.found;
}

const char *census_leaks(const struct census *before)
{
    static struct text text;
    struct census now = census_take();
    text = (struct text){.used = 0};
    compare_descriptors(&text, before, &now);
    if (now.children != before->children)
        text_add(&text, "%zu children, %zu before; ", now.children, before->children);
    struct stray_search search = {.mark = before->mark, .text = &text};
    process_each(visit_stray, &search);
    return text.bytes;
}

/* ---- Scenes ------------------------------------------------------------- */

static struct scene *current; /* for the words of assert_result */

static void mark_processes(struct census *census)
{
    static unsigned number;
    char *value = census->mark + sizeof "KP_TEST_MARK";
    snprintf(census->mark, MARK_SIZE, "KP_TEST_MARK=%ld.%u", (long)getpid(), ++number);
    setenv("KP_TEST_MARK", value, 1);
}

int scene_open(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    if (scene == NULL)
        return -1;
    alarm(under_valgrind() ? 600 : 60); /* a test that hangs ends, and guards end its proxies */
    scene->way = *state == NULL ? &ways[0] : *state;
    strcpy(scene->dir, "/tmp/kp-test-XXXXXX");
    if (mkdtemp(scene->dir) == NULL)
        return -1;
    scene->before = census_take();
    mark_processes(&scene->before);
    *state = current = scene;
    return 0;
}

static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.' && unlinkat(dirfd(folder), entry->d_name, 0) != 0)
            unlinkat(dirfd(folder), entry->d_name, AT_REMOVEDIR);
    if (folder != NULL)
        closedir(folder);
    rmdir(path);
}

static void end_handle(kp_handle *handle)
{
    kp_handle_stop(handle, 0);
    kp_handle_free(handle);
}

int scene_close(void **state)
{
    struct scene *scene = *state;
    end_handle(scene->proxy);
    end_handle(scene->second);
    const char *leaks = census_leaks(&scene->before);
    bool clean = leaks[0] == '\0';
    if (!clean)
        print_error("after the test: %s\n", leaks);
    census_end_strays(&scene->before);
    remove_folder(scene->dir);
    current = NULL;
    free(scene);
    alarm(0);
    return clean ? 0 : -1;
}

char *scene_path(const struct scene *scene, const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", scene->dir, name);
    return path;
}

/* ---- Specs -------------------------------------------------------------- */

char *const *words(void *list)
{
    return list;
}

/* Asked for once: a test may take the environment away. */
static const char *fixture_path;

const char *fixture(void)
{
    if (fixture_path == NULL && getenv("KP_FIXTURE") != NULL)
        fixture_path = strdup(getenv("KP_FIXTURE"));
    if (fixture_path == NULL)
        fail_msg("KP_FIXTURE does not name the fixture proxy");
    return fixture_path;
}

void use_fixture(const char *path)
{
    fixture_path = path;
}

kp_spec spec_for(char *const *argv)
{
    return (kp_spec){.size = sizeof(kp_spec), .argv = argv, .startup_timeout_ms = 10000};
}

/* ---- Assertions --------------------------------------------------------- */

void assert_result_at(kp_result expected, kp_result result, const char *file, int line)
{
    if (result == expected)
        return;
    print_error("%s, expected %s\n", kp_result_name(result), kp_result_name(expected));
    if (current != NULL && current->error.code == result && result < 0)
        print_error("%s\n%s\n", current->error.message, current->error.output);
    _fail(file, line);
}

void assert_contains_at(const char *text, const char *part, const char *file, int line)
{
    if (strstr(text, part) != NULL)
        return;
    print_error("\"%s\" does not contain \"%s\"\n", text, part);
    _fail(file, line);
}

void assert_starts_with_at(const char *text, const char *start, const char *file, int line)
{
    if (strncmp(text, start, strlen(start)) == 0)
        return;
    print_error("\"%s\" does not start with \"%s\"\n", text, start);
    _fail(file, line);
}

enum { FILLING = 0xA5 };

void error_fill(kp_error *error)
{
    memset(error, FILLING, sizeof *error);
}

bool error_untouched(const kp_error *error)
{
    const unsigned char *bytes = (const unsigned char *)error;
    for (size_t i = 0; i < sizeof *error; i++)
        if (bytes[i] != FILLING)
            return false;
    return true;
}

bool under_valgrind(void)
{
    return getenv("KP_TEST_VALGRIND") != NULL;
}

bool left_out(const char *test, const char *place)
{
    printf("# left out %s: %s\n", place, test);
    return true;
}

bool left_out_under_valgrind(const char *test)
{
    return under_valgrind() && left_out(test, "under valgrind");
}

bool on_posix(void)
{
    const char *platform = getenv("KP_TEST_PLATFORM");
    return platform != NULL && strcmp(platform, "posix") == 0;
}

bool left_out_on_posix(const char *test)
{
    return on_posix() && left_out(test, "on the POSIX platform");
}

/* ---- Forked hosts ------------------------------------------------------- */

int check_output = STDERR_FILENO;

_Noreturn void check_failed(const char *file, int line, const char *condition)
{
    dprintf(check_output, "%s:%d: in the child: %s\n", file, line, condition);
    _exit(1);
}

int in_child(void (*body)(struct scene *), struct scene *scene)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        body(scene);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        fail_msg("can't fork");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- Time and files ----------------------------------------------------- */

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void sleep_ms(int64_t ms)
{
    struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest) != 0)
        ;
}

size_t file_read(const char *path, char *buffer, size_t size)
{
    size_t used = 0;
    ssize_t got = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && used + 1 < size && (got = read(fd, buffer + used, size - used - 1)) > 0)
        used += (size_t)got;
    if (fd >= 0)
        close(fd);
    buffer[used] = '\0';
    return used;
}

void file_write(const char *path, const char *text, unsigned mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}
