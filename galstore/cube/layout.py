"""Layout of the cube: creation of its arrays, and their extension when objects are registered.

One Icechunk repository holds images, catalog, labels, state and predictions of a survey (Zarr v3 groups). All arrays
share the dimension `object`; the row number of an object never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise

import icechunk
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from galstore.cube.arrays import Attributes, require_array
from galstore.cube.commits import commit, create_repository, repository_exists, write_lock
from galstore.cube.index.segments import ATTRIBUTE
from galstore.cube.reader import open_cube
from schemas.catalog import CATALOG_COLUMNS, COLUMN, LABEL_COLUMNS, Column
from schemas.cube import (
    CATALOG_CHUNK_ROWS,
    DELIVERED_BYTES,
    DELIVERED_CHUNK_ROWS,
    INDEX_CHUNK_ROWS,
    INDEX_COLUMNS,
    LABEL_VIEW,
    LEVEL,
    LEVELS,
    REJECTED_COLUMNS,
    SCHEMA_VERSION,
    STATE_COLUMNS,
    StateColumn,
)
from schemas.cutouts import CutoutScale, require_same_scale
from schemas.errors import StoreError
from schemas.features import FeatureColumn, FeatureView, Split

CHECKSUM = Crc32cCodec()
"""CRC-32C at the end of each chunk (Zarr v3 codec `crc32c`), by which any reader detects a flipped bit."""
PIXEL_CODEC = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
"""35,000 real cutouts/s per core at 128 px; zstd saves 16 % of the bytes at half the speed."""
COLUMN_CODEC = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle")
BODY_CODEC = BloscCodec(cname="zstd", clevel=1, shuffle="noshuffle")
"""JPEG bytes do not compress; only their padding does."""


def ensure_cube(path: str, *, survey: str, scale: CutoutScale, simulated: bool = False) -> bool:
    """Create the cube unless it exists, and return whether it was created.

    An existing cube with another scale rule or composite, or with a real instead of a simulated sky, raises
    `StoreError`. Every report of a simulated sky says so.
    """
    if repository_exists(path):
        cube = open_cube(path)
        if cube.attributes["simulated"] != simulated:
            found, expected = ("real", "simulated") if simulated else ("simulated", "real")
            raise StoreError(
                f"the cube at {path} holds a {found} sky, the recipe's survey is {expected}: use another store.path"
            )
        require_same_scale(cube.scale, scale, found_in=f"the cube at {path}", expected_by="the recipe's survey")
        return False
    with write_lock(path):
        create_repository(path)

    def create(session: icechunk.Session) -> bool:
        root = zarr.open_group(session.store, mode="a")
        if "images" in root:
            return False
        root.attrs["simulated"] = simulated
        _create_arrays(root, survey, scale)
        return True

    if commit(path, create, message="create", metadata={"operation": "create", "survey": survey}):
        return True
    # another run came first: compare its cube
    return ensure_cube(path, survey=survey, scale=scale, simulated=simulated)


def lengthen(root: zarr.Group, n_objects: int) -> None:
    """Extend all object arrays of the cube to `n_objects`; new rows hold fill values."""
    for _, node in root.members(max_depth=None):
        if isinstance(node, zarr.Array) and (getattr(node.metadata, "dimension_names", None) or [""])[0] == "object":
            node.resize((n_objects, *node.shape[1:]))


def create_training_set(root: zarr.Group, name: str, n_members: int, attributes: Attributes) -> zarr.Group:
    """Create the group of a training set with its arrays `row`, `object_id` and `split`, shape (member,)."""
    group = root.create_group(f"training_sets/{name}", attributes=dict(attributes))
    for column, dtype, described in (
        ("row", "int64", {"long_name": "Row of the object in the cube"}),
        ("object_id", "int64", {"long_name": "Object id"}),
        ("split", "int8", {"long_name": "Part of the training set", **_flag_attributes(Split)}),
    ):
        create_column(group, column, dtype, fill=-1, attributes=described, n_objects=n_members, dimension="member")
    return group


def ensure_feature_arrays(root: zarr.Group, view: FeatureView) -> None:
    """Create the group of a feature view with its definition, and the arrays of its computed columns, all NaN."""
    group = root.create_group(
        f"features/{view.ref}",
        attributes={
            "description": view.description,
            "definition": view.definition(),
            "fingerprint": view.fingerprint,
            "n_computed": 0,
        },
    )
    n_objects = require_array(root, "state/status").shape[0]
    for column in view.columns:
        if column.is_derived:
            attributes = {**_describe_column(column), "expression": column.expression}
            create_column(group, column.name, column.dtype, fill=np.nan, n_objects=n_objects, attributes=attributes)


def _describe_column(column: Column | FeatureColumn) -> Attributes:
    return {
        "long_name": column.description,
        "units": column.unit,
        "ucd": column.ucd,
        "valid_range": [column.valid_min, column.valid_max],
    }


def _create_arrays(root: zarr.Group, survey: str, scale: CutoutScale) -> None:
    root.attrs.update(
        {
            "schema_version": SCHEMA_VERSION,
            "survey": survey,
            "bands": list(scale.composite.bands),
            "composite": scale.composite.value,
            "scale_rule": scale.rule.value,
            "scale_arcsec_per_px": scale.arcsec_per_px,
            "catalogs": [],
        }
    )
    images = root.create_group("images", attributes=multiscales_attributes())
    bands = list(scale.composite.bands)
    for level in LEVEL.values():
        images.create_array(
            f"{level.side_px}/pixels",
            shape=(0, level.side_px, level.side_px, len(bands)),
            chunks=(level.chunk_rows, level.side_px, level.side_px, len(bands)),
            dtype=level.dtype,
            fill_value=0,
            compressors=(PIXEL_CODEC, CHECKSUM),
            dimension_names=("object", "y", "x", "band"),
            attributes={
                "long_name": f"{''.join(reversed(bands))} image averaged to {level.side_px} px",
                "units": "count",
                "band_names": bands,
                **({} if level.scale_factor == 1 else {"scale_factor": level.scale_factor}),
            },
        )
    catalog = root.create_group("catalog")
    labels = root.create_group(
        f"labels/{LABEL_VIEW}",
        attributes={"source": "MPA-JHU galSpec tables (SDSS DR8+)", "version": 1, "versions": [{"version": 1}]},
    )
    for group, names in ((catalog, ("object_id", *CATALOG_COLUMNS)), (labels, LABEL_COLUMNS)):
        for catalog_column in map(COLUMN.__getitem__, names):
            fill = -1 if catalog_column.dtype == "int64" else np.nan
            attributes = _describe_column(catalog_column)
            create_column(group, catalog_column.name, catalog_column.dtype, fill=fill, attributes=attributes)
    for name, index_columns in INDEX_COLUMNS.items():
        group = root.create_group(f"index/{name}", attributes={ATTRIBUTE: []})
        for column in index_columns:
            create_state_column(group, column, chunk_rows=INDEX_CHUNK_ROWS)
    for group, columns, dimension in (
        (root.create_group("state"), STATE_COLUMNS, "object"),
        (root.create_group("rejected"), REJECTED_COLUMNS, "rejected"),
    ):
        for column in columns:
            create_state_column(group, column, dimension=dimension)
    create_body_array(
        root,
        "delivered/body",
        dimension="object",
        chunk_rows=DELIVERED_CHUNK_ROWS,
        long_name="Delivered body, padded with zeros; its length is state/body_length",
    )


def create_state_column(
    group: zarr.Group, column: StateColumn, *, dimension: str = "object", chunk_rows: int = CATALOG_CHUNK_ROWS
) -> None:
    """Create an empty array as `column` describes it."""
    flags = {} if column.flags is None else _flag_attributes(column.flags)
    create_column(
        group,
        column.name,
        column.dtype,
        fill=column.fill,
        width=column.width,
        dimension=dimension,
        chunk_rows=chunk_rows,
        attributes={"long_name": column.description, "units": column.unit, **flags},
    )


def _flag_attributes(flags: type[IntEnum]) -> dict[str, object]:
    return {
        "flag_values": [int(code) for code in flags],
        "flag_meanings": " ".join(code.name.lower() for code in flags),
    }


def create_body_array(group: zarr.Group, name: str, *, dimension: str, chunk_rows: int, long_name: str) -> None:
    """Create an empty array of delivered bodies, shape (0, DELIVERED_BYTES)."""
    group.create_array(
        name,
        shape=(0, DELIVERED_BYTES),
        chunks=(chunk_rows, DELIVERED_BYTES),
        dtype="uint8",
        fill_value=0,
        compressors=(BODY_CODEC, CHECKSUM),
        dimension_names=(dimension, "byte"),
        attributes={"long_name": long_name},
    )


def create_column(
    group: zarr.Group,
    name: str,
    dtype: str,
    *,
    fill: float,
    attributes: Attributes,
    n_objects: int = 0,
    width: int = 1,
    chunk_rows: int = CATALOG_CHUNK_ROWS,
    dimension: str = "object",
) -> None:
    """Create an array of one value, or `width` values, per object; empty attributes are omitted."""
    wide = width > 1
    group.create_array(
        name,
        shape=(n_objects, width) if wide else (n_objects,),
        chunks=(chunk_rows, width) if wide else (chunk_rows,),
        dtype=dtype,
        fill_value=fill,
        compressors=(COLUMN_CODEC, CHECKSUM),
        dimension_names=(dimension, f"{name}_byte") if wide else (dimension,),
        attributes={key: value for key, value in attributes.items() if value != ""},
    )


def multiscales_attributes(sides_px: Sequence[int] = LEVELS) -> dict[str, object]:
    """Return the attributes of a pyramid after the Zarr `multiscales` convention.

    Scale and translation are relative to the level before; the sides descend.

    Examples
    --------
    >>> multiscales_attributes([128, 32])["multiscales"]["layout"][1]["transform"]
    {'scale': [4.0, 4.0], 'translation': [1.5, 1.5]}
    """
    layout: list[dict[str, object]] = [{"asset": str(sides_px[0]), "transform": {"scale": [1.0, 1.0]}}]
    for finer, side in pairwise(sides_px):
        ratio = finer / side
        layout.append(
            {
                "asset": str(side),
                "derived_from": str(finer),
                "transform": {"scale": [ratio] * 2, "translation": [(ratio - 1) / 2] * 2},
                "resampling_method": "average",
            }
        )
    return {"multiscales": {"layout": layout, "resampling_method": "average"}}
