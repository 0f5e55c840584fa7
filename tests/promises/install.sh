#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The library works from where it is installed: install.sh SOURCE FIXTURE_PROXY
set -eu
. "$(dirname "$0")/helper.sh"

source=$1 proxy=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
make_folder
prefix=$folder/prefix

# Prints the folder that holds the one file of this name under the prefix.
folder_of() {
    found=$(find "$prefix" -path "*/$1" | head -n 1)
    [ -n "$found" ] || fail "$1 is not installed"
    echo "${found%"/$1"}"
}

# The headers apart, as where a package is split.
install() {
    meson setup --prefix="$prefix" --includedir="$folder/headers" -Dtests=false "$folder/build" "$source" &&
        meson install -C "$folder/build"
}

# Compiles a program with nothing but what pkg-config says, and runs it.
check_program() {
    program=$folder/$1
    shift
    cd "$folder"
    "$@" -o "$program" || fail "$*"
    expect_equal "the version that $program prints" "$version" "$(bounded "$program" "$proxy" serve)"
}

check_programs() {
    # shellcheck disable=SC2046  # the flags are words
    set -- $(pkg-config --cflags --libs kp)
    check_program c cc "$here/outside.c" "$@"
    check_program c++ c++ "$here/outside.cpp" "$@"
    # shellcheck disable=SC2046
    set -- $(pkg-config --static --cflags --libs kp)
    check_program c-static cc -static "$here/outside.c" "$@"
    check_program c++-static c++ -static "$here/outside.cpp" "$@"
}

check_python() {
    PYTHONPATH=$(folder_of kp/__init__.py)
    export PYTHONPATH
    bounded env PYTHONDONTWRITEBYTECODE=1 python3 -c 'import kp; print(kp.__version__)' ||
        fail "the Python package can't be imported"
}

check_pages() {
    pages=$(find "$source/lib" "$source/bindings" -name '*.[1-9]')
    [ -n "$pages" ] || fail "there are no manual pages"
    for page in $pages; do
        folder_of "man${page##*.}/$(basename "$page")" >/dev/null
    done
}

check_kp_run() {
    url=$(bounded "$prefix/bin/kp-run" "exec '$proxy' serve" -- printenv HTTPS_PROXY)
    case $url in
    http://127.0.0.1:*) ;;
    *) fail "kp-run gave the command HTTPS_PROXY=$url" ;;
    esac
}

install || fail "it can't be installed"
PKG_CONFIG_PATH=$(folder_of kp.pc)
LD_LIBRARY_PATH=$(folder_of libkp.so)
export PKG_CONFIG_PATH LD_LIBRARY_PATH
version=$(pkg-config --modversion kp)
check_programs
expect_equal "the version of the Python package" "$version" "$(check_python)"
check_pages
check_kp_run
