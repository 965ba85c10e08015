"""Registration of catalogs: new objects get row numbers; cutouts come later.

Each page of a catalog is one commit, and a last commit finishes the update. An update without changes commits nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from galstore.cube.labels import tag_label_versions
from galstore.ingest.catalog_update import CatalogUpdate, Registration, SeenRows, finish_update, register_page
from galstore.survey.catalog_files.reader import read_catalog_pages
from galstore.survey.row_checks import prepare_catalog, require_kept_rows
from galstore.survey.skyserver import SkyServer
from galstore.survey.skyserver_sql import count_catalog, query_catalog
from schemas.errors import CatalogError, ServiceError
from schemas.selection import QUERY_COLUMNS, Selection

logger = logging.getLogger(__name__)


def register_survey(
    path: str,
    service: SkyServer,
    selection: Selection,
    *,
    survey: str,
    columns: Sequence[str] | None = None,
    limit: int = 0,
    page_rows: int = 50_000,
    whole: bool = True,
    run_id: str = "",
) -> Registration:
    """Query a survey's catalog page by page (see `query_catalog`) and register it under the name `survey`.

    By default, all columns of the paper's query are registered. A `whole` selection is the complete catalog, so that
    other objects of the survey have vanished; it is ignored with a limit.

    Raises
    ------
    CatalogError
        The selection is empty.
    ServiceError
        The service fails, or returns fewer rows than it counts.
    """
    wanted = tuple(columns) if columns is not None else tuple(QUERY_COLUMNS)
    provenance = {"service": service.base_url, "data_release": service.data_release, "selection": selection.name}
    update = CatalogUpdate(catalog=survey, provenance=provenance, whole=whole and not limit, run_id=run_id)
    n_counted = count_catalog(service, selection)
    n_expected = min(limit, n_counted) if limit else n_counted
    if n_expected == 0:
        raise CatalogError(
            f"the catalog of {survey} has no rows under selection '{selection.name}': check survey.selection"
        )
    pages = query_catalog(service, selection, columns=wanted, limit=limit, page_rows=page_rows)
    return _register_pages(path, update, pages, origin=f"the catalog of {survey}", n_expected=n_expected)


def register_file(
    path: str, catalog: Path, *, name: str = "", page_rows: int = 50_000, run_id: str = ""
) -> tuple[Registration, pd.DataFrame]:
    """Register a user's catalog file in any format of `read_catalog_pages`, page by page.

    By default the catalog is named after the file, without the ending.

    Returns
    -------
    Registration
        Counts, and the rejected rows.
    DataFrame
        object_id, ra, dec of the accepted rows, in the order of the file.
    """
    provenance = {"file": catalog.name, "sha256": file_digest(catalog)}
    update = CatalogUpdate(catalog=name or catalog.stem, provenance=provenance, whole=True, run_id=run_id)
    accepted: list[pd.DataFrame] = []
    done = _register_pages(
        path,
        update,
        read_catalog_pages(catalog, page_rows=page_rows),
        origin=str(catalog),
        on_rows=lambda rows: accepted.append(rows[["object_id", "ra", "dec"]]),
    )
    # an id repeated on a later page was rejected there
    return done, pd.concat(accepted).drop_duplicates("object_id", ignore_index=True)


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; an unreadable file raises `CatalogError`."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise CatalogError(
            f"catalog {file} cannot be read ({error.strerror}): give the path of a file with object_id, ra, dec"
        ) from error


def _register_pages(
    path: str,
    update: CatalogUpdate,
    pages: Iterable[pd.DataFrame],
    *,
    origin: str,
    n_expected: int | None = None,
    on_rows: Callable[[pd.DataFrame], None] = lambda _: None,
) -> Registration:
    done, first_row, seen = Registration(), 0, SeenRows()
    for page in pages:
        prepared = prepare_catalog(page, origin=origin, first_row=first_row)
        first_row += len(page)
        on_rows(prepared.rows)
        done += register_page(path, update, prepared, seen)
    if n_expected is not None and done.n_delivered < n_expected:
        raise ServiceError(
            f"{origin} counts {n_expected} rows but returned {done.n_delivered}: the service silently truncates long "
            "responses; lower survey.page_rows and run again"
        )
    n_vanished = finish_update(path, update, done.rejected, seen)
    require_kept_rows(done.n_new + done.n_known, done.rejected, origin=origin)
    tag_label_versions(path)
    logger.info(
        "registered %s: %d new, %d known (%d with other labels), %d rejected, %d vanished",
        update.catalog,
        done.n_new,
        done.n_known,
        done.n_relabelled,
        done.n_rejected,
        n_vanished,
    )
    return done + Registration(n_vanished=n_vanished)
