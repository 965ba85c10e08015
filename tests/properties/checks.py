"""Comparison of a cube with its reference, value by value."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
import simplejpeg

from galstore.cube.reader import Counts, Cube
from schemas.cube import LEVEL, SCHEMA_VERSION
from schemas.cutouts import Status
from schemas.errors import StoreError
from tests.galstore.cube.test_pyramid import PRECISION_COUNTS, area_average
from tests.properties.reference import LABEL, Reference

CHECKED_LEVELS = (128, 32, 2)
"""A level of each kind: as delivered, whole counts, fixed point."""


def check(cube: Cube, reference: Reference, rows: Iterable[int]) -> None:
    """Compare all columns of the cube, and images and bodies of some rows."""
    _check_counts(cube, reference)
    _check_columns(cube, reference)
    _check_rejected(cube, reference)
    assert cube.read_label_versions() == reference.label_versions
    assert cube.attributes["schema_version"] == SCHEMA_VERSION
    _check_images(cube, reference, sorted({row for row in rows if row < len(reference.objects)}))


def _check_counts(cube: Cube, reference: Reference) -> None:
    n_objects = Counter(known.status for known in reference.objects)
    counts = cube.counts()
    assert counts.add_up
    assert counts == Counts(
        registered=len(reference.objects),
        stored=n_objects[Status.STORED],
        quarantined=n_objects[Status.QUARANTINED],
        pending=n_objects[Status.PENDING],
    )


def _check_columns(cube: Cube, reference: Reference) -> None:
    objects = reference.objects
    ids = cube.read_catalog(["object_id"])["object_id"].tolist()
    assert ids == [known.object_id for known in objects]
    assert len(set(ids)) == len(ids)
    names = [entry["name"] for entry in cube.attributes["catalogs"]]
    assert names == reference.catalogs
    assert [names[index] for index in cube.read_state("catalog")] == [known.catalog for known in objects]
    for name in ("status", "reason", "attempts", "http_status", "listing"):
        assert cube.read_state(name).tolist() == [int(getattr(known, name)) for known in objects], name
    assert cube.read_state("body_length").tolist() == [len(known.body) for known in objects]
    digests = [_digest(known.body) if known.status is Status.STORED else bytes(32) for known in objects]
    assert cube.read_state("body_sha256").tobytes() == b"".join(digests)
    scales = np.array([known.scale_arcsec for known in objects], dtype=np.float32)
    assert np.array_equal(cube.read_state("pixel_scale"), scales, equal_nan=True)
    assert np.array_equal(cube.read_label(LABEL), [known.label for known in objects], equal_nan=True)


def _check_rejected(cube: Cube, reference: Reference) -> None:
    expected = [(row.catalog, row.row, row.object_id, row.column, row.reason, row.value) for row in reference.rejected]
    assert sorted(cube.read_rejected().itertuples(index=False, name=None)) == sorted(expected)


def _check_images(cube: Cube, reference: Reference, rows: list[int]) -> None:
    stored = [row for row in rows if reference.objects[row].status is Status.STORED]
    empty = [row for row in rows if row not in stored]
    # descending, because images come in the order of the request
    order = np.array(stored[::-1], dtype=np.int64)
    for side in CHECKED_LEVELS if stored else ():
        expected = np.concatenate([_averaged(reference.objects[row].body, side) for row in order])
        assert np.abs(cube.read_pixels(side, order) - expected).max() <= PRECISION_COUNTS[side] + 1e-4  # float32
    for row in stored:
        assert cube.read_body(row) == reference.objects[row].body
    for row in empty:
        assert cube.read_body(row) == b""
        assert not np.asarray(cube.array(LEVEL[32].path)[row]).any()
    if empty:
        with pytest.raises(StoreError, match="cutout"):
            cube.read_pixels(32, np.array([*stored, empty[0]]))


@cache
def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


@cache
def _averaged(body: bytes, side: int) -> np.ndarray:
    return area_average(simplejpeg.decode_jpeg(body)[None], side)
