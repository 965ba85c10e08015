"""CSV catalogs, read in pages; ids stay text, because a float would damage them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TextIO, cast

import pandas as pd

from galstore.survey.catalog_files.columns import DeliveredColumn, Pages
from galstore.survey.catalog_files.source import open_content
from schemas.catalog import COLUMN, OBJECT_ID_ALIASES
from schemas.errors import CatalogError

SEPARATORS = ",;\t"

MAX_COLUMNS = 5_000
"""pandas takes minutes for a header with a hundred thousand equal names; no catalog has a thousand columns."""

ID_NAMES = frozenset(
    name.lower() for name in (*OBJECT_ID_ALIASES, *(name for name, column in COLUMN.items() if column.dtype == "int64"))
)


class _Uncommented(io.TextIOWrapper):
    """Text of a CSV without the lines that begin with #; a # inside a line belongs to a name (Abell #4)."""

    def read(self, _size: int | None = -1, /) -> str:
        """Read whole lines, at most a line more than a block; pandas accepts more text than it asks for."""
        while lines := self.readlines(256 << 10):
            if text := "".join(line for line in lines if not line.startswith("#")):
                return text
        return ""


def read_csv_pages(path: Path, page_rows: int) -> Pages:
    """Read a CSV file in pages: a header line, then rows; lines that begin with # are comments."""
    with open_content(path) as raw, _Uncommented(raw, encoding="utf-8-sig") as text:
        header = next((line for line in text if line.strip() and not line.startswith("#")), "")
    separator = max(SEPARATORS, key=header.count)
    if not header:
        raise CatalogError(f"catalog {path} is empty: give a header line with object_id, ra, dec")
    if header.count(separator) >= MAX_COLUMNS:
        raise CatalogError(
            f"catalog {path} has {header.count(separator) + 1:,} columns, more than the limit of {MAX_COLUMNS:,} "
            "for CSV: select object_id, ra, dec and the columns that you need"
        )
    names = pd.read_csv(io.StringIO(header), sep=separator, skipinitialspace=True, nrows=0, index_col=False).columns
    with (
        open_content(path) as raw,
        _Uncommented(raw, encoding="utf-8-sig") as text,
        pd.read_csv(
            cast(TextIO, text),
            sep=separator,
            dtype={name: str for name in names if str(name).strip().lower() in ID_NAMES},
            skipinitialspace=True,
            index_col=False,
            chunksize=page_rows,
            # one type per column of a chunk, and no warning about mixed types
            low_memory=False,
        ) as pages,
    ):
        for page in pages:
            yield tuple(DeliveredColumn(name=str(name).strip(), values=values) for name, values in page.items())
