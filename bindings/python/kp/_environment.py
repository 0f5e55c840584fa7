# SPDX-License-Identifier: Apache-2.0
"""Environments: from Python's mappings to "NAME=value" and back."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from . import _ffi
from ._errors import Code, Error, InvalidError


def encode(text: str, what: str) -> bytes:
    """Bytes as the operating system has them; C would end the string at a NUL."""
    raw = os.fsencode(text)
    if b"\0" in raw:
        raise InvalidError(f"{what} must not contain a null byte")
    return raw


def entries(variables: Mapping[str, str], what: str) -> list[bytes]:
    """The variables as "NAME=value"."""
    result = []
    for name, value in variables.items():
        # The library cuts at the first "=": the rest of the name would become value.
        if "=" in os.fsdecode(name):
            raise InvalidError(f"{what}: {name!r} is not the name of a variable")
        result.append(encode(name, what) + b"=" + encode(value, what))
    return result


def env(base: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """The environment for children of a host that goes on without a proxy.

    It is `base` as it is (None: `os.environ`), so that such a host needs no second path.
    """
    return dict(os.environ if base is None else base)


def proxied(handle: _ffi.Handle, base: Optional[Mapping[str, str]]) -> dict[str, str]:
    """`base` with the variables over it that send a child through the handle's proxy."""
    # os.environ is what Python programs mean by their environment: handed over as such.
    listed = _ffi.strings(entries(os.environ if base is None else base, "base"))
    made = _ffi.lib.kp_env_new(handle, listed)
    if not made:
        raise Error("no memory for an environment", code=Code.NO_MEMORY)
    try:
        return dict(_parted(made))
    finally:
        _ffi.lib.kp_env_free(made)


def _parted(made: Any) -> Iterator[tuple[str, str]]:
    for index in itertools.count():
        if made[index] is None:
            return
        name, _, value = os.fsdecode(made[index]).partition("=")
        yield name, value
