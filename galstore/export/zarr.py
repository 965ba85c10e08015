"""A plain Zarr v3 folder with the groups of the cube, without Icechunk."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from galstore.cube.reader import Cube
from galstore.export.provenance import Provenance
from galstore.export.rows import in_steps, read_rows
from schemas.cube import BLOCK_ROWS

_OWN = "index"
"""How galstore finds objects; other tools sort the columns that they look into."""
_BY_ROW = "training_sets"
"""Names objects by their row in the cube."""


def write_zarr(
    cube: Cube,
    folder: Path,
    rows: npt.NDArray[np.int64],
    provenance: Provenance,
    *,
    levels: Sequence[int],
    on_progress: Callable[[int], None],
) -> None:
    """Write some objects at some levels into a folder, a block at a time.

    Groups, arrays, chunks, codecs and attributes are the cube's, with these differences: the root tells of the
    snapshot (`exported_from`), `multiscales` lists the levels that are there, galstore's own index is left out, and
    training sets, which name objects by their row, are left out where rows are.

    Parameters
    ----------
    cube
        The snapshot.
    folder
        An empty folder.
    rows
        Row numbers, shape (n,), ascending.
    provenance
        Kept in the root's attributes.
    levels
        Sides in px, descending.
    on_progress
        Called with how many objects have been written since the last call.
    """
    source, target = zarr.open_group(cube.store, mode="r"), zarr.open_group(folder, mode="w")
    target.attrs.update({**source.attrs.asdict(), "exported_from": _plain(provenance)})
    per_block: list[tuple[zarr.Array[Any], zarr.Array[Any]]] = []
    for path, node in sorted(source.members(max_depth=None)):
        if not _belongs(path, levels, whole=rows.size == cube.n_objects):
            continue
        if isinstance(node, zarr.Group):
            target.create_group(path, attributes=_group_attributes(path, node, rows, levels))
            continue
        copy = _create_like(target, path, node, rows.size)
        if not _along_objects(node):
            copy[...] = node[...]
        elif node.ndim == 1:
            # columns are read and written by their own chunks, which span blocks
            _copy(node, copy, rows, range_=slice(0, rows.size))
        else:
            per_block.append((node, copy))
    for block in in_steps(rows.size, BLOCK_ROWS):
        for node, copy in per_block:
            _copy(node, copy, rows, range_=block)
        on_progress(block.stop - block.start)
    _consolidate(folder)


def _belongs(path: str, levels: Sequence[int], *, whole: bool) -> bool:
    first, *rest = path.split("/")
    if first == "images" and rest:
        return rest[0] in map(str, levels)
    return first != _OWN and (whole or first != _BY_ROW)


def _along_objects(array: zarr.Array[Any]) -> bool:
    return (getattr(array.metadata, "dimension_names", None) or ("",))[0] == "object"


def _create_like(target: zarr.Group, path: str, array: zarr.Array[Any], n_objects: int) -> zarr.Array[Any]:
    return target.create_array(
        path,
        shape=(n_objects, *array.shape[1:]) if _along_objects(array) else array.shape,
        chunks=array.chunks,
        dtype=array.dtype,
        fill_value=array.fill_value,
        compressors=array.compressors,
        dimension_names=getattr(array.metadata, "dimension_names", None),
        attributes=array.attrs.asdict(),
    )


def _copy(source: zarr.Array[Any], target: Any, rows: npt.NDArray[np.int64], *, range_: slice) -> None:
    step = max(BLOCK_ROWS, int(source.chunks[0]))
    for part in in_steps(range_.stop - range_.start, step):
        place = slice(range_.start + part.start, range_.start + part.stop)
        target[place] = read_rows(source, rows[place], stride=BLOCK_ROWS)


def _group_attributes(
    path: str, group: zarr.Group, rows: npt.NDArray[np.int64], levels: Sequence[int]
) -> dict[str, Any]:
    attributes: dict[str, Any] = group.attrs.asdict()
    if path == "images":
        return {**attributes, "multiscales": {**attributes["multiscales"], "layout": _layout(levels)}}
    if "n_computed" in attributes:
        # of a feature view: how many objects, from the first, have values
        n_computed: Any = attributes["n_computed"]
        return {**attributes, "n_computed": int(np.searchsorted(rows, n_computed))}
    return attributes


def _layout(levels: Sequence[int]) -> list[dict[str, Any]]:
    """Levels after the Zarr `multiscales` convention: scale and translation relative to the level before.

    Examples
    --------
    >>> _layout([128, 32])[1]["transform"]
    {'scale': [4.0, 4.0], 'translation': [1.5, 1.5]}
    """
    layout: list[dict[str, Any]] = [{"asset": str(levels[0]), "transform": {"scale": [1.0, 1.0]}}]
    for finer, side in pairwise(levels):
        ratio = finer / side
        layout.append(
            {
                "asset": str(side),
                "derived_from": str(finer),
                "transform": {"scale": [ratio] * 2, "translation": [(ratio - 1) / 2] * 2},
                "resampling_method": "average",
            }
        )
    return layout


def _plain(provenance: Provenance) -> dict[str, Any]:
    return {name: value for name, value in asdict(provenance).items() if name != "scale"}


def _consolidate(folder: Path) -> None:
    with warnings.catch_warnings():
        # zarr warns that the v3 specification does not have consolidated metadata; readers without it ignore it
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(folder)
    # zarr lists nodes as the file system does, in any order
    for file in sorted(folder.rglob("zarr.json")):
        file.write_text(json.dumps(json.loads(file.read_text()), indent=2, sort_keys=True) + "\n")
