# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What run.sh and demo.sh share; they source it from the top of the tree. It sees to the
# Debian packages that they need:
#
#     need_packages PACKAGE...   installs those that are missing, or says so and exits
#     have_package PACKAGE       whether it is there, from Debian or from elsewhere

# Debian's own programs come first: they see Debian's Python packages, and squid is in sbin.
PATH=/usr/bin:/bin:/usr/sbin:/sbin:$PATH
export PATH

heading() {
    printf '\n== %s\n' "$*"
}

have_command() {
    command -v "$1" >/dev/null
}

have_file() {
    for each_file; do
        [ ! -e "$each_file" ] || return 0
    done
    return 1
}

have_package() {
    case $1 in
    g++ | gcc | clang | clang-format | clang-tidy | cppcheck | meson | valgrind | shellcheck | curl | openssl | mypy | git)
        have_command "$1"
        ;;
    apache2 | cntlm | haproxy | microsocks | npm | privoxy | socat | squid | tinyproxy | \
        busybox | catatonit | dumb-init | gdb | make | parallel | strace | sudo | tini)
        have_command "$1"
        ;;
    binutils) have_command readelf ;;
    bubblewrap) have_command bwrap ;;
    ca-certificates) have_file /etc/ssl/certs/ca-certificates.crt ;;
    dante-server) have_command danted ;;
    expect) have_command unbuffer ;;
    golang-go) have_command go ;;
    libc6-dev-i386) have_file /usr/include/gnu/stubs-32.h /usr/include/*/gnu/stubs-32.h ;;
    libcmocka-dev) have_command pkg-config && pkg-config --exists cmocka ;;
    libnss-wrapper) have_file /usr/lib/*/libnss_wrapper.so /usr/lib/libnss_wrapper.so /usr/lib64/libnss_wrapper.so ;;
    mitmproxy) have_command mitmdump ;;
    musl-tools) have_command musl-gcc ;;
    nghttp2-proxy) have_command nghttpx ;;
    ninja-build) have_command ninja ;;
    nodejs) have_command node ;;
    openssh-client) have_command ssh ;;
    openssh-server) have_file /usr/sbin/sshd ;;
    pkgconf) have_command pkg-config ;;
    python3) have_file /usr/bin/python3 ;;
    supervisor) have_command supervisord ;;
    time) have_file /usr/bin/time ;;
    trafficserver) have_command traffic_server ;;
    *)
        echo "setup.sh does not know how to look for $1" >&2
        exit 1
        ;;
    esac
}

list_missing() {
    for each_package; do
        have_package "$each_package" || printf '%s ' "$each_package"
    done
}

# The command in front of one that needs root; fails where there is none.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have_command sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

may_install() {
    have_command apt-get && as_root true
}

# Fails where a package is missing and can't be installed.
install_missing() {
    missing=$(list_missing "$@")
    missing=${missing% }
    [ -n "$missing" ] || return 0
    may_install || return 1
    heading "Installing Debian packages: $missing"
    echo "(with what they depend on; no service is started or enabled)"
    # shellcheck disable=SC2086  # one word for each package
    as_root sh tests/install-packages.sh $missing || return 1
    [ -z "$(list_missing "$@")" ]
}

need_packages() {
    install_missing "$@" && return 0
    echo "Missing, and not installable from here: $(list_missing "$@")" >&2
    echo "Install them (the names are Debian's), or run this as root or with a sudo that asks" >&2
    echo "for no password, on a Debian with a network." >&2
    exit 1
}
