#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The library is built on musl, too, and works there: musl.sh SOURCE FIXTURE_PROXY
set -eu
. "$(dirname "$0")/helper.sh"

have musl-gcc || skip "no musl-gcc"

here=$(cd "$(dirname "$0")" && pwd)
make_folder

# Debian has the C library alone: the kernel's headers are glibc's neighbours, and the C++ compiler's
# want one macro of glibc's.
make_compilers() {
    mkdir "$folder/kernel"
    ln -s /usr/include/linux /usr/include/asm-generic "/usr/include/$(gcc -print-multiarch)/asm" "$folder/kernel"
    of_cpp=$(g++ -E -x c++ -v /dev/null 2>&1 | sed -n 's:^ \(/.*/c++/[^ ]*\)$: -isystem \1:p' | tr -d '\n')
    [ -n "$of_cpp" ] || fail "the C++ compiler does not say where its headers are"
    {
        echo '#!/bin/sh'
        echo "exec musl-gcc -nostdinc$of_cpp -isystem $folder/kernel '-D__GLIBC_PREREQ(a,b)=0' \"\$@\""
    } >"$folder/c++"
    chmod +x "$folder/c++"
}

make_compilers
CC=musl-gcc CXX=$folder/c++ meson setup -Dtests=false -Dbindings=false "$folder/build" "$1"
meson compile -C "$folder/build"
sh "$here/needed.sh" "$folder/build/lib/libkp.so"
for library in libkp.so libkp.a; do
    musl-gcc -I "$1/include" -o "$folder/user" "$here/outside.c" "$folder/build/lib/$library"
    bounded env LD_LIBRARY_PATH="$folder/build/lib" "$folder/user" "$2" serve
done
