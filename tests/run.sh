#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sets everything up, builds the library in each way that is promised, and runs every
# test. Nothing is needed beforehand; a second run uses the build folders of the first.
# The last line says how many tests passed, failed and were skipped.
set -eu
cd "$(dirname "$0")/.."
. tests/setup.sh
. tests/coverage/counters.sh

trap drop_counters EXIT
trap 'exit 1' HUP INT TERM

passed=0 failed=0 skipped=0

# As many descriptors as are usual: where there may be millions, some tests would open them.
# shellcheck disable=SC3045  # each sh that there is has both options
ulimit -S -n "$(ulimit -H -n | awk '{ print ($1 == "unlimited" || $1 > 20000) ? 20000 : $1 }')"

# A test that can't run because a program is missing is a failure here.
export KP_TEST_REQUIRE=1
export ASAN_OPTIONS=strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

set_up() {
    need_packages git gcc g++ clang meson ninja-build pkgconf binutils libcmocka-dev python3 \
        valgrind clang-format clang-tidy cppcheck shellcheck mypy curl openssl ca-certificates \
        tinyproxy squid mitmproxy libnss-wrapper privoxy haproxy apache2 trafficserver cntlm \
        nghttp2-proxy dante-server microsocks socat openssh-client openssh-server golang-go \
        nodejs npm musl-tools \
        bubblewrap busybox catatonit dumb-init expect gdb make parallel strace sudo supervisor time tini
    if [ "$(uname -m)" = x86_64 ]; then
        need_packages libc6-dev-i386
    fi
    sh tests/real/install-node-packages.sh
}

# configure FOLDER OPTION...
configure() {
    mkdir -p "$1"
    log=$1/setup.log
    if [ -f "$1/build.ninja" ]; then
        set -- --reconfigure "$@"
    fi
    meson setup -Dwerror=true -Db_ndebug=false "$@" >"$log" 2>&1 || { cat "$log" && return 1; }
}

# build FOLDER OPTION...: with $CC and $CXX, warnings as errors, and the library's own checks of what
# it returns.
build() {
    heading "Building $*"
    if configure "$@" && ninja -C "$1"; then
        return
    fi
    failed=$((failed + 1))
    return 1
}

# Prints "PASSED FAILED SKIPPED" for the log of one run.
count_results() {
    /usr/bin/python3 -c '
import json, sys
results = [json.loads(line)["result"] for line in open(sys.argv[1], encoding="utf-8")]
passed = sum(result in ("OK", "EXPECTEDFAIL") for result in results)
skipped = results.count("SKIP")
print(passed, len(results) - passed - skipped, skipped)
' "$1"
}

# add_results STATUS LOG: a run that failed without a failed test, or that ran none, counts
# as a failure itself.
add_results() {
    counts=$(count_results "$2") || counts="0 0 0"
    # shellcheck disable=SC2086  # three numbers
    set -- "$1" $counts
    if [ $(($2 + $3 + $4)) -eq 0 ] || { [ "$1" -ne 0 ] && [ "$3" -eq 0 ]; }; then
        set -- "$1" "$2" 1 "$4"
    fi
    passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
}

# run_tests FOLDER LOG OPTION...
run_tests() {
    heading "Testing $*"
    folder=$1 log=$1/meson-logs/$2.json
    shift 2
    rm -f "$log"
    status=0
    meson test -C "$folder" --no-rebuild --print-errorlogs "$@" || status=$?
    add_results "$status" "$log"
    grep -hE '^# [0-9]+ faults injected|^faults injected|^[0-9]+ schedules' "${log%.json}.txt" || :
}

test_with_gcc() {
    CC=gcc CXX=g++ build build-gcc || return 0
    run_tests build-gcc testlog-all --setup all --no-suite faults
    # These wait most of the time, and measure none.
    run_tests build-gcc testlog-all --setup all --suite pairs --num-processes 8
    run_tests build-gcc testlog-valgrind --setup valgrind --suite unit --suite lifecycle
}

# Counts the branches that are taken; without optimization, so that they are the source's.
test_with_counters() {
    CC=gcc CXX=g++ build build-coverage -Dbuildtype=debug -Db_coverage=true || return 0
    clear_counters build-coverage
    count_branches
}

count_branches() {
    open_counters build-coverage
    run_tests build-coverage testlog-all --setup all --num-processes 4 \
        --suite unit --suite lifecycle --suite owners --suite strange
    run_tests build-coverage testlog-all --setup all --suite faults --no-suite pairs --num-processes 12
    close_counters build-coverage
}

# Without optimization, and with what distributions turn on, the compiler asks for most of
# its C++ library.
test_with_clang() {
    CC=clang CXX=clang++ build build-clang \
        -Dbuildtype=debug -Dcpp_args=-D_GLIBCXX_ASSERTIONS || return 0
    run_tests build-clang testlog --suite unit --suite lifecycle
    run_tests build-clang testlog-all --setup all 'needs libc alone' exports
}

