#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The shared library needs libc alone, and has the promised SONAME: needed.sh LIBRARY
set -eu
. "$(dirname "$0")/helper.sh"

have readelf || skip "no readelf"

# The names in the dynamic section under one tag.
tagged() {
    LC_ALL=C readelf -d "$1" | sed -n "s/.*($2).*\[\(.*\)\].*/\1/p"
}

needed=$(tagged "$1" NEEDED)
case $needed in
libc.so.6 | libc.so | libc.musl-*.so.1) ;;
*) fail "it needs: $needed" ;;
esac
expect_equal SONAME libkp.so.0 "$(tagged "$1" SONAME)"
