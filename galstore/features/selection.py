"""Selection of objects by a condition over columns of the catalog."""

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
    *(ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Name, ast.Constant, ast.Load),
    *(ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
"""Calls and attributes are not allowed, so that a condition has no side effects."""


def evaluate_condition(cube: Cube, condition: str) -> npt.NDArray[np.bool_]:
    """Return a mask of the objects that meet a condition, shape (object,).

    An empty condition means all objects. Objects without one of the values do not meet a condition.

    Raises
    ------
    FeatureError
        The condition is invalid, or names a column that is not in the catalog.
    """
    if not condition.strip():
        return np.ones(cube.n_objects, dtype=bool)
    names = _parse_names(condition)
    frame = pd.DataFrame({name: np.asarray(cube.array(f"catalog/{name}")[:]) for name in names})
    try:
        mask = np.asarray(frame.eval(condition.strip(), engine="python"))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _invalid_condition(condition, str(error)) from error
    if mask.dtype != bool or mask.shape != (cube.n_objects,):
        raise _invalid_condition(condition, "its value is not true or false for each object")
    return np.asarray(mask & frame.notna().all(axis=1).to_numpy())


def _parse_names(condition: str) -> list[str]:
    try:
        nodes = list(ast.walk(ast.parse(condition.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _invalid_condition(condition, "the syntax is wrong") from error
    forbidden = [node for node in nodes if not isinstance(node, _ALLOWED)]
    if forbidden:
        raise _invalid_condition(condition, f"{type(forbidden[0]).__name__} is not allowed")
    names = list(dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name)))
    for name in names:
        if name not in CATALOG_COLUMNS:
            close = get_close_matches(name, CATALOG_COLUMNS, n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(CATALOG_COLUMNS)}"
            raise FeatureError(f"selection {condition!r} names column {name!r}, which is not in the catalog: {hint}")
    if not names:
        raise _invalid_condition(condition, "it names no column")
    return names


def _invalid_condition(condition: str, reason: str) -> FeatureError:
    return FeatureError(
        f"selection {condition!r} is not a condition over the catalog ({reason}): write comparisons of columns joined "
        "by `and`, `or`, `not`, as in 'petroMag_r < 17.5 and z > 0.02'"
    )
