"""CSV catalogs, read in pages; ids stay text, because a float would damage them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO, cast

import pandas as pd

from galstore.survey.catalog_files.columns import DeliveredColumn, Pages
from galstore.survey.catalog_files.source import BLOCK_BYTES, CatalogSource, reading_errors
from schemas.catalog import COLUMN, OBJECT_ID_ALIASES
from schemas.errors import CatalogError

SEPARATORS = ",;\t"
"""Possible separators (spreadsheets of half of Europe write semicolons); the most frequent in the header is used."""

MAX_COLUMNS = 5_000
"""pandas takes minutes for a header with a hundred thousand equal names; no catalog has a thousand columns."""

COMMENT_LINE = re.compile(r"^#.*(?:\n|$)", re.MULTILINE)

ID_NAMES = frozenset(
    name.lower() for name in (*OBJECT_ID_ALIASES, *(name for name, column in COLUMN.items() if column.dtype == "int64"))
)


def read_csv_pages(source: CatalogSource, page_rows: int) -> Pages:
    """Read a CSV file in pages: a header line, then rows; lines that begin with # are comments.

    Raises
    ------
    CatalogError
        The text is not UTF-8, the header line is missing or too long, a row has too many fields, or a quote is not
        closed.
    """
    with _as_csv(source), source.open_stream() as raw, _Uncommented(raw, source) as text:
        header = text.read_first_line()
    separator = max(SEPARATORS, key=header.count)
    if header.count(separator) >= MAX_COLUMNS:
        raise CatalogError(
            f"{source.origin} has {header.count(separator) + 1:,} columns, more than the limit of {MAX_COLUMNS:,} "
            "for CSV: select object_id, ra, dec and the columns that you need"
        )
    with _as_csv(source):
        names = pd.read_csv(io.StringIO(header), sep=separator, skipinitialspace=True, nrows=0, index_col=False).columns
    ids = {name: str for name in names if str(name).strip().lower() in ID_NAMES}
    with source.open_stream() as raw, _Uncommented(raw, source) as text:
        with _as_csv(source):
            pages = pd.read_csv(
                cast(TextIO, text),
                sep=separator,
                dtype=ids,
                skipinitialspace=True,
                index_col=False,
                chunksize=page_rows,
                # one type per column of a chunk, and no warning about mixed types
                low_memory=False,
            )
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
    with reading_errors(source):
        # inside, because the outer context silences all warnings
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            yield
        except pd.errors.ParserWarning as error:
            raise CatalogError(
                f"{source.origin} is not a CSV, because its rows have more fields than the header line: name every "
                "column, or quote texts that contain the separator"
            ) from error
        except UnicodeDecodeError as error:
            raise CatalogError(
                f"{source.origin} is not a CSV, because it is not UTF-8 text ({error.reason}): save it as UTF-8"
            ) from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise CatalogError(
                f"{source.origin} is not a CSV ({' '.join(str(error).split())}): write as many fields in each line as "
                "in the header, and close every quote"
            ) from error


class _Uncommented(io.TextIOWrapper):
    """Text of a CSV without the lines that begin with #; a # inside a line belongs to a name (Abell #4)."""

    def __init__(self, raw: BinaryIO, source: CatalogSource) -> None:
        super().__init__(raw, encoding="utf-8-sig", newline=None)
        self._source = source
        self._buffer = ""

    def read(self, size: int | None = -1) -> str:
        """Read characters of at most `size` bytes; at least one before the end, never the whole file at once."""
        if not self._buffer:
            self._buffer = self._read_lines()
        # pandas asks for bytes and buffers any surplus; a UTF-8 character has at most four bytes
        n_characters = max(1, size // 4) if size is not None and size > 0 else len(self._buffer)
        text, self._buffer = self._buffer[:n_characters], self._buffer[n_characters:]
        return text

    def _read_lines(self) -> str:
        while block := super().read(BLOCK_BYTES):
            if not block.endswith("\n"):
                rest = super().readline(BLOCK_BYTES)
                if len(rest) == BLOCK_BYTES and not rest.endswith("\n"):
                    raise CatalogError(
                        f"{self._source.origin} is not a CSV, because a line has more than {BLOCK_BYTES:,} characters: "
                        "write one line per row"
                    )
                block += rest
            if lines := COMMENT_LINE.sub("", block):
                return lines
        return ""

    def read_first_line(self) -> str:
        """Return the header: the first line that is neither blank nor a comment."""
        while block := self._read_lines():
            for line in io.StringIO(block):
                if line.strip():
                    return line
        raise CatalogError(f"{self._source.origin} is empty: give a header line with object_id, ra, dec")
