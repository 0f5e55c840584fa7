#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows what libkp is for: kp-run starts a real proxy, waits until it is ready, runs a
# real curl through it, and the proxy is gone afterwards. Sets everything up and builds;
# the network is used for Debian's packages alone.
set -eu
cd "$(dirname "$0")/.."
. tests/setup.sh

name=origin.kp.test # for the proxy alone: nobody else can resolve it
text="Hello from behind the proxy."
origin_pid=
DEMO=$(mktemp -d)
export DEMO

clean_up() {
    [ -z "$origin_pid" ] || kill "$origin_pid" 2>/dev/null || true
    rm -rf "$DEMO"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

fail() {
    echo "The demo FAILED: $*" >&2
    exit 1
}

quote() {
    sed 's/^/    /'
}

build() {
    heading "Building libkp and kp-run in build-demo"
    if [ ! -f build-demo/build.ninja ]; then
        meson setup build-demo -Dtests=false >"$DEMO/log" 2>&1 || { cat "$DEMO/log" && return 1; }
    fi
    ninja -C build-demo
    kp_run=$PWD/build-demo/bindings/shell/kp-run
}

# Sets $proxy and $command, which kp-run hands to /bin/sh.
choose_tinyproxy() {
    proxy="tinyproxy, Debian's"
    printf '127.0.0.1 %s\n' "$name" >"$DEMO/hosts"
    printf 'Listen 127.0.0.1\nAllow 127.0.0.1\nLogLevel Connect\n' >"$DEMO/tinyproxy.conf"
    # nss_wrapper resolves by a file of ours instead of /etc/hosts.
    # shellcheck disable=SC2016  # for the shell that kp-run starts
    command='echo $$ >"$DEMO/pid" && cd "$DEMO" &&
echo "Port $KODA_PROXY_PORT" >>tinyproxy.conf &&
exec env LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_HOSTS=hosts tinyproxy -d -c tinyproxy.conf'
}

choose_fixture() {
    proxy="the small CONNECT proxy of tests/fixtures, since tinyproxy can't be had here"
    cc -D_GNU_SOURCE -o "$DEMO/connect-proxy" tests/fixtures/proxy.c tests/fixtures/tunnel.c
    # shellcheck disable=SC2016
    command='echo $$ >"$DEMO/pid" && exec "$DEMO/connect-proxy" serve'
}

start_origin() {
    mkfifo "$DEMO/port"
    /usr/bin/python3 tests/fixtures/origin.py "$text" >"$DEMO/port" 2>"$DEMO/origin.log" &
    origin_pid=$!
    read -r origin_port <"$DEMO/port"
    export URL="http://$name:$origin_port/"
    echo "A web server waits on 127.0.0.1:$origin_port. To the proxy, and to nobody else, its name"
    echo "is $name. What curl gets from it without a proxy:"
    curl -q -sS --noproxy '*' --max-time 10 "$URL" 2>&1 | quote
}

# What kp-run runs once the proxy is ready. The proxy's output goes to standard error.
# shellcheck disable=SC2016
client='exec 2>&1
env | grep -i "_proxy=" | sort >"$DEMO/env"
curl -q -sS --fail --max-time 20 "$URL" >"$DEMO/answer"'

run_curl() {
    echo "The proxy is $proxy:"
    echo "$command" | quote
    echo "kp-run starts it, waits until it is ready, runs curl $URL, and stops it."
    status=0
    "$kp_run" "$command" -- sh -c "$client" 2>"$DEMO/proxy.log" || status=$?
    [ "$status" -eq 0 ] || { quote <"$DEMO/proxy.log" && fail "kp-run exited with status $status"; }
}

show_what_happened() {
    pid=$(cat "$DEMO/pid")
    port=$(sed -n 's,^HTTP_PROXY=http://127\.0\.0\.1:,,p' "$DEMO/env")
    echo "The proxy was process $pid and listened on 127.0.0.1:$port. Curl's environment said so:"
    quote <"$DEMO/env"
    echo "The proxy's own log shows the request:"
    grep -F "$name:$origin_port" "$DEMO/proxy.log" | quote
    echo "Curl got this answer:"
    quote <"$DEMO/answer"
    [ "$(cat "$DEMO/answer")" = "$text" ] || fail "this is not the origin's answer"
    grep -qF "$name:$origin_port" "$DEMO/proxy.log" || fail "the proxy's log knows nothing of it"
}

check_gone() {
    ! kill -0 "$pid" 2>/dev/null || fail "process $pid lives on"
    status=0
    curl -q -s --noproxy '*' "http://127.0.0.1:$port/" >"$DEMO/nothing" || status=$?
    [ "$status" -eq 7 ] || fail "something still listens on port $port"
    echo "The proxy is gone: there is no process $pid, and nothing listens on port $port."
}

need_packages g++ meson ninja-build python3 curl
build
if install_missing tinyproxy libnss-wrapper; then
    choose_tinyproxy
else
    choose_fixture
fi
heading "A web server that only the proxy can reach"
start_origin
heading "A proxy, and curl behind it"
run_curl
show_what_happened
heading "Afterwards"
check_gone
