/* SPDX-License-Identifier: Apache-2.0 */
/* The layout and the numbers of the public interface, which other languages repeat, hold
 * at compile time. It is compiled for 32 bits and with -fshort-enums too: see
 * headers.sh. */
#include <kp/kp.h>
#include <string.h>

#define SIZE_OF(type, member) sizeof(((type *)0)->member)

/* `member` follows `previous` without a gap. */
#define FOLLOWS(type, previous, member)                                                            \
    _Static_assert(offsetof(type, member) == offsetof(type, previous) + SIZE_OF(type, previous),   \
                   #type "." #member " follows " #previous)

/* ---- kp_spec ------------------------------------------------------------ */

_Static_assert(offsetof(kp_spec, size) == 0, "kp_spec begins with its size");
FOLLOWS(kp_spec, size, argv);
FOLLOWS(kp_spec, argv, env);
FOLLOWS(kp_spec, env, cwd);
FOLLOWS(kp_spec, cwd, ca_bundle);
FOLLOWS(kp_spec, ca_bundle, no_proxy);
FOLLOWS(kp_spec, no_proxy, port_env);
FOLLOWS(kp_spec, port_env, flags);
FOLLOWS(kp_spec, flags, startup_timeout_ms);
FOLLOWS(kp_spec, startup_timeout_ms, stop_grace_ms);
FOLLOWS(kp_spec, stop_grace_ms, log_fd);
FOLLOWS(kp_spec, log_fd, port);
FOLLOWS(kp_spec, port, reserved);
_Static_assert(sizeof(kp_spec) == offsetof(kp_spec, reserved) + SIZE_OF(kp_spec, reserved),
               "kp_spec ends with `reserved`");
_Static_assert(sizeof(kp_spec) == 7 * sizeof(void *) + 6 * sizeof(uint32_t),
               "kp_spec has no member beyond these");
_Static_assert(SIZE_OF(kp_spec, size) == sizeof(size_t), "kp_spec.size is a size_t");
_Static_assert(SIZE_OF(kp_spec, log_fd) == sizeof(int32_t), "kp_spec.log_fd is an int32_t");

/* ---- kp_error ----------------------------------------------------------- */

_Static_assert(sizeof(kp_error) == 1536, "kp_error is 1536 bytes for ever");
_Static_assert(offsetof(kp_error, code) == 0, "kp_error begins with the code");
_Static_assert(offsetof(kp_error, sys_errno) == 4, "kp_error.sys_errno");
_Static_assert(offsetof(kp_error, exit_code) == 8, "kp_error.exit_code");
_Static_assert(offsetof(kp_error, term_signal) == 12, "kp_error.term_signal");
_Static_assert(offsetof(kp_error, message) == 16, "kp_error.message");
_Static_assert(offsetof(kp_error, output) == 16 + 480, "kp_error.output");
_Static_assert(offsetof(kp_error, reserved) == 16 + 480 + 1024, "kp_error.reserved");
_Static_assert(SIZE_OF(kp_error, reserved) == 4 * sizeof(uint32_t), "kp_error.reserved");

/* ---- Numbers ------------------------------------------------------------ */

_Static_assert(sizeof(kp_result) == 4 && (kp_result)-1 < 0, "kp_result is an int32_t");
_Static_assert(sizeof(kp_state) == 4 && (kp_state)-1 < 0, "kp_state is an int32_t");

_Static_assert(KP_OK == 0, "KP_OK");
_Static_assert(KP_AGAIN == 1, "KP_AGAIN");
_Static_assert(KP_ERR_INVALID == -1, "KP_ERR_INVALID");
_Static_assert(KP_ERR_NO_MEMORY == -2, "KP_ERR_NO_MEMORY");
_Static_assert(KP_ERR_SYSTEM == -3, "KP_ERR_SYSTEM");
_Static_assert(KP_ERR_PORT_IN_USE == -4, "KP_ERR_PORT_IN_USE");
_Static_assert(KP_ERR_SPAWN == -5, "KP_ERR_SPAWN");
_Static_assert(KP_ERR_GUARD == -6, "KP_ERR_GUARD");
_Static_assert(KP_ERR_EXITED == -7, "KP_ERR_EXITED");
_Static_assert(KP_ERR_TIMED_OUT == -8, "KP_ERR_TIMED_OUT");
_Static_assert(KP_ERR_FOREIGN_LISTENER == -9, "KP_ERR_FOREIGN_LISTENER");
_Static_assert(KP_ERR_NOT_HTTP == -10, "KP_ERR_NOT_HTTP");
_Static_assert(KP_ERR_STATE == -11, "KP_ERR_STATE");
_Static_assert(KP_ERR_FORKED == -12, "KP_ERR_FORKED");

_Static_assert(KP_STATE_STARTING == 1, "KP_STATE_STARTING");
_Static_assert(KP_STATE_READY == 2, "KP_STATE_READY");
_Static_assert(KP_STATE_STOPPING == 3, "KP_STATE_STOPPING");
_Static_assert(KP_STATE_EXITED == 4, "KP_STATE_EXITED");

_Static_assert(KP_SPEC_CLEAR_ENV == 1, "KP_SPEC_CLEAR_ENV");
_Static_assert(KP_SPEC_PROBE_HTTP == 2, "KP_SPEC_PROBE_HTTP");
_Static_assert(KP_SPEC_NO_GUARD == 4, "KP_SPEC_NO_GUARD");
_Static_assert(KP_SPEC_NO_RESERVE == 8, "KP_SPEC_NO_RESERVE");
_Static_assert(KP_SPEC_ANY_LISTENER == 16, "KP_SPEC_ANY_LISTENER");
_Static_assert(KP_SPEC_ATTACH == 32, "KP_SPEC_ATTACH");

/* ---- Strings ------------------------------------------------------------ */

int main(void)
{
    const char *direct = "localhost,127.0.0.1,::1,[::1],"
                         "169.254.0.0/16,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16";
    return strcmp(KP_PORT_ENV, "KODA_PROXY_PORT") != 0 || strcmp(KP_DEFAULT_NO_PROXY, direct) != 0;
}
