/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"
#include "support.h"
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t process_file(pid_t pid, const char *name, char *buffer, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    return file_read(path, buffer, size);
}

/* The name in /proc/PID/stat may itself hold spaces and parentheses: the last one ends it. */
bool process_read(pid_t pid, struct process *out)
{
    char text[1024];
    process_file(pid, "stat", text, sizeof text);
    const char *end = strrchr(text, ')');
    long parent, group, session;
    char state;
    if (end == NULL || sscanf(end + 1, " %c %ld %ld %ld", &state, &parent, &group, &session) != 4)
        return false;
    *out = (struct process){pid, (pid_t)parent, (pid_t)group, (pid_t)session, state};
    return true;
}

bool process_lives_in(const struct process *process)
{
    return process->state != 'Z' && process->state != 'X';
}

bool process_lives(pid_t pid)
{
    struct process process;
    return process_read(pid, &process) && process_lives_in(&process);
}

static bool visit_entry(const char *name, bool (*visit)(const struct process *, void *), void *data)
{
    struct process process;
    pid_t pid = (pid_t)strtol(name, NULL, 10);
    return pid <= 0 || !process_read(pid, &process) || visit(&process, data);
}

void process_each(bool (*visit)(const struct process *, void *), void *data)
{
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL)
        if (!visit_entry(entry->d_name, visit, data))
            break;
    if (folder != NULL)
        closedir(folder);
}

struct count {
    pid_t of;
    size_t found;
};

static bool count_member(const struct process *process, void *data)
{
    struct count *count = data;
    count->found += process->group == count->of && process_lives_in(process);
    return true;
}

size_t group_size(pid_t group)
{
    struct count count = {.of = group};
    process_each(count_member, &count);
    return count.found;
}

static bool count_child(const struct process *process, void *data)
{
    struct count *count = data;
    count->found += process->parent == count->of;
    return true;
}

size_t count_children(void)
{
    struct count count = {.of = getpid()};
    process_each(count_child, &count);
    return count.found;
}

bool process_has_variable(pid_t pid, const char *entry)
{
    static char text[128 * 1024];
    size_t size = process_file(pid, "environ", text, sizeof text);
    for (const char *at = text; at < text + size; at += strlen(at) + 1)
        if (strcmp(at, entry) == 0)
            return true;
    return false;
}

bool eventually(bool (*is_so)(const void *), const void *data)
{
    int64_t end = now_ms() + PATIENCE_MS;
    while (!is_so(data)) {
        if (now_ms() > end)
            return false;
        sleep_ms(2);
    }
    return true;
}

static bool is_gone(const void *pid)
{
    return !process_lives(*(const pid_t *)pid);
}

bool eventually_gone(pid_t pid)
{
    return eventually(is_gone, &pid);
}

static bool is_asleep(const void *pid)
{
    struct process process;
    return process_read(*(const pid_t *)pid, &process) && process.state == 'S';
}

bool eventually_asleep(pid_t pid)
{
    return eventually(is_asleep, &pid);
}

static bool is_empty(const void *group)
{
    return group_size(*(const pid_t *)group) == 0;
}

bool eventually_empty(pid_t group)
{
    return eventually(is_empty, &group);
}

bool become_user(uid_t user)
{
    return setgroups(0, NULL) == 0 && setgid(user) == 0 && setuid(user) == 0;
}

bool become_somebody(void)
{
    return become_user(SOMEBODY);
}
