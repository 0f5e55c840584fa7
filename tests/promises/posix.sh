#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A library on the POSIX platform calls nothing that only Linux has: posix.sh LIBRARY
set -eu
. "$(dirname "$0")/helper.sh"

have nm || skip "no nm"

calls=$(nm -D -P --undefined-only "$1" | sed 's/[@ ].*//')
echo "$calls" | grep -q '^posix_spawnp$' || fail "it calls nothing that is known: $calls"
foreign=$(echo "$calls" |
    grep -E '^(syscall|prctl|madvise|epoll_|timerfd_|eventfd|signalfd|pidfd_|getdents|.*mntent)|closefrom' || true)
expect_equal "calls of Linux's own" "" "$foreign"
