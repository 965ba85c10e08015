"""Catalogs as CSV, read in chunks; ids stay text, so that none passes through a float."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO, cast

import pandas as pd

from galstore.survey.catalog_files.columns import DeliveredColumn, Pages
from galstore.survey.catalog_files.source import BLOCK_BYTES, CatalogSource, damage_told
from schemas.catalog import COLUMN, OBJECT_ID_ALIASES
from schemas.errors import CatalogError

SEPARATORS = ",;\t"
"""Spreadsheets of half of Europe write semicolons; the one that is most often in the header line is taken."""

MOST_COLUMNS = 5_000
"""pandas takes minutes over a header line of a hundred thousand equal names; no catalog has a thousand columns."""

COMMENT_LINE = re.compile(r"^#.*(?:\n|$)", re.MULTILINE)

ID_NAMES = frozenset(
    one.lower() for one in (*OBJECT_ID_ALIASES, *(name for name, column in COLUMN.items() if column.dtype == "int64"))
)


def read_csv_pages(source: CatalogSource, page_rows: int) -> Pages:
    """Pages of a CSV: a header line, then rows; lines that begin with # are comments.

    Raises
    ------
    CatalogError
        It is no UTF-8 text, has no header line or one of thousands of names, has rows longer than it, or a quote that
        never ends.
    """
    with _as_csv(source), source.open_stream() as raw, _Uncommented(raw, source) as text:
        header = text.read_first_line()
    separator = max(SEPARATORS, key=header.count)
    if header.count(separator) >= MOST_COLUMNS:
        raise CatalogError(
            f"{source.origin} has {header.count(separator) + 1:,} columns, more than the {MOST_COLUMNS:,} that are "
            "read of a CSV: keep object_id, ra, dec and the columns that are wanted"
        )
    with _as_csv(source):
        names = pd.read_csv(io.StringIO(header), sep=separator, skipinitialspace=True, nrows=0, index_col=False).columns
    ids = {name: str for name in names if str(name).strip().lower() in ID_NAMES}
    with source.open_stream() as raw, _Uncommented(raw, source) as text:
        with _as_csv(source):
            pages = pd.read_csv(
                cast(TextIO, text), sep=separator, dtype=ids, skipinitialspace=True, index_col=False,
                chunksize=page_rows,
                # one type for a column of a chunk, and no warning that it has several
                low_memory=False,
            )  # fmt: skip
        with pages:
            while True:
                with _as_csv(source):
                    page = next(pages, None)
                if page is None:
                    return
                yield tuple(
                    DeliveredColumn(name=str(name).strip(), values=page.iloc[:, index])
                    for index, name in enumerate(page.columns)
                )


@contextmanager
def _as_csv(source: CatalogSource) -> Iterator[None]:
    with damage_told(source):
        # within: the outer one silences all warnings
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            yield
        except pd.errors.ParserWarning as error:
            raise CatalogError(
                f"{source.origin} is not a CSV: its rows have more fields than its header line has names; name every "
                "column, or quote texts that hold the separator"
            ) from error
        except UnicodeDecodeError as error:
            raise CatalogError(
                f"{source.origin} is not a CSV, since it is not UTF-8 text ({error.reason}): save it as UTF-8"
            ) from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise CatalogError(
                f"{source.origin} is not a CSV ({' '.join(str(error).split())}): write as many fields in each line as "
                "in the header, and close every quote"
            ) from error


class _Uncommented(io.TextIOWrapper):
    """The text of a CSV without the lines that begin with #; a # further on belongs to a name (Abell #4)."""

    def __init__(self, raw: BinaryIO, source: CatalogSource) -> None:
        super().__init__(raw, encoding="utf-8-sig", newline=None)
        self._source = source
        self._kept = ""

    def read(self, size: int | None = -1) -> str:
        """At most `size` bytes' worth of characters, and at least one until the end; never all at once."""
        if not self._kept:
            self._kept = self._read_lines()
        # pandas asks for bytes and piles up what comes beyond; a character of UTF-8 has four of them at most
        n_characters = max(1, size // 4) if size is not None and size > 0 else len(self._kept)
        taken, self._kept = self._kept[:n_characters], self._kept[n_characters:]
        return taken

    def _read_lines(self) -> str:
        while block := super().read(BLOCK_BYTES):
            if not block.endswith("\n"):
                rest = super().readline(BLOCK_BYTES)
                if len(rest) == BLOCK_BYTES and not rest.endswith("\n"):
                    raise CatalogError(
                        f"{self._source.origin} is not a CSV: a line of it has more than {BLOCK_BYTES:,} characters; "
                        "write one line a row"
                    )
                block += rest
            if kept := COMMENT_LINE.sub("", block):
                return kept
        return ""

    def read_first_line(self) -> str:
        """The header line: the first that is neither blank nor a comment."""
        while block := self._read_lines():
            for line in io.StringIO(block):
                if line.strip():
                    return line
        raise CatalogError(f"{self._source.origin} is empty: it needs a header line with object_id, ra, dec")
