"""Feature store: features, cutouts and training sets of a cube, by object id, position and time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.arrays import Values
from galstore.cube.predictions import read_predictions
from galstore.cube.reader import Cube, open_cube
from galstore.features.frozen_set import build_training_set, open_training_set
from galstore.features.similar import EMBEDDING_PREFIX, embedding_table, find_similar
from galstore.features.training_set import TrainingSet
from galstore.features.views import read_features
from schemas.cube import Listing
from schemas.cutouts import Reason, Status
from schemas.errors import CatalogError, StoreError
from schemas.features import FEATURE_VIEWS, feature_view
from schemas.predictions import flag_names
from schemas.recipes import SplitSection

ObjectIds = Sequence[int] | npt.NDArray[np.int64]
"""64-bit object ids, shape (n,)."""


class FeatureStore:
    """One snapshot of a cube, read by object id."""

    def __init__(self, cube: Cube) -> None:
        self.cube = cube

    def get_features(self, object_ids: ObjectIds, view: str) -> pd.DataFrame:
        """Return features, one row for each id, in the order of the ids.

        Parameters
        ----------
        view
            `name@version`, a name alone for its newest version, or `embeddings/<model id>`.

        Returns
        -------
        DataFrame
            object_id, registered (bool), and the columns of the view; NaN for unregistered objects and missing values.

        Raises
        ------
        FeatureError
            The view is unknown, or contains images.
        """
        ids = _validate_ids(object_ids)
        rows = self.cube.find_rows(ids)
        known = rows >= 0
        model_id = view.removeprefix(EMBEDDING_PREFIX)
        if model_id != view:
            features = embedding_table(self.cube, model_id, rows[known])
        else:
            features = read_features(self.cube, rows[known], feature_view(view))
        if not known.all():
            features.index = pd.Index(np.flatnonzero(known))
            features = features.reindex(range(ids.size))
        features.insert(0, "object_id", ids)
        features.insert(1, "registered", known)
        return features

    def cutout(self, object_id: int, level: int = 128) -> Values:
        """Return the image of a registered object in counts, shape (level, level, band).

        Raises
        ------
        StoreError
            The level does not exist, or the object lacks a stored image.
        """
        (row,) = self.cube.rows_of(_validate_ids([object_id]))
        status, reason = (int(self.cube.array(f"state/{name}")[row]) for name in ("status", "reason"))  # type: ignore[arg-type]
        if status != Status.STORED:
            cause = Reason(reason).name.lower() if status == Status.QUARANTINED else "it was not fetched yet"
            raise StoreError(
                f"object {object_id} of {self.cube.path} has no image ({cause}): run `galstore ingest` again, with "
                "--retry-quarantined for quarantined objects"
            )
        return self.cube.read_image(level, int(row))

    def cone(self, ra_deg: float, dec_deg: float, radius_deg: float) -> pd.DataFrame:
        """Return the objects in a circle on the sky, nearest first: object_id, ra, dec, separation (deg)."""
        return self.cube.objects_in_cone(ra_deg, dec_deg, radius_deg).drop(columns="row")

    def similar(self, object_id: int, k: int = 10, *, model_id: str | None = None) -> pd.DataFrame:
        return find_similar(self.cube, object_id, k, model_id=model_id)

    def describe(self, object_id: int) -> dict[str, object]:
        """Return state, catalog, computed features, labels and predictions of a registered object."""
        cube = self.cube
        row = int(cube.rows_of(_validate_ids([object_id]))[0])
        state, catalog = _read_group(cube, "state", row), _read_group(cube, "catalog", row)
        return {
            "object_id": int(object_id),
            "row": row,
            "status": Status(state.pop("status")).name.lower(),
            "reason": Reason(state.pop("reason")).name.lower(),
            "listing": Listing(state.pop("listing")).name.lower(),
            "state": state,
            "catalog": {name: value for name, value in catalog.items() if name != "object_id"},
            "features": {
                column.name: float(read_features(cube, np.array([row]), view)[column.name].iloc[0])
                for view in FEATURE_VIEWS.values()
                for column in view.columns
                if column.is_derived
            },
            "labels": {view: _read_group(cube, f"labels/{view}", row) for view in cube.group_names("labels")},
            "predictions": {model: _read_prediction(cube, model, row) for model in cube.group_names("predictions")},
        }

    def training_set(self, name: str) -> TrainingSet:
        return open_training_set(self.cube.path, name)

    def build_training_set(
        self,
        name: str,
        labels: Sequence[str],
        *,
        features: Sequence[str] = (),
        selection: str = "",
        split: SplitSection | None = None,
    ) -> TrainingSet:
        """Draw and freeze a training set, see `galstore.features.frozen_set.build_training_set`."""
        path, snapshot_id = self.cube.path, self.cube.snapshot_id
        return build_training_set(
            path, name, labels, features=features, selection=selection, split=split, snapshot_id=snapshot_id
        )


def open_store(path: str, *, as_of: str | datetime | None = None) -> FeatureStore:
    """Open the feature store of a cube.

    Parameters
    ----------
    as_of
        Id of a snapshot, or a time, also as text such as 2026-11-24T12:00 (UTC by default): open the last snapshot
        before it. Default: the last commit.

    Raises
    ------
    StoreNotFoundError
        No cube exists at this path.
    StoreError
        The snapshot does not exist, or the cube did not exist at that time.
    """
    if isinstance(as_of, str):
        try:
            as_of = datetime.fromisoformat(as_of)
        except ValueError:
            return FeatureStore(open_cube(path, snapshot_id=str(as_of)))
    if as_of is not None and as_of.tzinfo is None:
        as_of = as_of.replace(tzinfo=UTC)
    return FeatureStore(open_cube(path, as_of=as_of))


def _validate_ids(object_ids: ObjectIds) -> npt.NDArray[np.int64]:
    given = np.asarray(object_ids)
    if given.size and given.dtype.kind not in "iu":
        raise CatalogError(
            f"object ids are 64-bit integers, got {given.dtype} ({given.reshape(-1)[0]!r} ...): a float has lost the "
            "last digits; read ids as int64 or text"
        )
    return given.astype(np.int64).reshape(-1)


def _read_group(cube: Cube, group: str, row: int) -> dict[str, Any]:
    columns = {name: np.asarray(cube.array(f"{group}/{name}")[row]) for name in cube.array_names(group)}
    return {name: value.item() if value.ndim == 0 else value.tobytes().hex() for name, value in columns.items()}


def _read_prediction(cube: Cube, model_id: str, row: int) -> dict[str, object]:
    prediction = read_predictions(cube, model_id, np.array([row]))
    flags = int(prediction.pop("flags")[0])
    numbers = {str(name): float(values.iloc[0]) for name, values in prediction.items()}
    return {**numbers, "flags": flags, "flag_names": flag_names(flags)}
