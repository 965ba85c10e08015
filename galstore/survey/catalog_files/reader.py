"""Catalogs that a user brings as a file: CSV, ECSV, FITS binary table, VOTable or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pandas as pd

from galstore.survey.catalog_files.columns import Pages, build_frame
from galstore.survey.catalog_files.csv import read_csv_pages
from galstore.survey.catalog_files.ecsv import read_ecsv_pages
from galstore.survey.catalog_files.fits import read_fits_pages
from galstore.survey.catalog_files.formats import CatalogFormat
from galstore.survey.catalog_files.parquet import read_parquet_pages
from galstore.survey.catalog_files.source import CatalogSource, recognise_source
from galstore.survey.catalog_files.votable import read_votable_pages

HEAD_ROWS = 1_000
"""Enough to see what is wrong with a file, and read in the blink of an eye."""

READERS: Mapping[CatalogFormat, Callable[[CatalogSource, int], Pages]] = {
    CatalogFormat.CSV: read_csv_pages,
    CatalogFormat.ECSV: read_ecsv_pages,
    CatalogFormat.FITS: read_fits_pages,
    CatalogFormat.PARQUET: read_parquet_pages,
    CatalogFormat.VOTABLE: read_votable_pages,
}


def read_catalog_pages(path: Path, *, page_rows: int = 50_000) -> Iterator[pd.DataFrame]:
    """A catalog in pages; opening errors come with the first of them.

    The format is told by the content, not by the name; CSV, ECSV, FITS and VOTable may be gzipped. CSV, FITS and
    Parquet are read page by page, so that memory does not grow with the file; VOTable and ECSV are read whole.

    Parameters
    ----------
    path
        The file: of FITS the first binary table, of VOTable the first table with data.
    page_rows
        Rows of a page, at most.

    Returns
    -------
    Iterator of DataFrame
        Rows as delivered, numbered from 0 in each page. A page is empty only where the file has no rows, and is then
        the only one. Columns that the contract knows (by name, else by UCD) are in its units (degrees, magnitudes);
        values without a unit are taken to be. Ids are text or 64-bit integers, never a float unless the file says so.
        Missing values are NaN, NA or None.

    Raises
    ------
    CatalogError
        The file does not exist or is no catalog, is cut off or damaged, or a column has a unit that is not the
        contract's and cannot become it.
    ValueError
        `page_rows` is below 1.
    """
    if page_rows < 1:
        raise ValueError(f"page_rows is {page_rows}; a page has at least one row")
    return _generate_pages(path, page_rows)


def read_catalog_head(path: Path) -> pd.DataFrame:
    """The first rows of a catalog, 1,000 at most, for checking a file early; see `read_catalog_pages`."""
    with closing(_generate_pages(path, HEAD_ROWS)) as pages:
        return next(pages)


def read_catalog_file(path: Path) -> pd.DataFrame:
    """A whole catalog; see `read_catalog_pages`."""
    return pd.concat(read_catalog_pages(path), ignore_index=True)


def _generate_pages(path: Path, page_rows: int) -> Generator[pd.DataFrame, None, None]:
    source = recognise_source(path)
    empty: pd.DataFrame | None = None
    any_rows = False
    with closing(READERS[source.kind](source, page_rows)) as pages:
        for columns in pages:
            frame = build_frame(columns, origin=source.origin)
            if len(frame):
                any_rows = True
                yield frame
            else:
                empty = frame
    if not any_rows and empty is not None:
        yield empty
