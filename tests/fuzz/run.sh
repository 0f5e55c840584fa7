#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs one target of libFuzzer's, on its corpus first and then for a minute on what libFuzzer makes
# of that, or for as long as KP_FUZZ_SECONDS says (KP_FUZZ_RUNS: for so many inputs instead). What
# it finds it keeps in a file, and names that.
#
#     run.sh FUZZER CORPUS FINDINGS [DICTIONARY]
set -eu
fuzzer=$1 corpus=$2 findings=$3/$(basename "$1")
limit=-max_total_time=${KP_FUZZ_SECONDS:-60}
if [ -n "${KP_FUZZ_RUNS:-}" ]; then
    limit=-runs=$KP_FUZZ_RUNS
fi
export ASAN_OPTIONS=strict_string_checks=1:malloc_context_size=4
export UBSAN_OPTIONS=print_stacktrace=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/corpus"
mkdir -p "$findings"

# look OPTION...: what is new to it goes to the first folder.
look() {
    status=0
    "$fuzzer" -artifact_prefix="$findings/" -timeout=20 -max_len=1200 -print_final_stats=1 "$@" \
        >"$work/log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 60 "$work/log"
        file=$(sed -n 's/.*Test unit written to //p' "$work/log")
        echo "$fuzzer failed with status $status${file:+; see it again with: $fuzzer $file}"
        exit 1
    fi
}

look -runs=0 "$corpus"
look "$limit" ${4:+-dict="$4"} "$work/corpus" "$corpus"
grep -E 'Done|stat::' "$work/log"
