"""Plain Zarr v3 folder with the groups of the cube, without Icechunk."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from galstore.cube.arrays import AnyArray, Attributes
from galstore.cube.layout import multiscales_attributes
from galstore.export.object_table import ExportRequest
from galstore.export.sparse_rows import iter_slices, read_sparse_rows
from schemas.cube import BLOCK_ROWS


def write_zarr(request: ExportRequest, folder: Path) -> None:
    """Write objects at the requested levels, one block at a time.

    Groups, arrays, chunks, codecs and attributes equal those of the cube, with these exceptions. The root names the
    snapshot (`exported_from`), and `multiscales` lists the exported levels. The index of galstore is omitted. Training
    sets, which refer to rows of the cube, are omitted unless all objects are exported.
    """
    rows, levels = request.rows, request.levels
    source, target = zarr.open_group(request.cube.store, mode="r"), zarr.open_group(folder, mode="w")
    provenance = {name: value for name, value in asdict(request.provenance).items() if name != "scale"}
    target.attrs.update({**source.attrs.asdict(), "exported_from": provenance})
    wide: list[tuple[AnyArray, AnyArray]] = []
    for path, node in sorted(source.members(max_depth=None)):
        if not _is_exported(path, levels, all_objects=rows.size == request.cube.n_objects):
            continue
        if isinstance(node, zarr.Group):
            target.create_group(path, attributes=_group_attributes(path, node, rows, levels))
            continue
        copy = _create_like(target, path, node, rows.size)
        if not _is_along_objects(node):
            copy[...] = node[...]
        elif node.ndim == 1:
            # chunks of columns span blocks: copy whole chunks, so that each is read and written once
            _copy_rows(node, copy, rows, slice(0, rows.size))
        else:
            wide.append((node, copy))
    for block in iter_slices(rows.size, BLOCK_ROWS):
        for array, copy in wide:
            _copy_rows(array, copy, rows, block)
        request.on_progress(block.stop - block.start)
    _consolidate(folder)


def _is_exported(path: str, levels: Sequence[int], *, all_objects: bool) -> bool:
    first, *rest = path.split("/")
    if first == "images" and rest:
        return rest[0] in map(str, levels)
    return first != "index" and (all_objects or first != "training_sets")


def _is_along_objects(array: AnyArray) -> bool:
    return (getattr(array.metadata, "dimension_names", None) or ("",))[0] == "object"


def _create_like(target: zarr.Group, path: str, array: AnyArray, n_objects: int) -> AnyArray:
    return target.create_array(
        path,
        shape=(n_objects, *array.shape[1:]) if _is_along_objects(array) else array.shape,
        chunks=array.chunks,
        dtype=array.dtype,
        fill_value=array.fill_value,
        compressors=array.compressors,
        dimension_names=getattr(array.metadata, "dimension_names", None),
        attributes=array.attrs.asdict(),
    )


def _copy_rows(source: AnyArray, target: AnyArray, rows: npt.NDArray[np.int64], span: slice) -> None:
    for part in iter_slices(span.stop - span.start, max(BLOCK_ROWS, int(source.chunks[0]))):
        here = slice(span.start + part.start, span.start + part.stop)
        target[here] = read_sparse_rows(source, rows[here], stride=BLOCK_ROWS)


def _group_attributes(path: str, group: zarr.Group, rows: npt.NDArray[np.int64], levels: Sequence[int]) -> Attributes:
    attributes: dict[str, Any] = group.attrs.asdict()
    if path == "images":
        attributes |= multiscales_attributes(levels)
    if "n_computed" in attributes:  # of a feature view: number of leading objects with values
        attributes["n_computed"] = int(np.searchsorted(rows, attributes["n_computed"]))
    return attributes


def _consolidate(folder: Path) -> None:
    with warnings.catch_warnings():
        # zarr warns that consolidated metadata is not part of the v3 specification; other readers ignore it
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(folder)
    # zarr lists nodes in the arbitrary order of the file system
    for file in sorted(folder.rglob("zarr.json")):
        file.write_text(json.dumps(json.loads(file.read_text()), indent=2, sort_keys=True) + "\n")
