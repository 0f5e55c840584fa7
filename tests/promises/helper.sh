# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the tests of the promises share; they source it.

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# A test that can't run here. run.sh asks for all of them.
skip() {
    echo "skipped: $*"
    [ "${KP_TEST_REQUIRE-}" != 1 ] || exit 1
    exit 77
}

have() {
    command -v "$1" >/dev/null
}

bounded() {
    timeout -k 10 60 "$@"
}

expect_equal() {
    [ "$2" = "$3" ] || fail "$1: expected
$2
but got
$3"
}

# Sets $folder to a new one that is removed when the test ends, however it ends.
make_folder() {
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 1' HUP INT TERM
}
