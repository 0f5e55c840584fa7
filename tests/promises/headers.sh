#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The public headers compile alone, in every standard, without a warning, and the layout
# of the structs is the promised one: headers.sh INCLUDE_FOLDER COMPILER BITS
#
# COMPILER is gcc or clang, BITS is 64 or 32.
set -eu
. "$(dirname "$0")/helper.sh"

include=$1 compiler=$2 bits=$3
here=$(dirname "$0")
case $compiler in
gcc) cxx=g++ ;;
*) cxx=$compiler++ ;;
esac

check() {
    [ "$bits" = 64 ] || set -- "$@" -m32
    "$@" -I"$include" -fsyntax-only -Wall -Wextra -Wpedantic -Werror || fail "$*"
}

can_compile() {
    [ "$bits" = 64 ] || set -- "$@" -m32
    "$@" -fsyntax-only - >/dev/null 2>&1
}

have "$compiler" || skip "no $compiler"
have "$cxx" || skip "no $cxx"
echo '#include <sys/types.h>' | can_compile "$compiler" -x c || skip "no $bits-bit libc headers"

for standard in c99 c11 c17 gnu17; do
    check "$compiler" -std=$standard -x c "$include/kp/kp.h"
done
for standard in c++17 c++20; do
    check "$cxx" -std=$standard -x c++ "$include/kp/kp.h"
done
check "$compiler" -std=c11 "$here/layout.c"
check "$compiler" -std=c11 -fshort-enums "$here/layout.c"

# The 32-bit headers of the C++ library come in a package of their own.
if ! echo '#include <string>' | can_compile "$cxx" -x c++; then
    echo "kp.hpp not checked: no $bits-bit headers of the C++ library"
    exit 0
fi
for standard in c++17 c++20; do
    check "$cxx" -std=$standard -x c++ "$include/kp/kp.hpp"
    check "$cxx" -std=$standard -fno-exceptions -fno-rtti -x c++ "$include/kp/kp.hpp"
done
