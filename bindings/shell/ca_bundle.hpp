/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KP_RUN_CA_BUNDLE_HPP
#define KP_RUN_CA_BUNDLE_HPP

#include <string>

/* The absolute name of a file of certificates. What no client could use is a
 * std::runtime_error that says why: each of them would tell it with another riddle. */
std::string check_ca_bundle(const std::string &name);

#endif
