/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random lives on the simulated system.
 *
 *   lives FIRST COUNT   those of so many seeds, and what happened in them, each of which
 *                       must have happened at all; a seed whose life breaks a promise is
 *                       lived again with its history
 *   lives SEED          one, with its history
 *   lives faults        a library with each of the faults in turn, until it breaks a promise
 */
#include "life.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A life takes a fraction of a millisecond, and one that never ends is broken too. */
enum { BATCH = 20000, SECONDS = 60, MOST_BROKEN = 5 };

/* Each fault is found by some hundreds of them. */
enum { LIVES_FOR_A_FAULT = 50000, FEW = 500 };

/* Outlasts the process that lives. */
static struct shared {
    uint64_t seed;
    uint64_t events[SIM_EVENTS];
    char complaint[256];
} * shared;

static void live_each(uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (i % 1000 == 0)
            alarm(SECONDS);
        shared->seed = first + i;
        sim_live(shared->seed);
    }
}

/* In a process of its own, which may abort. Returns its status. */
static int live_apart(uint64_t first, uint64_t count, int history)
{
    shared->complaint[0] = '\0';
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (history || getenv("KP_SIM_HISTORY") != NULL)
            sim_tell_history();
        else if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(1);
        live_each(first, count);
        exit(0); /* so that what counts coverage, or leaks, has its turn */
    }
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* How many broke a promise. Of many the first few will do: `count` is then less. */
static uint64_t live_all(uint64_t first, uint64_t *count)
{
    const uint64_t begin = first, end = first + *count;
    uint64_t broken = 0;
    while (first < end && broken < MOST_BROKEN) {
        uint64_t batch = end - first < BATCH ? end - first : BATCH;
        if (live_apart(first, batch, 0) == 0) {
            first += batch;
            continue;
        }
        broken++;
        fprintf(stderr, "\nseed %" PRIu64 ":\n", shared->seed);
        live_apart(shared->seed, 1, 1);
        first = shared->seed + 1;
    }
    *count = first - begin;
    return broken;
}

static int tell_events(void)
{
    int missing = 0;
    for (int i = 0; i < SIM_EVENTS; i++) {
        printf("%12" PRIu64 "  %s\n", shared->events[i], sim_event_names[i]);
        missing += shared->events[i] == 0;
    }
    return missing;
}

/* Under valgrind a few have to do. */
static int live_and_tell(uint64_t first, uint64_t count)
{
    int few = getenv("KP_TEST_VALGRIND") != NULL;
    count = few && count > FEW ? FEW : count;
    uint64_t broken = live_all(first, &count);
    int missing = few ? 0 : tell_events();
    printf("%" PRIu64 " schedules, %" PRIu64 " broken promises\n", count, broken);
    if (missing > 0)
        printf("%d of these never happened: the schedules are too few, or trivial\n", missing);
    return broken > 0 || missing > 0;
}

/* By the check that is to find it: others that do so are passed over. */
static int find_fault(const char *complaint)
{
    for (uint64_t first = 0; first < LIVES_FOR_A_FAULT; first = shared->seed + 1) {
        int status = live_apart(first, LIVES_FOR_A_FAULT - first, 0);
        if (status == 0)
            return 0;
        if (strstr(shared->complaint, complaint) != NULL)
            return 1;
    }
    return 0;
}

static int find_faults(void)
{
    int missed = 0;
    for (int fault = SIM_SOUND + 1; fault < SIM_FAULTS; fault++) {
        sim_plant((enum sim_fault)fault);
        int found = find_fault(sim_faults[fault].complaint);
        printf("%s: %s after %" PRIu64 " lives: %s\n", sim_faults[fault].name,
               found ? "found" : "NOT FOUND", shared->seed + 1, shared->complaint);
        missed += !found;
    }
    printf("%d planted faults, %d not found\n", SIM_FAULTS - 1, missed);
    return missed > 0;
}

int main(int count, char **arguments)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (count < 2 || shared == MAP_FAILED)
        return 2;
    sim_events = shared->events;
    sim_complain_to(shared->complaint);
    if (strcmp(arguments[1], "faults") == 0)
        return find_faults();
    uint64_t first = strtoull(arguments[1], NULL, 10);
    if (count == 2)
        return live_apart(first, 1, 1) != 0;
    return live_and_tell(first, strtoull(arguments[2], NULL, 10));
}
