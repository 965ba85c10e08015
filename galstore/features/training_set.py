"""Training sets: stored objects with labels, features and a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.arrays import Attributes
from galstore.cube.reader import Cube
from galstore.features.content_hash import hash_content
from galstore.features.moments import Moments
from galstore.features.selection import evaluate_condition
from galstore.features.splits import NO_SPLIT, apply_split_rule
from galstore.features.views import read_features
from schemas.cutouts import Status
from schemas.errors import FeatureError, TrainingError
from schemas.features import FeatureView, LabelView, Missing, Split, feature_view, label_view
from schemas.recipes import SplitSection

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Stored objects with a label, and their split, in one snapshot.

    Attributes
    ----------
    rows
        Rows of the cube, ascending, shape (n,).
    split
        Code of `Split`, shape (n,).
    values
        Labels by name, shape (n,), float64. Each object has at least one label that is not NaN.
    features
        Refs of feature views, `name@version`.
    definition
        Parameters that determined the set: versions of the label views, fingerprints of the feature views, selection,
        split rule, and the number of objects dropped for each reason.
    moments
        Mean and standard deviation of each feature over the training split; empty unless the set is frozen.
    name
        Name of a frozen set, else empty.
    """

    cube: Cube = field(repr=False)
    rows: npt.NDArray[np.int64] = field(repr=False)
    object_ids: npt.NDArray[np.int64] = field(repr=False)
    split: npt.NDArray[np.int8] = field(repr=False)
    values: Mapping[str, npt.NDArray[np.float64]] = field(repr=False)
    features: tuple[str, ...] = ()
    content_hash: str
    definition: Attributes
    moments: Mapping[str, Moments] = field(default_factory=dict)
    name: str = ""

    @property
    def target(self) -> str:
        return next(iter(self.values))

    @property
    def labels(self) -> npt.NDArray[np.float64]:
        """Values of the first label, shape (n,)."""
        return self.values[self.target]

    @property
    def snapshot_id(self) -> str:
        return self.cube.snapshot_id

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Return the positions in this set (not rows of the cube) of a split."""
        return np.flatnonzero(self.split == split)

    def labelled(self, split: Split) -> npt.NDArray[np.int64]:
        """Return the positions in this set of a split's objects with a value of the first label."""
        return np.flatnonzero((self.split == split) & np.isfinite(self.labels))

    @property
    def evaluation_split(self) -> Split:
        """Split for evaluation: test, or validation if the test split is empty."""
        return Split.TEST if (self.split == Split.TEST).any() else Split.VALIDATION

    def summary(self) -> dict[str, object]:
        """Return name, sizes, hash, definition and moments as JSON values."""
        return {
            "name": self.name,
            "objects": int(self.rows.size),
            **{split.name.lower(): int(self.indices(split).size) for split in Split},
            "content_hash": self.content_hash,
            "snapshot": self.snapshot_id,
            **self.definition,
            "moments": dict(self.moments),
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return object_id, split (by name), tabular features and labels, one row per object."""
        names = np.array([split.name.lower() for split in Split])
        objects = pd.DataFrame({"object_id": self.object_ids, "split": names[self.split]})
        views = [view for view in map(feature_view, self.features) if not view.level]
        features = [read_features(self.cube, self.rows, view) for view in views]
        return pd.concat([objects, *features, pd.DataFrame(dict(self.values))], axis=1)

    def to_xarray(self) -> xr.Dataset:
        """Return the table and the images along `object`; images are loaded lazily."""
        import xarray as xr

        dataset = xr.Dataset.from_dataframe(self.to_pandas().rename_axis("object")).drop_vars("object")
        for view in map(feature_view, self.features):
            if view.level:
                group = xr.open_zarr(self.cube.store, group=f"images/{view.level}", chunks=None, consolidated=False)
                pixels = group["pixels"].isel(object=self.rows)
                dataset[view.name] = pixels.rename(y=f"y_{view.level}", x=f"x_{view.level}")
        return dataset.set_coords(["object_id", "split"]).assign_attrs(
            name=self.name, content_hash=self.content_hash, snapshot=self.snapshot_id
        )


def draw_training_set(
    cube: Cube,
    labels: Sequence[str],
    *,
    features: Sequence[str] = (),
    selection: str = "",
    split: SplitSection | None = None,
) -> TrainingSet:
    """Draw all stored objects with at least one of the labels, and split them. The cube does not change.

    Parameters
    ----------
    labels
        Names of labels, or of label views.
    features
        Names or `name@version` of feature views.
    selection
        Condition over columns of the catalog, such as "petroMag_r < 17.5 and z > 0.02"; empty = all objects.
    split
        Split rule; default: 60/20/20 by object id.

    Raises
    ------
    FeatureError
        A view or column is unknown, no object has the label, or the selection is empty.
    TrainingError
        The training or the validation split is empty.
    """
    rule = split or SplitSection()
    feature_views = [feature_view(ref) for ref in features]
    label_views = [label_view(name) for name in labels]
    names = _label_names(labels, label_views)
    read = {name: cube.read_label(name) for name in names}
    rows = _select_labelled_rows(cube, read, selection)
    incomplete = _lacks_required_feature(cube, rows, feature_views)
    rows = rows[~incomplete]
    ids, ra_deg, dec_deg = (np.asarray(cube.array(f"catalog/{name}")[:])[rows] for name in ("object_id", "ra", "dec"))
    codes = apply_split_rule(rule, ids, ra_deg, dec_deg)
    inside = codes != NO_SPLIT
    n_left_out = {"missing_feature": int(incomplete.sum()), "too_close_to_another_part": int((~inside).sum())}
    rows, ids, codes = rows[inside], ids[inside], codes[inside]
    for required in (Split.TRAIN, Split.VALIDATION):
        if not (codes == required).any():
            raise TrainingError(
                f"no galaxy with a stored cutout and a label {names[0]!r} is in the {required.name.lower()} split "
                f"({rows.size} in all): ingest more objects, or change the shares under [split]"
            )
    values = {name: label[rows] for name, label in read.items()}
    fingerprints = {view.ref: view.fingerprint for view in feature_views}
    groups = dict.fromkeys(view.group for view in label_views)
    return TrainingSet(
        cube=cube,
        rows=rows,
        object_ids=ids,
        split=codes,
        values=values,
        features=tuple(fingerprints),
        content_hash=hash_content(cube, rows, ids, codes, values, feature_views),
        definition={
            "labels": list(names),
            "label_views": {view.ref: view.source for view in label_views},
            "label_versions": {group: cube.read_label_versions(group)[-1]["version"] for group in groups},
            "feature_views": fingerprints,
            "selection": selection,
            "split": rule.model_dump(mode="json"),
            "n_left_out": n_left_out,
        },
    )


def _label_names(refs: Sequence[str], views: Sequence[LabelView]) -> tuple[str, ...]:
    if not refs:
        raise FeatureError("a training set needs a label: name a label, such as oh_p50, or a label view")
    names = [[ref] if ref in view.columns else list(view.columns) for ref, view in zip(refs, views, strict=True)]
    return tuple(dict.fromkeys(name for group in names for name in group))


def _select_labelled_rows(
    cube: Cube, labels: Mapping[str, npt.NDArray[np.float64]], selection: str
) -> npt.NDArray[np.int64]:
    stored = cube.read_state("status") == Status.STORED
    labelled = np.any([np.isfinite(values) for values in labels.values()], axis=0)
    if stored.any() and not (stored & labelled).any():
        raise FeatureError(
            f"label {' and '.join(labels)} is null for all {int(stored.sum())} stored objects of {cube.path}: ingest a "
            "catalog with this label, or train for another label"
        )
    selected = evaluate_condition(cube, selection)
    rows = np.flatnonzero(stored & labelled & selected)
    if selection and not rows.size:
        raise FeatureError(
            f"selection {selection!r} leaves no object of {cube.path} with a stored cutout and a label "
            f"({int(selected.sum())} of {selected.size} meet it): widen it"
        )
    return rows


def _lacks_required_feature(
    cube: Cube, rows: npt.NDArray[np.int64], views: Sequence[FeatureView]
) -> npt.NDArray[np.bool_]:
    incomplete = np.zeros(rows.size, dtype=bool)
    for view in views:
        names = [column.name for column in view.columns if column.missing is Missing.LEFT_OUT]
        if names:
            incomplete |= read_features(cube, rows, view)[names].isna().any(axis=1).to_numpy()
    return incomplete
