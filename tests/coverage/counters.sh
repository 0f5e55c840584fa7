# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# Where the programs of a build with -Db_coverage=true count; run.sh sources this. Hosts of some tests
# are other users, who may not write into the build's folder, nor see it:
#
#     clear_counters BUILD   forgets what they have counted
#     open_counters BUILD    from now on they count on, in a folder where everybody may
#     close_counters BUILD   leaves what they have counted in the build, and removes that folder
#     drop_counters          removes it, if it is there

clear_counters() {
    find "$1" -name '*.gcda' -delete
}

open_counters() {
    GCOV_PREFIX=$(mktemp -d /tmp/kp-counters-XXXXXX)
    GCOV_ERROR_FILE=$GCOV_PREFIX/errors # tests read what hosts print
    export GCOV_PREFIX GCOV_ERROR_FILE
    : >"$GCOV_ERROR_FILE"
    find "$(realpath "$1")" -name '*.gcno' | sed 's/\.gcno$/.gcda/' | while read -r each_counter; do
        mkdir -p "$GCOV_PREFIX${each_counter%/*}"
        : >"$GCOV_PREFIX$each_counter"
        if [ -f "$each_counter" ]; then
            cp "$each_counter" "$GCOV_PREFIX$each_counter"
        fi
    done
    chmod -R a+rwX "$GCOV_PREFIX"
}

close_counters() {
    find "$GCOV_PREFIX" -name '*.gcda' -empty -delete
    cp -R "$GCOV_PREFIX$(realpath "$1")/." "$1"
    drop_counters
}

drop_counters() {
    if [ -n "${GCOV_PREFIX:-}" ]; then
        rm -rf "$GCOV_PREFIX"
    fi
    unset GCOV_PREFIX GCOV_ERROR_FILE
}
