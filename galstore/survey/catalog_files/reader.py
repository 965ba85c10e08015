"""Reader of catalog files: CSV, ECSV, FITS binary table, VOTable or Parquet."""

from __future__ import annotations

import logging
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
from galstore.survey.catalog_files.source import CatalogSource, detect_source
from galstore.survey.catalog_files.votable import read_votable_pages

HEAD_ROWS = 1_000
"""Enough to show the problems of a file, and quick to read."""

READERS: Mapping[CatalogFormat, Callable[[CatalogSource, int], Pages]] = {
    CatalogFormat.CSV: read_csv_pages,
    CatalogFormat.ECSV: read_ecsv_pages,
    CatalogFormat.FITS: read_fits_pages,
    CatalogFormat.PARQUET: read_parquet_pages,
    CatalogFormat.VOTABLE: read_votable_pages,
}

logger = logging.getLogger(__name__)


def read_catalog_pages(path: Path, *, page_rows: int = 50_000) -> Iterator[pd.DataFrame]:
    """Read a catalog in pages; the first page raises the errors of opening the file.

    The content determines the format, not the name; CSV, ECSV, FITS and VOTable may be gzipped. CSV, FITS and Parquet
    are read page by page, so that memory does not grow with the file; VOTable and ECSV are read at once.

    Parameters
    ----------
    path
        File: the first binary table of a FITS file, the first table with data of a VOTable.
    page_rows
        Maximum number of rows per page.

    Returns
    -------
    Iterator of DataFrame
        Rows of the file, numbered from 0 in each page. A file without rows gives one empty page. Columns of the
        contract (identified by name, else by UCD) are in its units (degrees, magnitudes), which are assumed for values
        without a unit. Ids are text or 64-bit integers, and floats only if the file declares them so. Missing values
        are NaN, NA or None.

    Raises
    ------
    CatalogError
        The file does not exist, is not a catalog, is damaged or cut off, or a column has a unit that cannot be
        converted to the contract's.
    ValueError
        `page_rows` is below 1.
    """
    if page_rows < 1:
        raise ValueError(f"page_rows is {page_rows}, but a page has at least one row: give 1 or more")
    return _generate_pages(path, page_rows)


def read_catalog_head(path: Path) -> pd.DataFrame:
    """Read the first 1,000 rows of a catalog to check the file early; see `read_catalog_pages`."""
    with closing(_generate_pages(path, HEAD_ROWS)) as pages:
        return next(pages)


def read_catalog_file(path: Path) -> pd.DataFrame:
    """Read a whole catalog; see `read_catalog_pages`."""
    return pd.concat(read_catalog_pages(path), ignore_index=True)


def _generate_pages(path: Path, page_rows: int) -> Generator[pd.DataFrame, None, None]:
    source = detect_source(path)
    empty: pd.DataFrame | None = None
    n_rows = 0
    with closing(READERS[source.kind](source, page_rows)) as pages:
        for columns in pages:
            frame = build_frame(columns, origin=source.origin)
            if len(frame):
                n_rows += len(frame)
                logger.info("%s: %d rows so far", source.origin, n_rows)
                yield frame
            else:
                empty = frame
    if not n_rows and empty is not None:
        yield empty