test_with_sanitizers() {
    CC=gcc CXX=g++ build build-sanitizers \
        -Db_sanitize=address,undefined -Db_lundef=false || return 0
    run_tests build-sanitizers testlog --suite unit --suite lifecycle
}

# With the threads of the strange hosts, too.
test_with_thread_sanitizer() {
    CC=gcc CXX=g++ build build-threads -Db_sanitize=thread -Db_lundef=false || return 0
    run_tests build-threads testlog --suite unit --suite lifecycle
    run_tests build-threads testlog-all --setup all 'strange threads' 'strange forks'
}

# Each target on its corpus, then a minute of new inputs.
fuzz() {
    heading "Fuzzing with libFuzzer"
    if ! CC=clang CXX=clang++ configure build-fuzz -Dfuzz=true; then
        failed=$((failed + 1))
        return 0
    fi
    rm -f build-fuzz/meson-logs/testlog-all.json
    status=0
    meson test -C build-fuzz --setup all --suite fuzz --print-errorlogs --num-processes 2 || status=$?
    add_results "$status" build-fuzz/meson-logs/testlog-all.json
}

test_posix() {
    CC=gcc CXX=g++ build build-posix -Dplatform=posix -Dbuildtype=debug -Db_coverage=true || return 0
    clear_counters build-posix
    count_branches_on_posix
    run_tests build-posix testlog-all --setup all 'calls of POSIX alone'
}

count_branches_on_posix() {
    open_counters build-posix
    run_tests build-posix testlog --suite unit --suite lifecycle
    close_counters build-posix
}

# As it is shipped.
test_release() {
    CC=gcc CXX=g++ build build-release -Dbuildtype=release -Db_ndebug=true || return 0
    run_tests build-release testlog-all --setup all --suite unit --suite lifecycle
    run_tests build-release testlog --suite promises
}

# Those that git knows; without git's folder, all but what the builds have made.
sources() {
    if [ -n "$(git ls-files 2>/dev/null)" ]; then
        git ls-files "$@"
        return
    fi
    for pattern; do
        find . -path './build*' -prune -o -name "${pattern##*/}" -type f -print
    done
}

# check NAME FUNCTION: one test more.
check() {
    heading "Checking $1"
    if "$2"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
}

# leave_out WHAT WHY: of what check() checks.
leave_out() {
    heading "Not checking $1: $2"
    skipped=$((skipped + 1))
}

tell_coverage() {
    /usr/bin/python3 tests/coverage/coverage.py build-coverage build-posix
}

# A branch that only some runs take, as by the order in which the kernel lists sockets, has a second one.
check_coverage() {
    tell_coverage && return
    count_branches
    count_branches_on_posix
    heading "Checking it again, with what a second run has taken"
    tell_coverage
}

# Some need another user, or a kernel's newest calls.
check_branches() {
    what="that the tests take every branch of the library"
    major=$(uname -r | cut -d. -f1) minor=$(uname -r | cut -d. -f2 | tr -cd '0-9')
    if [ "$(id -u)" -eq 0 ] && [ $((major * 1000 + minor)) -ge 6013 ]; then
        check "$what" check_coverage
    else
        leave_out "$what" "not all can be without root and Linux 6.13"
    fi
}

check_format() {
    sources '*.c' '*.h' '*.cpp' '*.hpp' | xargs clang-format --dry-run -Werror
}

check_scripts() {
    { sources '*.sh' && echo .ci/run; } |
        xargs shellcheck --external-sources --source-path=SCRIPTDIR:.
}

# Of what is installed. The files of other systems are read as their neighbours are.
check_with_clang_tidy() {
    find lib bindings -name '*.cpp' -print0 |
        xargs -0 -P 2 -n 8 clang-tidy -p build-clang --quiet --warnings-as-errors='*'
}

check_with_cppcheck() {
    cppcheck --project=build-clang/compile_commands.json --file-filter='*lib/*' \
        --file-filter='*bindings/*' --enable=warning,performance,portability \
        --suppressions-list=.cppcheck-suppressions --error-exitcode=1 --quiet -j 2
}

# check_by TOOL NAME FUNCTION: only with version 14; each has a taste of its own.
check_by() {
    if "$1" --version | grep -q 'version 14\.'; then
        check "$2" "$3"
    else
        leave_out "$2" "$1 is not version 14"
    fi
}

check_sources() {
    check_by clang-format "the format of C and C++" check_format
    check_by clang-tidy "the library by clang-tidy" check_with_clang_tidy
    check "the library by cppcheck" check_with_cppcheck
    check "the shell scripts" check_scripts
}

set_up
test_with_gcc
test_with_counters
test_with_clang
test_with_sanitizers
test_with_thread_sanitizer
test_posix
test_release
fuzz
check_branches
check_sources

summary="$passed passed, $failed failed"
if [ "$skipped" -gt 0 ]; then
    summary="$summary, $skipped skipped"
fi
printf '\n%s\n' "$summary"
[ "$failed" -eq 0 ]
