/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call by which the library asks something of the system fails in turn, with each error that
 * it may fail with, in whole lives of a proxy; then every pair of calls; then all calls of a
 * function from each on. What is counted here was found by running: a function is failed at its
 * n-th call until there is a life that has no n-th call.
 *
 *   faults single PART PARTS     one fault in a life
 *   faults pairs PART PARTS      two, the second one with the first of its errors alone
 *   faults lasting PART PARTS    one that does not pass
 *   faults functions             the names of all that are failed
 *   faults replay LIFE DRIVE FUNCTION CALL ERROR once|lasting ...   one life, as a complaint has it
 *
 * Each life is one of a process, so that nothing that the library keeps is there yet, and no
 * crash or hang is the end. All of them run in a pid, mount and network namespace of their own.
 */
#include "lives.h"
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_S = 20, MOST_FAILURES = 100 };

static const char *const drive_names[DRIVES] = {"stepping", "blocking"};

static struct outcome *outcome; /* shared with the process of a life */
static struct {
    unsigned long lives, faults, pairs, failures;
} total;
static unsigned part, parts;

/* ---- One life ------------------------------------------------------------- */

static void print_replay(const struct life *life, enum drive drive, const struct plan *plan)
{
    printf("#   replay '%s' %s", life->name, drive_names[drive]);
    for (size_t i = 0; i < plan->count; i++)
        printf(" '%s' %u %s %s", functions[plan->faults[i].function].name, plan->faults[i].call,
               strerrorname_np(plan->faults[i].error), plan->faults[i].lasts ? "lasting" : "once");
    printf("\n");
}

static void fail(const struct life *life, enum drive drive, const struct plan *plan,
                 const char *why)
{
    if (++total.failures > MOST_FAILURES)
        return;
    printf("# %s\n", why);
    print_replay(life, drive, plan);
    fflush(stdout);
}

/* Whoever is left of it is this process's child, which is the namespace's init. */
static void end_strays(void)
{
    char text[4096] = "", path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", getpid(), getpid());
    for (FILE *file; waitpid(-1, NULL, WNOHANG) >= 0; sleep_us(500)) {
        if ((file = fopen(path, "re")) == NULL)
            return;
        while (fscanf(file, "%15s", text) == 1)
            kill((pid_t)atoi(text), SIGKILL);
        fclose(file);
    }
}

/* Runs it; whether all of its faults were met. */
static bool run(const struct life *life, enum drive drive, const struct plan *plan)
{
    char why[128];
    int status = 0;
    memset(outcome, 0, sizeof *outcome);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(LIMIT_S);
        live(life, drive, plan, outcome);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    end_strays();
    total.lives++;
    total.faults += outcome->hit;
    total.pairs += outcome->hit == MOST_FAULTS;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        snprintf(why, sizeof why, "it hangs");
    else
        snprintf(why, sizeof why, "it crashes (status %#x)", (unsigned)status);
    if (outcome->complaint[0] != '\0')
        fail(life, drive, plan, outcome->complaint);
    else if (!outcome->done)
        fail(life, drive, plan, why);
    return outcome->hit == plan->count;
}

/* ---- All of them ---------------------------------------------------------- */

static unsigned known[FUNCTIONS]; /* calls of a life without faults */
static bool reached[FUNCTIONS];   /* whether there is such a life */

static bool is_mine(const struct fault *fault)
{
    return ((unsigned)fault->function + fault->call) % parts == part;
}

/* Whether there is such a call to fail. Those of the other parts are failed there. */
static bool meet(const struct life *life, enum drive drive, const struct plan *plan)
{
    const struct fault *first = &plan->faults[0];
    return is_mine(first) ? run(life, drive, plan) : first->call <= known[first->function];
}

/* Then nobody can be ended. */
static bool leave_no_signal(enum function_id one, enum function_id other)
{
    return (one == F_PIDFD_SIGNAL || one == F_PIDFD_OPEN) && other == F_KILL;
}

