"""Typed access to the arrays of an open Zarr group."""

from __future__ import annotations

from typing import Any

import zarr


def require_array(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """Return an array of a group.

    Raises
    ------
    KeyError
        `path` does not exist.
    TypeError
        `path` is a group.
    """
    node = group[path]
    if not isinstance(node, zarr.Array):
        raise TypeError(f"{path} is a group, expected an array")
    return node
