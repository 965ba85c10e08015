"""Tables as CSV, ECSV, FITS and VOTable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from galstore.export.object_table import ExportRequest
from galstore.export.sparse_rows import iter_slices

if TYPE_CHECKING:
    from astropy.table import Table


def write_csv(request: ExportRequest, file: Path) -> None:
    """Write the table as CSV, one page at a time; NaN is empty."""
    with file.open("w", encoding="utf-8", newline="") as out:
        for part in iter_slices(request.rows.size, request.group_rows):
            page = request.table.read(request.rows[part]).to_pandas()
            page.to_csv(out, index=False, header=part.start == 0, lineterminator="\n")
            request.on_progress(part.stop - part.start)


def write_ecsv(request: ExportRequest, file: Path) -> None:
    """Write the table as ECSV, with units, UCDs, descriptions and provenance."""
    table = _astropy_table(request)
    table.meta.update(sorted(request.provenance.to_dict().items()))
    table.write(file, format="ascii.ecsv", overwrite=True)
    request.on_progress(request.rows.size)


def write_fits(request: ExportRequest, file: Path) -> None:
    """Write the table as a FITS binary table; the provenance is in HISTORY cards."""
    from astropy.io import fits

    table = _astropy_table(request)
    for column in table.columns.values():
        column.unit = None
        column.meta.clear()
    hdu = fits.table_to_hdu(table)
    for number, column in enumerate(request.table.columns, start=1):
        comment = column.description
        if column.unit and _is_fits_unit(column.unit):
            hdu.header[f"TUNIT{number}"] = column.unit
        elif column.unit:
            comment = f"{comment} [{column.unit}]"
        if column.ucd:
            hdu.header[f"TUCD{number}"] = column.ucd
        hdu.header[f"TCOMM{number}"] = comment
        if column.null is not None:
            hdu.header[f"TNULL{number}"] = column.null
    for name, text in request.provenance.to_dict().items():
        hdu.header["HISTORY"] = f"{name} = {text}"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file, overwrite=True, checksum=True)
    request.on_progress(request.rows.size)


def write_votable(request: ExportRequest, file: Path) -> None:
    """Write the table as VOTable; the provenance is in INFO elements."""
    from astropy.io import votable

    document = votable.from_table(_astropy_table(request), table_id="predictions")
    resource = document.resources[0]
    for name, text in request.provenance.to_dict().items():
        resource.infos.append(votable.tree.Info(name=name, value=text))
    ucds = {column.name: column.ucd for column in request.table.columns}
    for field in resource.tables[0].fields:
        field.ucd = ucds[field.name] or None
    votable.writeto(document, str(file), tabledata_format="tabledata")
    request.on_progress(request.rows.size)


def _astropy_table(request: ExportRequest) -> Table:
    from astropy import units
    from astropy.table import Table

    content, columns = request.table.read(request.rows), request.table.columns
    table = Table()
    for described in columns:
        values = content[described.name]
        is_text = pa.types.is_string(described.type)
        table[described.name] = np.array(values.to_pylist(), dtype=str) if is_text else np.asarray(values.to_numpy())
        column = table[described.name]
        column.description = described.description
        if described.unit:
            column.unit = units.Unit(described.unit.replace(" ", ""), format="vounit", parse_strict="silent")
        if described.ucd:
            column.meta["ucd"] = described.ucd
    return table


def _is_fits_unit(text: str) -> bool:
    """Return whether FITS readers accept a unit; they warn about log10(solMass)."""
    from astropy import units

    try:
        units.Unit(text, format="fits")
    except ValueError:
        return False
    return True
