/* SPDX-License-Identifier: Apache-2.0 */
/* The same in C++. */
#include <cstdio>
#include <kp/kp.hpp>

int main(int argc, char **argv)
{
    kp::Spec spec;
    spec.argv.assign(argv + 1, argv + argc);
    kp_error error;
    kp::Proxy proxy = kp::try_spawn(spec, error);
    if (!proxy) {
        std::fprintf(stderr, "%s: %s\n", kp_result_name(error.code), error.message);
        return 1;
    }
    std::printf("%s\n", kp_version());
    return proxy.state() == KP_STATE_READY ? 0 : 1;
}
