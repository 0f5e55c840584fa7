#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the library imports either fails in turn in test-faults or is named here as what can't fail:
# imports.sh ARCHIVE WRAPPED...
set -eu
. "$(dirname "$0")/../promises/helper.sh"

have nm || skip "no nm"

# They compute in memory that they are given.
computing='__errno_location hasmntopt inet_ntop memchr memcmp memcpy memmove memset
    snprintf sscanf strcasestr strchr strcmp strcpy strcspn strerror_r strlen strncasecmp strncmp strrchr strspn strstr
    strtol strtoull vsnprintf
    htonl htons ntohs qsort sigdelset sigemptyset sigfillset environ'

# They ask the system for what it always has, or fail only where their arguments are wrong:
# timerfd_settime, clock_gettime, the mask, a thread's cancelling, the attributes of a spawn.
unfailing='clock_gettime getpid getuid geteuid sysconf pthread_sigmask timerfd_settime pthread_setcancelstate
    __sigsetjmp __pthread_register_cancel __pthread_unregister_cancel __pthread_unwind_next
    posix_spawnattr_setflags posix_spawnattr_setpgroup posix_spawnattr_setsigdefault
    posix_spawnattr_setsigmask'

# The compiler's own.
compiled='__assert_fail __stack_chk_fail _GLOBAL_OFFSET_TABLE_ __dso_handle __tls_get_addr'

names() {
    echo "$*" | tr -s ' ' '\n' | sort -u
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
nm --defined-only "$1" | awk 'NF == 3 { print $3 }' | sort -u >"$scratch/defined"
# glibc names some functions after the C standard that a compiler is set to: __isoc23_strtol.
nm --undefined-only "$1" | awk '$1 == "U" { print $2 }' | grep -vE '^__(asan|ubsan|tsan|sanitizer|gcov|aarch64)' |
    sed 's/^__isoc[0-9]*_//' | sort -u | comm -23 - "$scratch/defined" >"$scratch/imported"
shift
grep -q '^posix_spawnp$' "$scratch/imported" || fail "the archive imports nothing that is known"
names "$*" >"$scratch/wrapped"
names "$* $computing $unfailing $compiled" >"$scratch/known"

expect_equal "imports that are neither failed nor named as unfailing" "" \
    "$(comm -23 "$scratch/imported" "$scratch/known")"
expect_equal "functions that are wrapped but not imported" "" \
    "$(comm -23 "$scratch/wrapped" "$scratch/imported")"
