"""Kept tables: CSV files in the output folder that are there whole or not at all, and are not made twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table; whoever looks sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # the process's id, so that two runs that write the same file do not write into each other's draft
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        table.to_csv(draft, index=False)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_csv(path: Path) -> pd.DataFrame:
    """A table that `write_csv` wrote."""
    return pd.read_csv(path)


def kept_table(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table at a path; it is made and written first where it is not there.

    It is always read from the file, so that it is the same whether it was made now or before.

    Parameters
    ----------
    path
        Its name must follow from all that the table depends on: see `schemas.fingerprints`.
    make
        Makes it.
    """
    if not path.is_file():
        write_csv(path, make())
    return read_csv(path)
