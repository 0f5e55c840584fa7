#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs Debian packages, as root, without starting or enabling any service:
#
#     install-packages.sh PACKAGE...
#
# For as long as apt runs, a policy-rc.d forbids the packages to start services
# (invoke-rc.d(8)); one that was there before is put back afterwards. Then the services of
# the packages that are new are disabled.
set -eu

policy=/usr/sbin/policy-rc.d
set_aside=$policy.before-libkp-tests
mark='# Put here by the set-up of the tests of libkp, for the length of one installation.'
packages_before=

# Also mends what a run that was killed in the middle has left.
put_policy_back() {
    if [ -e "$set_aside" ] || [ -L "$set_aside" ]; then
        mv -f "$set_aside" "$policy"
    elif [ -f "$policy" ] && grep -qF "$mark" "$policy"; then
        rm -f "$policy"
    fi
}

forbid_starting() {
    put_policy_back
    if [ -e "$policy" ] || [ -L "$policy" ]; then
        mv "$policy" "$set_aside"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
}

installed() {
    dpkg-query -W -f '${db:Status-Abbrev} ${binary:Package}\n' | sed -n 's/^ii *//p' | sort
}

# The names in the folders of one package, init.d and those of systemd.
init_scripts() {
    dpkg -L "$1" | sed -n 's,^/etc/init\.d/,,p'
}

units() {
    dpkg -L "$1" | sed -nE 's,^(/usr)?/lib/systemd/system/([^/]+\.[a-z]+)$,\2,p'
}

disable_services() {
    for script in $(init_scripts "$1"); do
        update-rc.d "$script" disable || true
    done
    for unit in $(units "$1"); do
        DPKG_MAINTSCRIPT_PACKAGE=$1 deb-systemd-helper disable "$unit" || true
    done
}

disable_new_services() {
    [ -n "$packages_before" ] || return 0
    packages_after=$(mktemp)
    installed >"$packages_after"
    for package in $(comm -13 "$packages_before" "$packages_after"); do
        disable_services "$package"
    done
    rm -f "$packages_after" "$packages_before"
}

clean_up() {
    disable_new_services
    put_policy_back
}

trap clean_up EXIT
trap 'exit 1' HUP INT TERM

forbid_starting
packages_before=$(mktemp)
installed >"$packages_before"
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y --no-install-recommends install "$@"