/* The second fault, at every call after the first one was met. */
static void run_second(const struct life *life, enum drive drive, struct plan plan,
                       const unsigned calls[FUNCTIONS])
{
    plan.count = 2;
    for (size_t second = 0; second < FUNCTIONS; second++) {
        struct fault *fault = &plan.faults[1];
        *fault = (struct fault){(enum function_id)second, 1, functions[second].errors[0], false};
        while (calls[second] != 0 && !leave_no_signal(plan.faults[0].function, fault->function) &&
               run(life, drive, &plan))
            fault->call++;
    }
}

typedef void run_kind(const struct life *life, enum drive drive, enum function_id function);

static void run_single(const struct life *life, enum drive drive, enum function_id function)
{
    for (const int *error = functions[function].errors; *error != 0; error++) {
        struct plan plan = {.count = 1, .faults = {{function, 1, *error, false}}};
        while ((!life->wants || (is_want(*error) && *error != EAGAIN)) && meet(life, drive, &plan))
            plan.faults[0].call++;
    }
}

static void run_lasting(const struct life *life, enum drive drive, enum function_id function)
{
    struct plan plan = {.count = 1, .faults = {{function, 1, functions[function].errors[0], true}}};
    /* An owner that has left the group can't be found then. */
    while ((functions[function].traits & PERSISTS) != 0 && !life->wants && meet(life, drive, &plan))
        plan.faults[0].call++;
}

static void run_pairs(const struct life *life, enum drive drive, enum function_id function)
{
    unsigned calls[FUNCTIONS];
    struct plan plan = {.count = 1,
                        .faults = {{function, 1, functions[function].errors[0], false}}};
    for (; life->pairs && meet(life, drive, &plan); plan.faults[0].call++) {
        if (!is_mine(&plan.faults[0]))
            continue;
        memcpy(calls, outcome->calls, sizeof calls);
        run_second(life, drive, plan, calls);
    }
}

/* Where a life without faults does not call a function, there is nothing to fail. */
static void run_life(const struct life *life, enum drive drive, run_kind *kind)
{
    struct plan none = {0};
    run(life, drive, &none);
    memcpy(known, outcome->calls, sizeof known);
    for (size_t i = 0; i < FUNCTIONS; i++)
        if (known[i] != 0) {
            reached[i] = true;
            kind(life, drive, (enum function_id)i);
        }
}

static void check_reached(void)
{
    for (size_t i = 0; i < FUNCTIONS; i++)
        if (!reached[i]) {
            printf("# %s was never failed\n", functions[i].name);
            total.failures++;
        }
}

static int run_all(const char *name, run_kind *kind)
{
    unsigned count = 0;
    for (size_t i = 0; i < life_count; i++)
        for (size_t drive = 0; drive < DRIVES; drive++) {
            unsigned long before = total.lives, faults = total.faults, failures = total.failures;
            if (kind == run_pairs && !lives[i].pairs)
                continue;
            run_life(&lives[i], (enum drive)drive, kind);
            printf("%s %u - %s: %s, %s: %lu faults in %lu lives\n",
                   failures == total.failures ? "ok" : "not ok", ++count, name, lives[i].name,
                   drive_names[drive], total.faults - faults, total.lives - before);
            fflush(stdout);
        }
    if (kind == run_single)
        check_reached();
    printf("1..%u\n# %lu faults injected, %lu pairs, %lu lives, %lu failed\n", count, total.faults,
           total.pairs, total.lives, total.failures);
    return total.failures != 0;
}

/* ---- A place of one's own ------------------------------------------------- */

static bool raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool raised = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    close(fd);
    return raised;
}

/* As root of a user namespace of its own: whose is nobody's is trusted by nobody. */
static bool become_root(uid_t user)
{
    FILE *map = fopen("/proc/self/uid_map", "we");
    bool written = map != NULL && fprintf(map, "0 %u 1\n", user) > 0;
    return map != NULL && fclose(map) == 0 && written;
}

