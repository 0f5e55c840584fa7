#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The stripped shared library of a release build is at most 64 KiB: size.sh LIBRARY
set -eu
. "$(dirname "$0")/helper.sh"

have strip || skip "no strip"
make_folder
strip -o "$folder/stripped" "$1"
size=$(wc -c <"$folder/stripped")
echo "$size bytes"
[ "$size" -le 65536 ] || fail "the stripped library has $size bytes"
