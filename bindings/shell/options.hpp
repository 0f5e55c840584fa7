/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KP_RUN_OPTIONS_HPP
#define KP_RUN_OPTIONS_HPP

#include <kp/kp.hpp>

/* kp-run's own failure, as env(1) and timeout(1) have it. */
constexpr int exit_own_failure = 125;

struct Options {
    kp::Spec spec;
    bool fail_open = false; /* run COMMAND without a proxy that can't be had */
    bool verbose = false;
    char *const *command = nullptr; /* points into main's argv */
};

/* Reads the command line. It doesn't return from --help and --version, nor from a wrong
 * command line (exit_own_failure). */
Options read_options(int argc, char *argv[]);

#endif
