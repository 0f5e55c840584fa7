/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a test program where another shell is /bin/sh, for it and its children alone:
 *
 *     with-shell SHELL PROGRAM [ARGUMENT...]
 *
 * SHELL is looked up in PATH. Without root the program runs in a user namespace of its own.
 */
#include "../hostile/network.h"
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static bool find_in_path(const char *name, char path[PATH_MAX])
{
    const char *at = getenv("PATH");
    while (at != NULL && *at != '\0') {
        size_t size = strcspn(at, ":");
        snprintf(path, PATH_MAX, "%.*s/%s", (int)size, at, name);
        if (access(path, X_OK) == 0)
            return true;
        at += size + (at[size] == ':');
    }
    return false;
}

/* /bin/sh is a link as a rule: what it leads to is covered. */
static bool put_in_place(const char *shell)
{
    char place[PATH_MAX];
    return own_namespace(CLONE_NEWNS) && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           realpath("/bin/sh", place) != NULL && mount(shell, place, NULL, MS_BIND, NULL) == 0;
}

static bool is_in_place(const char *shell)
{
    struct stat wanted, there;
    return stat(shell, &wanted) == 0 && stat("/bin/sh", &there) == 0 &&
           wanted.st_dev == there.st_dev && wanted.st_ino == there.st_ino;
}

int main(int argc, char **argv)
{
    char shell[PATH_MAX];
    if (argc < 3)
        return EXIT_FAILURE;
    if (!find_in_path(argv[1], shell))
        return leave_out_all("there is no such shell");
    if (!put_in_place(shell))
        return leave_out_all("no mount namespace of one's own");
    if (!is_in_place(shell)) {
        fprintf(stderr, "%s is not /bin/sh\n", shell);
        return EXIT_FAILURE;
    }
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return EXIT_FAILURE;
}
