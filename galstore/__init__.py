"""Data plane of galstore: survey clients, the cube, feature store and exports. Imports neither torch nor Prefect.

Examples
--------
>>> import galstore
>>> cube = galstore.open("demo/cube")  # doctest: +SKIP
>>> store = galstore.open_store("demo/cube")  # doctest: +SKIP
"""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from galstore.cube.reader import Cube
    from galstore.features.store import FeatureStore

__version__ = version("galstore")


def open(path: str, *, snapshot_id: str | None = None) -> Cube:  # noqa: A001 - read as galstore.open
    """Open a cube for reading.

    Parameters
    ----------
    path
        Local folder, or s3://bucket/prefix.
    snapshot_id
        Snapshot to read; by default the last commit.

    Raises
    ------
    StoreNotFoundError
        `path` has no cube.
    """
    from galstore.cube.reader import open_cube

    return open_cube(path, snapshot_id=snapshot_id)


def open_store(path: str, *, as_of: str | datetime | None = None) -> FeatureStore:
    """Open the feature store of a cube.

    Parameters
    ----------
    path
        Local folder, or s3://bucket/prefix.
    as_of
        Snapshot id or time (UTC); by default the last commit.
    """
    from galstore.features.store import open_store as open_feature_store

    return open_feature_store(path, as_of=as_of)
