"""Selecting: a condition over columns of the catalog, written by a user, as rows of the cube."""

from __future__ import annotations

import ast
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.reader import Cube
from schemas.catalog import CATALOG_COLUMNS
from schemas.errors import FeatureError

_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Name, ast.Constant, ast.Load, ast.boolop,
    ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
"""No calls and no attributes: a condition cannot do anything but compare."""


def rows_selected(cube: Cube, condition: str) -> npt.NDArray[np.bool_]:
    """Which objects meet a condition such as "petroMag_r < 17.5 and z > 0.02", shape (object,); empty = all.

    An object without one of the values does not meet it.

    Raises
    ------
    FeatureError
        It is no condition, or names a column that the catalog does not have.
    """
    if not condition.strip():
        return np.ones(cube.n_objects, dtype=bool)
    names = _names_in(condition)
    frame = pd.DataFrame({name: np.asarray(cube.array(f"catalog/{name}")[:]) for name in names})
    try:
        met = np.asarray(frame.eval(condition.strip(), engine="python"))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _no_condition(condition, str(error)) from error
    if met.dtype != bool or met.shape != (cube.n_objects,):
        raise _no_condition(condition, "it is not true or false of each object")
    return np.asarray(met & frame.notna().all(axis=1).to_numpy())


def _names_in(condition: str) -> list[str]:
    try:
        nodes = list(ast.walk(ast.parse(condition.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _no_condition(condition, "it cannot be read") from error
    strange = [node for node in nodes if not isinstance(node, _ALLOWED)]
    if strange:
        raise _no_condition(condition, f"{type(strange[0]).__name__} is not allowed")
    names = list(dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name)))
    for name in names:
        if name not in CATALOG_COLUMNS:
            close = get_close_matches(name, CATALOG_COLUMNS, n=2)
            meant = f": did you mean {' or '.join(close)}?" if close else f": choose from {', '.join(CATALOG_COLUMNS)}"
            raise FeatureError(f"selection {condition!r} names column {name!r}, which the catalog does not have{meant}")
    if not names:
        raise _no_condition(condition, "it names no column")
    return names


def _no_condition(condition: str, why: str) -> FeatureError:
    return FeatureError(
        f"selection {condition!r} is no condition over the catalog ({why}): write comparisons of columns joined by "
        "`and`, `or`, `not`, as in 'petroMag_r < 17.5 and z > 0.02'"
    )
