/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The little that a C++ test needs: CHECK() notes a failure and goes on, so destructors
 * run; cases end with what they began with; the output is TAP.
 */
#ifndef KP_TESTS_VENEER_CHECK_HPP
#define KP_TESTS_VENEER_CHECK_HPP

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <dirent.h>
#include <sys/wait.h>

#define CHECK(condition) check(condition, #condition, __FILE__, __LINE__)

struct Case {
    const char *name;
    void (*run)();
};

inline int failures = 0;

inline void check(bool holds, const char *condition, const char *file, int line)
{
    if (holds)
        return;
    failures++;
    std::printf("# %s:%d: %s\n", file, line, condition);
}

inline int open_descriptors()
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder) != nullptr)
        count++;
    closedir(folder);
    return count;
}

inline bool has_children()
{
    return waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD;
}

inline void run_case(int number, const Case &test)
{
    const int failed_before = failures;
    const int descriptors_before = open_descriptors();
    test.run();
    CHECK(open_descriptors() == descriptors_before);
    CHECK(!has_children());
    std::printf("%s %d - %s\n", failures == failed_before ? "ok" : "not ok", number, test.name);
    std::fflush(stdout);
}

template <std::size_t count>
int run_cases(const Case (&cases)[count])
{
    int number = 0;
    std::printf("1..%zu\n", count);
    for (const Case &test : cases)
        run_case(++number, test);
    return failures == 0 ? 0 : 1;
}

#endif
