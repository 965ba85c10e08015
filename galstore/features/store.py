"""The feature store: features, cutouts and training sets of a cube, by object id, place on the sky, and time.

store = open_store("demo/cube")
store.get_features([1237648702973411443], "colours@1")
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.predictions import read_predictions
from galstore.cube.reader import Cube, open_cube
from galstore.features.similar import EMBEDDING_PREFIX, embedding_table, find_similar, read_embeddings
from galstore.features.training_set import TrainingSet, build_training_set, open_training_set
from galstore.features.views import read_features
from schemas.cube import Listing
from schemas.cutouts import Reason, Status
from schemas.errors import CatalogError, StoreError
from schemas.features import FEATURE_VIEWS, feature_view
from schemas.predictions import flag_names
from schemas.recipes import SplitSection


class FeatureStore:
    """One snapshot of a cube, read by object.

    Attributes
    ----------
    cube
        The snapshot.
    """

    def __init__(self, cube: Cube) -> None:
        self.cube = cube

    def get_features(self, object_ids: Sequence[int] | npt.NDArray[np.int64], view: str) -> pd.DataFrame:
        """Features of some objects, one row for each id, in the order asked.

        Parameters
        ----------
        object_ids
            64-bit integers, shape (n,), known or not.
        view
            `name@version`, a name alone for its newest version, or `embeddings/<model id>`.

        Returns
        -------
        DataFrame
            object_id, registered (bool), and the columns of the view: null where the object is not registered or has
            no value.

        Raises
        ------
        FeatureError
            There is no such view, or it is one of images.
        """
        ids = _whole_ids(object_ids)
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

    def cutout(self, object_id: int, level: int = 128) -> npt.NDArray[Any]:
        """The image of one object, shape (level, level, band), in counts; bands as of the cube.

        Raises
        ------
        CatalogError
            It is not registered.
        StoreError
            No such level, or it has no stored image; the message says why.
        """
        (row,) = self.cube.rows_of(_whole_ids([object_id]))
        status, reason = (int(self.cube.array(f"state/{name}")[row]) for name in ("status", "reason"))  # type: ignore[arg-type]
        if status != Status.STORED:
            why = Reason(reason).name.lower() if status == Status.QUARANTINED else "it was not fetched yet"
            raise StoreError(
                f"object {object_id} of {self.cube.path} has no image ({why}): run `galstore ingest` again, with "
                "--retry-quarantined to ask for what was quarantined"
            )
        return self.cube.read_image(level, int(row))

    def cone(self, ra_deg: float, dec_deg: float, radius_deg: float) -> pd.DataFrame:
        """Objects within a circle on the sky, nearest first: object_id, ra, dec, separation (all in deg)."""
        return self.cube.objects_in_cone(ra_deg, dec_deg, radius_deg).drop(columns="row")

    def get_embeddings(
        self, object_ids: Sequence[int] | npt.NDArray[np.int64], model_id: str
    ) -> npt.NDArray[np.float32]:
        """How a model sees some objects, shape (n, feature), in the order asked; NaN where it has not scored them."""
        return read_embeddings(self.cube, model_id, self.cube.rows_of(_whole_ids(object_ids)))

    def similar(self, object_id: int, k: int = 10, *, model_id: str | None = None) -> pd.DataFrame:
        """Look-alikes of one object, as of `galstore.features.similar.find_similar`."""
        return find_similar(self.cube, object_id, k, model_id=model_id)

    def describe(self, object_id: int) -> dict[str, Any]:
        """All that is known of one object: state, catalog, computed features, labels, predictions; null = NaN.

        Raises
        ------
        CatalogError
            It is not registered.
        """
        cube = self.cube
        (row,) = self.cube.rows_of(_whole_ids([object_id]))

        def values(group: str) -> dict[str, Any]:
            columns = {name: np.asarray(cube.array(f"{group}/{name}")[row]) for name in cube.array_names(group)}
            return {name: one.item() if one.ndim == 0 else one.tobytes().hex() for name, one in columns.items()}

        def predictions(model: str) -> dict[str, Any]:
            told = read_predictions(cube, model, np.array([row]))
            flags = int(told.pop("flags")[0])
            numbers = {str(name): float(values.iloc[0]) for name, values in told.items()}
            return {**numbers, "flags": flags, "flag_names": flag_names(flags)}

        state = values("state")
        derived = {
            column.name: float(read_features(cube, np.array([row]), view)[column.name].iloc[0])
            for view in FEATURE_VIEWS.values()
            for column in view.columns
            if column.is_derived
        }
        return {
            "object_id": int(object_id),
            "row": int(row),
            "status": Status(state.pop("status")).name.lower(),
            "reason": Reason(state.pop("reason")).name.lower(),
            "listing": Listing(state.pop("listing")).name.lower(),
            "state": state,
            "catalog": {name: value for name, value in values("catalog").items() if name != "object_id"},
            "features": derived,
            "labels": {view: values(f"labels/{view}") for view in cube.group_names("labels")},
            "predictions": {model: predictions(model) for model in cube.group_names("predictions")},
        }

    def training_set(self, name: str) -> TrainingSet:
        """A training set that is kept, as of `galstore.features.training_set.open_training_set`."""
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
        """Draw a training set from this snapshot and keep it, as of `galstore.features.training_set.build_training_set`."""
        return build_training_set(
            self.cube.path, name, labels, features=features, selection=selection, split=split,
            snapshot_id=self.cube.snapshot_id,
        )  # fmt: skip


def open_store(path: str, *, as_of: str | datetime | None = None) -> FeatureStore:
    """Open the feature store of a cube.

    Parameters
    ----------
    path
        Folder of the cube, or s3://bucket/prefix.
    as_of
        Id of a snapshot; or a time, also as text such as 2026-11-24T12:00 (UTC unless it says otherwise): then the last
        snapshot that was there. By default the last commit.

    Raises
    ------
    StoreNotFoundError
        There is no cube at this path.
    StoreError
        It has no such snapshot (any more), or did not exist at that time.
    """
    if isinstance(as_of, str):
        try:
            as_of = datetime.fromisoformat(as_of)
        except ValueError:
            return FeatureStore(open_cube(path, snapshot_id=str(as_of)))
    if as_of is not None and as_of.tzinfo is None:
        as_of = as_of.replace(tzinfo=UTC)
    return FeatureStore(open_cube(path, as_of=as_of))


def _whole_ids(object_ids: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    given = np.asarray(object_ids)
    if given.size and given.dtype.kind not in "iu":
        raise CatalogError(
            f"object ids are whole numbers of 64 bits, got {given.dtype} ({given.reshape(-1)[0]!r} ...): a float has "
            "lost their last digits; read them as int64 or text"
        )
    return given.astype(np.int64).reshape(-1)