/* Few processes, so that a search has few calls, and ports that nobody else has. */
static bool enter_namespaces(void)
{
    const int flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET;
    uid_t user = geteuid();
    bool entered =
        unshare(flags) == 0 || (unshare(CLONE_NEWUSER | flags) == 0 && become_root(user));
    return entered && raise_loopback() && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static int skip(void)
{
    const char *require = getenv("KP_TEST_REQUIRE");
    bool required = require != NULL && strcmp(require, "1") == 0;
    printf("1..1\n%s 1 - faults # SKIP no namespaces of one's own\n", required ? "not ok" : "ok");
    return required;
}

static int in_namespaces(int (*body)(char **), char **arguments)
{
    int status = 1;
    if (!enter_namespaces())
        return skip();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
            exit(skip());
        outcome =
            mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        exit(outcome == MAP_FAILED ? 1 : body(arguments));
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* ---- What is asked for ---------------------------------------------------- */

static int usage(void)
{
    fprintf(stderr, "see the top of faults.c\n");
    return 2;
}

static int do_single(char **arguments)
{
    (void)arguments;
    return run_all("one fault", run_single);
}

static int do_pairs(char **arguments)
{
    (void)arguments;
    return run_all("two faults", run_pairs);
}

static int do_lasting(char **arguments)
{
    (void)arguments;
    return run_all("lasting", run_lasting);
}

static int error_of(const char *name)
{
    for (int i = 1; i < 200; i++)
        if (strerrorname_np(i) != NULL && strcmp(strerrorname_np(i), name) == 0)
            return i;
    return 0;
}

static bool read_fault(char **words, struct fault *fault)
{
    size_t i = 0;
    while (i < FUNCTIONS && strcmp(functions[i].name, words[0]) != 0)
        i++;
    for (size_t word = 1; word < 4; word++)
        if (words[word] == NULL)
            return false;
    *fault = (struct fault){(enum function_id)i, (unsigned)atoi(words[1]), error_of(words[2]),
                            strcmp(words[3], "lasting") == 0};
    return i < FUNCTIONS && fault->error != 0;
}

static int do_replay(char **arguments)
{
    struct plan plan = {0};
    size_t life = 0;
    if (arguments[0] == NULL || arguments[1] == NULL)
        return usage();
    while (life < life_count && strcmp(lives[life].name, arguments[0]) != 0)
        life++;
    for (char **words = arguments + 2; *words != NULL; words += 4)
        if (plan.count == MOST_FAULTS || !read_fault(words, &plan.faults[plan.count++]))
            return usage();
    if (life == life_count)
        return usage();
    bool met = run(&lives[life], strcmp(arguments[1], drive_names[BLOCKING]) == 0, &plan);
    for (size_t i = 0; i < FUNCTIONS; i++)
        if (outcome->calls[i] != 0)
            printf("# %s: %u calls afterwards\n", functions[i].name, outcome->calls[i]);
    printf("# all faults were met: %s\n%s\n", met ? "yes" : "no",
           total.failures == 0 ? "ok" : "not ok");
    return total.failures != 0;
}

static int print_functions(void)
{
    for (size_t i = 0; i < FUNCTIONS; i++)
        printf("%s\n", functions[i].name);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*body)(char **);
    } kinds[] = {{"single", do_single}, {"pairs", do_pairs}, {"lasting", do_lasting}};
    if (argc == 2 && strcmp(argv[1], "functions") == 0)
        return print_functions();
    if (argc >= 4 && strcmp(argv[1], "replay") == 0)
        return in_namespaces(do_replay, argv + 2);
    for (size_t i = 0; argc == 4 && i < sizeof kinds / sizeof *kinds; i++) {
        part = (unsigned)atoi(argv[2]);
        parts = (unsigned)atoi(argv[3]);
        if (strcmp(argv[1], kinds[i].name) == 0 && part < parts)
            return in_namespaces(kinds[i].body, NULL);
    }
    return usage();
}
