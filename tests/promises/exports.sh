#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The shared library exports what the header declares and the version script lists, and
# nothing else: exports.sh LIBRARY HEADER VERSION_SCRIPT
set -eu
. "$(dirname "$0")/helper.sh"

have nm || skip "no nm"

# The header as the compiler sees it, comments gone; a function's name stands before "(".
declared=$(cc -E -P "$2" | tr '\n' ' ' | grep -oE '\bkp_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u)
listed=$(grep -oE '\bkp_[a-z0-9_*]+' "$3" | sort -u)
# "kp_spawn T"; the version itself is "KP_0 A".
exported=$(nm -D -P --defined-only "$1" | sed 's/@[^ ]*//' | awk '$2 == "A" { next } { print $1 " " $2 }')

expect_equal "kinds of the exported symbols" T "$(echo "$exported" | cut -d' ' -f2 | sort -u)"
expect_equal "exports and header" "$declared" "$(echo "$exported" | cut -d' ' -f1 | sort -u)"
case $listed in
'kp_*') ;;
*) expect_equal "version script and header" "$declared" "$listed" ;;
esac
