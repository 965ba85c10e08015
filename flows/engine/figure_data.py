"""What `galstore figures` draws from: a table of predictions, the cube that knows more of its objects, and a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.reader import Cube, open_cube
from galstore.survey.catalog_files.reader import read_catalog_file
from modeling.figures.paper import Galaxies
from modeling.figures.resolution import read_sweep
from schemas.cutouts import SIDE_PX, Status
from schemas.errors import CatalogError

MISSING = -9999.0
"""What the survey writes for a value that it does not have."""

ID_NAMES = ("objID", "object_id")

DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "true": ("oh_p50",),
    "predicted": ("prediction",),
    "log_mass": ("lgm_tot_p50",),
    "predicted_log_mass": (),
    "log_sfr": ("sfr_tot_p50",),
}
"""By quantity, the column that is taken where none is named; labels are asked of the cube too."""

OPTIONS: Mapping[str, str] = {
    "true": "--true",
    "predicted": "--predicted",
    "log_mass": "--mass",
    "predicted_log_mass": "--predicted-mass",
    "log_sfr": "--sfr",
}

WORDS: Mapping[str, str] = {
    "true": "true values",
    "predicted": "predictions",
    "log_mass": "stellar masses",
    "predicted_log_mass": "predicted stellar masses",
    "log_sfr": "star formation rates",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureInputs:
    """Galaxies with all that is known of them, and where they are from."""

    galaxies: Galaxies
    n_rows: int
    target: str
    """Column of the true values."""
    sources: Mapping[str, str]
    """By quantity: the column, and where it is."""
    simulated: bool
    """The cube holds a simulated sky; False without a cube."""


def read_figure_inputs(
    path: Path, *, columns: Mapping[str, str | None], id_column: str | None, store: str | None, sweep: Path | None
) -> FigureInputs:
    """Read what the figures need.

    Parameters
    ----------
    path
        Predictions: CSV, ECSV, FITS, VOTable or Parquet. -9999 counts as missing, as blanks and NaN do.
    columns
        By quantity (keys of `DEFAULTS`) the name of its column; None = the default, where it is there.
    id_column
        Of object ids; None = objID or object_id. Only a cube needs it.
    store
        Cube of the cutouts; it also has labels that the file lacks.
    sweep
        CSV for Figure 4.

    Raises
    ------
    CatalogError
        No such file, a column that was named is not in it, or ids are no whole numbers.
    """
    points = [] if sweep is None else read_sweep(sweep)
    table = read_catalog_file(path)
    cube = None if store is None else open_cube(store)
    rows = None if cube is None else cube.find_rows(_object_ids(table, id_column, path))
    values: dict[str, npt.NDArray[np.float64]] = {}
    absent: dict[str, str] = {}
    sources: dict[str, str] = {}
    for quantity, named in columns.items():
        found = next((name for name in (named, *DEFAULTS[quantity]) if name and name in table.columns), None)
        if named is not None and found != named:
            raise CatalogError(unknown_column(named, table, path, OPTIONS[quantity]))
        if found is not None:
            values[quantity], sources[quantity] = _numbers(table[found]), f"{found} of {path}"
        elif cube is not None and rows is not None and quantity in ("true", "log_mass", "log_sfr"):
            name = DEFAULTS[quantity][0]
            label = _label(cube, name, rows)
            if np.isfinite(label).any():
                values[quantity], sources[quantity] = label, f"label {name} of {store}"
            else:
                absent[quantity] = f"no {WORDS[quantity]}: neither {path.name} nor the cube has {name} of these objects"
        else:
            absent[quantity] = _absent(quantity, path)
    absent |= {"cutouts": "no cutouts: give their cube with --store", "sweep": "no sweep: give its CSV with --sweep"}
    has_cutout = None if cube is None or rows is None else _stored(cube, rows)
    galaxies = Galaxies(
        columns=values,
        absent=absent,
        has_cutout=has_cutout,
        read_cutouts=None if cube is None or rows is None else lambda some: cube.read_pixels(SIDE_PX, rows[some]),
        sweep=points,
    )
    return FigureInputs(
        galaxies=galaxies,
        n_rows=len(table),
        target=columns["true"] or DEFAULTS["true"][0],
        sources=sources,
        simulated=bool(cube is not None and cube.attributes["simulated"]),
    )


def unknown_column(name: str, table: pd.DataFrame, path: Path, option: str) -> str:
    """What to say of a column that is not there."""
    there = [str(column) for column in table.columns]
    close = get_close_matches(name, there, n=2, cutoff=0.5)
    meant = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(there)}"
    return f"{path} has no column {name!r} ({option}): {meant}"


def _absent(quantity: str, path: Path) -> str:
    names = DEFAULTS[quantity]
    lacking = f": {path.name} has no column {names[0]}" if names else ""
    return f"no {WORDS[quantity]}{lacking}; name their column with {OPTIONS[quantity]}"


def _object_ids(table: pd.DataFrame, named: str | None, path: Path) -> npt.NDArray[np.int64]:
    found = next((name for name in (named, *ID_NAMES) if name and name in table.columns), None)
    if found is None or (named is not None and found != named):
        raise CatalogError(unknown_column(named or ID_NAMES[0], table, path, "--id; --store needs object ids"))
    ids = table[found]
    if pd.api.types.is_float_dtype(ids):
        raise CatalogError(
            f"column {found!r} of {path} holds floats, which have lost the last digits of 64-bit ids: write it as "
            "whole numbers"
        )
    try:
        return ids.to_numpy(dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise CatalogError(f"column {found!r} of {path} holds what is no object id ({error})") from error


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """Values as numbers; what is none, not finite, or -9999 is NaN."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values) & (values != MISSING), values, np.nan)


def _label(cube: Cube, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.where(rows >= 0, cube.read_label(name)[np.maximum(rows, 0)], np.nan)


def _stored(cube: Cube, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.asarray((rows >= 0) & (cube.read_state("status")[np.maximum(rows, 0)] == Status.STORED))
