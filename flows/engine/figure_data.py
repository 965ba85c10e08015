"""Inputs of `galstore figures`: a table of predictions, the cube with further columns, and a sweep."""

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
"""Missing value in SDSS catalogs."""

ID_NAMES = ("objID", "object_id")

CUBE_QUANTITIES = ("true", "log_mass", "log_sfr")
"""Quantities that the cube has as labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureQuantity:
    """Quantity of the figures: its option, its name in messages, and its default column."""

    option: str
    title: str
    default: str | None = None

    def missing_message(self, path: Path) -> str:
        no_column = f": {path.name} has no column {self.default}" if self.default else ""
        return f"no {self.title}{no_column}; name their column with {self.option}"


FIGURE_QUANTITIES: Mapping[str, FigureQuantity] = {
    "true": FigureQuantity(option="--true", title="true values", default="oh_p50"),
    "predicted": FigureQuantity(option="--predicted", title="predictions", default="prediction"),
    "log_mass": FigureQuantity(option="--mass", title="stellar masses", default="lgm_tot_p50"),
    "predicted_log_mass": FigureQuantity(option="--predicted-mass", title="predicted stellar masses"),
    "log_sfr": FigureQuantity(option="--sfr", title="star formation rates", default="sfr_tot_p50"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureInputs:
    """Galaxies of the figures and the sources of their values."""

    galaxies: Galaxies
    n_rows: int
    target: str
    """Column of the true values."""
    sources: Mapping[str, str]
    """Column and file or cube of each quantity."""
    simulated: bool
    """True if the cube holds a simulated sky; False without a cube."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Objects:
    """Cube of the objects, and their rows in it; -1 for unknown objects."""

    cube: Cube
    store: str
    rows: npt.NDArray[np.int64]

    @property
    def has_cutout(self) -> npt.NDArray[np.bool_]:
        status = self.cube.read_state("status")[np.maximum(self.rows, 0)]
        return np.asarray((self.rows >= 0) & (status == Status.STORED))

    def read_label(self, name: str) -> npt.NDArray[np.float64]:
        return np.where(self.rows >= 0, self.cube.read_label(name)[np.maximum(self.rows, 0)], np.nan)

    def read_cutouts(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return self.cube.read_pixels(SIDE_PX, self.rows[positions])


def read_figure_inputs(
    path: Path, *, columns: Mapping[str, str | None], id_column: str | None, store: str | None, sweep: Path | None
) -> FigureInputs:
    """Read the inputs of the figures.

    Parameters
    ----------
    path
        Predictions: CSV, ECSV, FITS, VOTable or Parquet. Blanks, NaN and -9999 are missing values.
    columns
        Column of each quantity (keys of `FIGURE_QUANTITIES`); None = the default column, if present.
    id_column
        Column of object ids, required for a cube only; None = objID or object_id.
    store
        Cube with the cutouts and with labels that the file lacks.
    sweep
        CSV for Figure 4.

    Raises
    ------
    CatalogError
        The file does not exist, it lacks a named column, or ids are not whole numbers.
    """
    points = [] if sweep is None else read_sweep(sweep)
    table = read_catalog_file(path)
    objects = None
    if store is not None:
        cube = open_cube(store)
        objects = _Objects(cube=cube, store=store, rows=cube.find_rows(_object_ids(table, id_column, path)))
    values: dict[str, npt.NDArray[np.float64]] = {}
    sources: dict[str, str] = {}
    absent = {"cutouts": "no cutouts: give their cube with --store", "sweep": "no sweep: give its CSV with --sweep"}
    for quantity, column in columns.items():
        found = _read_quantity(quantity, column, table, path, objects)
        if isinstance(found, str):
            absent[quantity] = found
        else:
            values[quantity], sources[quantity] = found
    galaxies = Galaxies(
        columns=values,
        absent=absent,
        has_cutout=None if objects is None else objects.has_cutout,
        read_cutouts=None if objects is None else objects.read_cutouts,
        sweep=points,
    )
    return FigureInputs(
        galaxies=galaxies,
        n_rows=len(table),
        target=columns["true"] or str(FIGURE_QUANTITIES["true"].default),
        sources=sources,
        simulated=objects is not None and bool(objects.cube.attributes["simulated"]),
    )


def _read_quantity(
    key: str, column: str | None, table: pd.DataFrame, path: Path, objects: _Objects | None
) -> tuple[npt.NDArray[np.float64], str] | str:
    """Return the values of a quantity and their source, or the reason why it is missing."""
    quantity = FIGURE_QUANTITIES[key]
    if column is not None and column not in table.columns:
        raise CatalogError(unknown_column(column, table, path, quantity.option))
    name = column or quantity.default
    if name in table.columns:
        return _numbers(table[name]), f"{name} of {path}"
    if objects is None or name is None or key not in CUBE_QUANTITIES:
        return quantity.missing_message(path)
    label = objects.read_label(name)
    if np.isfinite(label).any():
        return label, f"label {name} of {objects.store}"
    return f"no {quantity.title}: neither {path.name} nor the cube has {name} of these objects"


def unknown_column(name: str, table: pd.DataFrame, path: Path, option: str) -> str:
    """Return the message about a column that a file lacks, with similar names."""
    present = [str(column) for column in table.columns]
    similar = get_close_matches(name, present, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"it has {', '.join(present)}"
    return f"{path} has no column {name!r} ({option}): {hint}"


def _object_ids(table: pd.DataFrame, column: str | None, path: Path) -> npt.NDArray[np.int64]:
    candidates = ID_NAMES if column is None else (column,)
    name = next((name for name in candidates if name in table.columns), None)
    if name is None:
        raise CatalogError(unknown_column(candidates[0], table, path, "--id; --store needs object ids"))
    ids = table[name]
    if pd.api.types.is_float_dtype(ids):
        raise CatalogError(
            f"column {name!r} of {path} holds floats, which have lost the last digits of 64-bit object ids: write it "
            "as whole numbers"
        )
    try:
        return ids.to_numpy(dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise CatalogError(
            f"column {name!r} of {path} has a value that is not an object id ({error}): write whole numbers"
        ) from error


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """Return values as numbers; missing and infinite values are NaN."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values) & (values != MISSING), values, np.nan)
