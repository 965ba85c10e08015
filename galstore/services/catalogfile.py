"""Catalogs that a user brings as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from schemas.catalog import OBJECT_ID_ALIASES
from schemas.errors import CatalogError


def read_catalog_file(path: Path) -> pd.DataFrame:
    """A catalog from CSV, ids as text so that none passes through a float.

    Parameters
    ----------
    path
        CSV with a header line; lines that begin with # are comments.

    Raises
    ------
    CatalogError
        There is no such file, it has no header line, or it is no CSV.
    """
    ids = dict.fromkeys((*OBJECT_ID_ALIASES, "specObjID"), str)
    try:
        return pd.read_csv(path, comment="#", dtype=ids, skipinitialspace=True)
    except FileNotFoundError as error:
        raise CatalogError(f"catalog {path} does not exist: give the path of a CSV with object_id, ra, dec") from error
    except pd.errors.EmptyDataError as error:
        raise CatalogError(f"catalog {path} is empty: it needs a header line with object_id, ra, dec") from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise CatalogError(f"catalog {path} is not a CSV: {error}") from error


def read_catalog_pages(path: Path, *, page_rows: int = 50_000) -> Iterator[pd.DataFrame]:
    """A catalog in pages of at most `page_rows` rows."""
    frame = read_catalog_file(path)
    for first in range(0, max(1, len(frame)), page_rows):
        yield frame.iloc[first : first + page_rows]


def read_catalog_head(path: Path) -> pd.DataFrame:
    """The first rows of a catalog."""
    return read_catalog_file(path).head(1000)
