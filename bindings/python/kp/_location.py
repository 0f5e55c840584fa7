# SPDX-License-Identifier: Apache-2.0
"""Where Meson installed the library; in the source tree, nowhere yet."""

LIBRARY = "@LIBRARY@"
