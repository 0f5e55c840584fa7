/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of this machine, as /proc shows them. */
#ifndef KP_TESTS_PROCESS_H
#define KP_TESTS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct process {
    pid_t pid, parent, group, session;
    char state;
};

/* False when there is no process of this number. */
bool process_read(pid_t pid, struct process *out);

/* A zombie counts as gone. */
bool process_lives(pid_t pid);
bool process_lives_in(const struct process *process);

/* Calls `visit` for each process, until it returns false. */
void process_each(bool (*visit)(const struct process *, void *), void *data);

/* The living members of a process group. */
size_t group_size(pid_t group);

/* As root: a user whom nobody else is. */
enum { SOMEBODY = 54321 };
bool become_somebody(void);
bool become_user(uid_t user);

/* Children of this process, zombies too. */
size_t count_children(void);

/* Reads /proc/PID/NAME whole, NULs and all; the number of bytes, 0 when it can't be read. */
size_t process_file(pid_t pid, const char *name, char *buffer, size_t size);

/* Does the environment that the process was started with hold this entry? */
bool process_has_variable(pid_t pid, const char *entry);

/* Waits until it is so, for at most PATIENCE_MS; false: it did not become so. */
bool eventually(bool (*is_so)(const void *), const void *data);
bool eventually_gone(pid_t pid);
bool eventually_asleep(pid_t pid); /* which a stopped one is not */
bool eventually_empty(pid_t group);

#endif
