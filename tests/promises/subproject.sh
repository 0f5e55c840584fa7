#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Another Meson project can use libkp as a subproject: subproject.sh SOURCE FIXTURE_PROXY
set -eu
. "$(dirname "$0")/helper.sh"

here=$(cd "$(dirname "$0")" && pwd)
make_folder
mkdir "$folder/subprojects"
ln -s "$1" "$folder/subprojects/libkp"
cp "$here/outside.c" "$folder"
cat >"$folder/meson.build" <<'END'
project('user', 'c')
kp = dependency('kp', fallback: ['libkp', 'kp_dep'])
executable('user', 'outside.c', dependencies: kp)
END
meson setup --wrap-mode=forcefallback "$folder/build" "$folder"
[ ! -e "$folder/build/subprojects/libkp/tests" ] || fail "its tests are built, too"
meson compile -C "$folder/build"
bounded "$folder/build/user" "$2" serve
