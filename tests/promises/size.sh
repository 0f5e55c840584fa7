#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The stripped shared library of a release build is under 48 KiB: size.sh LIBRARY
set -eu
. "$(dirname "$0")/helper.sh"

have strip || skip "no strip"
make_folder
strip -o "$folder/stripped" "$1"
size=$(wc -c <"$folder/stripped")
echo "$size bytes"
[ "$size" -lt 49152 ] || fail "the stripped library has $size bytes"
