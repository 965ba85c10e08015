"""Reader of catalog files: CSV, ECSV, FITS binary table, VOTable or Parquet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd

from galstore.survey.catalog_files.astropy_tables import read_ecsv_pages, read_fits_pages, read_votable_pages
from galstore.survey.catalog_files.columns import Pages, build_frame
from galstore.survey.catalog_files.csv import read_csv_pages
from galstore.survey.catalog_files.parquet import read_parquet_pages
from galstore.survey.catalog_files.source import ACCEPTED_FORMATS, detect_format
from schemas.errors import CatalogError

HEAD_ROWS = 1_000

READERS: Mapping[str, Callable[[Path, int], Pages]] = {
    "CSV": read_csv_pages,
    "ECSV": read_ecsv_pages,
    "FITS": read_fits_pages,
    "Parquet": read_parquet_pages,
    "VOTable": read_votable_pages,
}

REMEDIES: Mapping[type[Exception], str] = {
    PermissionError: f"change its permissions, or give {ACCEPTED_FORMATS}",
    UnicodeDecodeError: f"save it as UTF-8, or give {ACCEPTED_FORMATS}",
    pd.errors.ParserWarning: "name every column in the header line, or quote texts that contain the separator",
    pd.errors.ParserError: "write as many fields in each line as in the header, and close every quote",
    Exception: "it is cut off or damaged, so export or download it again",
}

logger = logging.getLogger(__name__)


def read_catalog_pages(path: Path, *, page_rows: int = 50_000) -> Iterator[pd.DataFrame]:
    """Read a catalog in pages; the first page raises the errors of opening the file.

    The content determines the format, not the name; CSV, ECSV, FITS and VOTable may be gzipped. CSV, FITS and Parquet
    are read page by page, so that memory does not grow with the file; VOTable and ECSV are read at once.

    The rows are those of the first binary table of a FITS file or of the first table with rows of a VOTable, numbered
    from 0 in each page. A file without rows gives one empty page. Columns of the contract (identified by name, else by
    UCD) are in its units (degrees, magnitudes), which are assumed for values without a unit. Ids are text or 64-bit
    integers, and floats only if the file declares them so. Missing values are NaN, NA or None.

    Raises
    ------
    CatalogError
        The file does not exist, is not a catalog, is damaged or cut off, or a column has a unit that cannot be
        converted to the contract's.
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
    with _reading_errors(path, "a plain or gzip file"):
        kind = detect_format(path)
    n_rows = 0
    with closing(READERS[kind](path, page_rows)) as pages:
        while True:
            with _reading_errors(path, kind):
                columns = next(pages, None)
            if columns is None:
                return
            frame = build_frame(columns, origin=f"catalog {path}")
            n_rows += len(frame)
            logger.info("catalog %s: %d rows so far", path, n_rows)
            yield frame


@contextmanager
def _reading_errors(path: Path, kind: str) -> Iterator[None]:
    """Convert the errors that a library raises for damaged bytes to CatalogError, and silence its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # rows longer than the header; a FITS header that is cut off; a VOTable with fewer rows than nrows
        warnings.simplefilter("error", pd.errors.ParserWarning)
        warnings.filterwarnings("error", message=r"Error validating header|.*specified nrows")
        try:
            yield
        except CatalogError:
            raise
        except Exception as error:
            message = " ".join(str(error).split())[:300] or type(error).__name__
            message = f"{message} is missing" if isinstance(error, KeyError) else message
            remedy = next(remedy for known, remedy in REMEDIES.items() if isinstance(error, known))
            raise CatalogError(f"catalog {path} cannot be read as {kind} ({message}): {remedy}") from error
