"""Tables as CSV, ECSV, FITS and VOTable: for people and programs that read no Parquet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galstore.export.rows import in_steps
from galstore.export.table import GROUP_ROWS, TableColumn, TableSource


def write_csv(
    file: Path, rows: npt.NDArray[np.int64], source: TableSource, *, on_progress: Callable[[int], None]
) -> None:
    """Write some rows as CSV, a page at a time; empty = NaN.

    Parameters
    ----------
    file
        To be made.
    rows
        Ascending.
    source
        Of what.
    on_progress
        Called with how many objects have been written since the last call.
    """
    with file.open("w", encoding="utf-8", newline="") as out:
        for part in in_steps(rows.size, GROUP_ROWS):
            page = source.read(rows[part]).to_pandas()
            page.to_csv(out, index=False, header=part.start == 0, lineterminator="\n")
            on_progress(part.stop - part.start)


def write_small_table(
    file: Path,
    kind: str,
    table: pa.Table,
    columns: tuple[TableColumn, ...],
    provenance: Mapping[str, str],
) -> None:
    """Write a whole table as 'ecsv', 'fits' or 'votable', with units, UCDs, descriptions and provenance.

    Parameters
    ----------
    file
        To be made.
    kind
        One of the three.
    table
        What to write.
    columns
        Of the table, in its order.
    provenance
        Kept as the table's metadata: INFO elements in a VOTable, HISTORY cards in a FITS file.
    """
    from astropy.table import Table

    made = Table(
        {column.name: _values(table[column.name], column) for column in columns}, meta=dict(sorted(provenance.items()))
    )
    for column in columns:
        told = made[column.name]
        told.description = column.description
        if column.unit:
            told.unit = _unit(column.unit)
        if column.ucd:
            told.meta["ucd"] = column.ucd
    if kind == "ecsv":
        made.write(file, format="ascii.ecsv", overwrite=True)
    elif kind == "fits":
        _write_fits(file, made, columns, provenance)
    else:
        _write_votable(file, made, columns, provenance)


def _values(values: pa.ChunkedArray, column: TableColumn) -> npt.NDArray[Any]:
    if pa.types.is_string(column.type):
        return np.array(values.to_pylist(), dtype=str)
    return np.asarray(values.to_numpy())


def _unit(text: str) -> Any:
    from astropy import units

    return units.Unit(text.replace(" ", ""), format="vounit", parse_strict="silent")


def _write_fits(file: Path, table: Any, columns: tuple[TableColumn, ...], provenance: Mapping[str, str]) -> None:
    from astropy.io import fits

    bare = table.copy()
    bare.meta.clear()
    for column in bare.columns.values():
        column.unit = None
        column.meta.clear()
    hdu = fits.table_to_hdu(bare)
    for number, column in enumerate(columns, start=1):
        told = column.description
        if column.unit and _is_fits_unit(column.unit):
            hdu.header[f"TUNIT{number}"] = column.unit
        elif column.unit:
            told = f"{told} [{column.unit}]"
        if column.ucd:
            hdu.header[f"TUCD{number}"] = column.ucd
        hdu.header[f"TCOMM{number}"] = told
        if column.null is not None:
            hdu.header[f"TNULL{number}"] = column.null
    for name, text in provenance.items():
        hdu.header["HISTORY"] = f"{name} = {text}"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file, overwrite=True, checksum=True)


def _is_fits_unit(text: str) -> bool:
    """FITS knows no log10(solMass), and readers warn of it."""
    from astropy import units

    try:
        units.Unit(text, format="fits")
    except ValueError:
        return False
    return True


def _write_votable(file: Path, table: Any, columns: tuple[TableColumn, ...], provenance: Mapping[str, str]) -> None:
    from astropy.io import votable

    bare = table.copy()
    bare.meta.clear()
    document = votable.from_table(bare, table_id="predictions")
    resource = document.resources[0]
    for name, text in provenance.items():
        resource.infos.append(votable.tree.Info(name=name, value=text))
    by_name = {column.name: column for column in columns}
    for field in resource.tables[0].fields:
        field.ucd = by_name[field.name].ucd or None
    votable.writeto(document, str(file), tabledata_format="tabledata")
