#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# valgrind.sh PROGRAM [ARGUMENT]...: runs it under valgrind, which makes it fail (99) for a misuse or
# a leak of memory, and here also for a descriptor of its own that is open at its end: valgrind only
# tells of those (before 3.21).
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 1' HUP INT TERM
valgrind --quiet --error-exitcode=99 --leak-check=full --track-fds=yes --trace-children=no \
    --child-silent-after-fork=yes --vgdb=no --log-file="$log" "$@"
status=$?
left=$(awk '
    opened && !/inherited from parent/ { print opened }
    { opened = /Open .*(descriptor|socket) / ? $0 : "" }' "$log")
if [ "$status" -ne 0 ] || [ -n "$left" ]; then
    cat "$log" >&2
fi
if [ "$status" -eq 0 ] && [ -n "$left" ]; then
    status=99
fi
exit "$status"
