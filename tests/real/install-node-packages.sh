#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the proxies that come from npm, in the versions that package.json names, for
# proxies.py, which looks for them there unless KP_TEST_NODE_MODULES names another folder:
#
#     install-node-packages.sh    into build-node at the top of the sources
#
# What they depend on is npm's choice of that day. None of their install scripts is run.
set -eu
cd "$(dirname "$0")"

folder=../../build-node
if cmp -s package.json "$folder/package.json" && [ -e "$folder/complete" ]; then
    exit
fi
mkdir -p "$folder"
rm -f "$folder/complete"
cp package.json "$folder"
cd "$folder"
npm install --ignore-scripts --no-package-lock --no-audit --no-fund
touch complete
