"""Training sets: which objects train, validate and test, with what and for what, frozen under a name.

A training set that is kept is a group of the cube (`/training_sets/<name>`: rows, ids, split, and all that determined
them) and a tag on the snapshot that it was drawn from, so that it reads the same bytes after any later delivery, change
of labels or expiry of snapshots. Its content hash covers ids, split, labels, features and delivered images, in the
order of the ids: the same content has the same hash on any machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from math import fsum, sqrt
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.blocks import blocks_with
from galstore.cube.commits import commit, open_repository, write_lock
from galstore.cube.index.healpix import sky_cells
from galstore.cube.layout import create_training_set
from galstore.cube.reader import Cube, open_cube
from galstore.features.selection import rows_selected
from galstore.features.splits import LEFT_OUT, leaders, leave_out_neighbours, split_of
from galstore.features.views import keep_definition, read_features
from schemas.cube import LEVEL
from schemas.cutouts import Status
from schemas.errors import FeatureError, StoreError, TrainingError
from schemas.features import FeatureView, LabelView, Missing, Split, feature_view, label_view
from schemas.recipes import SplitSection

if TYPE_CHECKING:
    import xarray as xr

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
MEMBER_COLUMNS = ("row", "object_id", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Stored objects with a label, and their split, as of one snapshot.

    Attributes
    ----------
    cube
        The snapshot that it was drawn from.
    rows
        Row numbers in the cube, ascending, shape (n,).
    object_ids
        Shape (n,).
    split
        Code of `Split`, shape (n,).
    values
        Each label, shape (n,), float64; at least one of an object's labels is not NaN.
    features
        Refs of feature views, `name@version`.
    content_hash
        SHA-256, hexadecimal; see the module.
    definition
        All that determined it: label views with their versions, feature views with their fingerprints, the selection,
        the rule of the split, and how many objects were left out for which reason.
    moments
        Mean and standard deviation (ddof 0) of each feature, of the training objects alone: for normalisation. Of an
        image level one for each band. Only where the set is kept.
    name
        Under which the cube keeps it; empty where it does not.
    """

    cube: Cube = field(repr=False)
    rows: npt.NDArray[np.int64] = field(repr=False)
    object_ids: npt.NDArray[np.int64] = field(repr=False)
    split: npt.NDArray[np.int8] = field(repr=False)
    values: Mapping[str, npt.NDArray[np.float64]] = field(repr=False)
    features: tuple[str, ...] = ()
    content_hash: str
    definition: Mapping[str, Any]
    moments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    name: str = ""

    @property
    def target(self) -> str:
        """The first label."""
        return next(iter(self.values))

    @property
    def labels(self) -> npt.NDArray[np.float64]:
        """Values of the first label, shape (n,)."""
        return self.values[self.target]

    @property
    def snapshot_id(self) -> str:
        return self.cube.snapshot_id

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Positions in this set (not row numbers) of one split."""
        return np.flatnonzero(self.split == split)

    def labelled(self, split: Split) -> npt.NDArray[np.int64]:
        """The same, of those whose first label is known."""
        return np.flatnonzero((self.split == split) & np.isfinite(self.labels))

    @property
    def evaluation_split(self) -> Split:
        """The split that a report judges by: test, or validation where a recipe leaves no test split."""
        return Split.TEST if (self.split == Split.TEST).any() else Split.VALIDATION

    def summary(self) -> dict[str, Any]:
        """What it is, in a few facts, as plain data."""
        sizes = {split.name.lower(): int(self.indices(split).size) for split in Split}
        return {
            "name": self.name, "objects": int(self.rows.size), **sizes, "content_hash": self.content_hash,
            "snapshot": self.snapshot_id, **self.definition, "moments": dict(self.moments),
        }  # fmt: skip

    def to_pandas(self) -> pd.DataFrame:
        """One row an object: object_id, split (by name), the features that are columns, and the labels."""
        names = np.array([split.name.lower() for split in Split])
        parts = [pd.DataFrame({"object_id": self.object_ids, "split": names[self.split]})]
        parts += [read_features(self.cube, self.rows, view) for view in _table_views(self.features)]
        return pd.concat([*parts, pd.DataFrame(dict(self.values))], axis=1)

    def to_xarray(self) -> xr.Dataset:
        """Everything along `object`, the images too: those are read when they are asked for."""
        import xarray as xr

        dataset = xr.Dataset.from_dataframe(self.to_pandas().rename_axis("object")).drop_vars("object")
        for view in map(feature_view, self.features):
            if view.level:
                group = xr.open_zarr(
                    self.cube.store,
                    group=f"images/{view.level}",
                    chunks=None,
                    consolidated=False,
                )
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
    """Every stored object with one of these labels, split by the rule; nothing is kept.

    Parameters
    ----------
    cube
        The snapshot.
    labels
        Names of labels, or of label views.
    features
        Names or `name@version` of feature views.
    selection
        A condition over columns of the catalog, such as "petroMag_r < 17.5 and z > 0.02"; empty = all.
    split
        The rule; 60/20/20 by the object id by default.

    Raises
    ------
    FeatureError
        An unknown view or column, a label that no object has, or a selection without objects.
    TrainingError
        Nothing to train or to validate on.
    """
    rule = split or SplitSection()
    feature_views = [feature_view(ref) for ref in features]
    label_views = [label_view(name) for name in labels]
    names = _label_names(labels, label_views)
    read = {name: cube.read_label(name) for name in names}
    stored = cube.read_state("status") == Status.STORED
    labelled = np.any([np.isfinite(values) for values in read.values()], axis=0)
    if stored.any() and not any(np.isfinite(values[stored]).any() for values in read.values()):
        raise FeatureError(
            f"label {' and '.join(names)} is null for all {int(stored.sum())} stored objects of {cube.path}: ingest a "
            "catalog that has it, or train for another label"
        )
    chosen = rows_selected(cube, selection)
    rows = np.flatnonzero(stored & labelled & chosen)
    if selection and not rows.size:
        raise FeatureError(
            f"selection {selection!r} leaves no object of {cube.path} with a stored cutout and a label "
            f"({int(chosen.sum())} of {chosen.size} meet it): widen it"
        )
    incomplete = _incomplete(cube, rows, feature_views)
    n_left_out = {"missing_feature": int(incomplete.sum())}
    rows = rows[~incomplete]
    catalog = {name: np.asarray(cube.array(f"catalog/{name}")[:])[rows] for name in ("object_id", "ra", "dec")}
    codes = _split_codes(rule, catalog["object_id"], catalog["ra"], catalog["dec"])
    n_left_out["too_close_to_another_part"] = int(np.count_nonzero(codes == LEFT_OUT))
    inside = codes != LEFT_OUT
    rows, ids, codes = rows[inside], catalog["object_id"][inside], codes[inside]
    for needed in (Split.TRAIN, Split.VALIDATION):
        if not (codes == needed).any():
            raise TrainingError(
                f"no galaxy with a stored cutout and a label {names[0]!r} is in the {needed.name.lower()} split "
                f"({rows.size} in all): ingest more objects, or change the shares under [split]"
            )
    values = {name: of_all[rows] for name, of_all in read.items()}
    views = {view.ref: view.fingerprint for view in feature_views}
    groups = dict.fromkeys(view.group for view in label_views)
    definition = {
        "labels": list(names),
        "label_views": {view.ref: view.source for view in label_views},
        "label_versions": {group: cube.read_label_versions(group)[-1]["version"] for group in groups},
        "feature_views": views,
        "selection": selection,
        "split": rule.model_dump(mode="json"),
        "n_left_out": n_left_out,
    }
    content_hash = _hash_of(cube, rows, ids, codes, values, feature_views)
    return TrainingSet(
        cube=cube, rows=rows, object_ids=ids, split=codes, values=values, features=tuple(views),
        content_hash=content_hash, definition=definition,
    )  # fmt: skip


def build_training_set(
    path: str,
    name: str,
    labels: Sequence[str],
    *,
    features: Sequence[str] = (),
    selection: str = "",
    split: SplitSection | None = None,
    snapshot_id: str | None = None,
) -> TrainingSet:
    """Draw a training set and keep it under a name; where the very same is kept already, it is that.

    Parameters
    ----------
    path
        Place of the cube.
    name
        Letters, digits, dots, dashes and underscores.
    labels, features, selection, split
        As of `draw_training_set`.
    snapshot_id
        The snapshot to draw from; the last one by default.

    Raises
    ------
    FeatureError
        Another one is kept under this name; and as of `draw_training_set`.
    """
    if not NAME.fullmatch(name):
        raise FeatureError(
            f"{name!r} is no name for a training set: use letters, digits, dots, dashes and underscores, at most 80"
        )
    cube = open_cube(path, snapshot_id=snapshot_id)
    drawn = draw_training_set(cube, labels, features=features, selection=selection, split=split)
    if _kept_hash(open_cube(path), name) is None:
        _keep(path, name, drawn)
    return _require_same(open_training_set(path, name), drawn)


def open_training_set(path: str, name: str) -> TrainingSet:
    """A training set that was kept, with the bytes of then.

    Raises
    ------
    FeatureError
        There is none of this name, its snapshot is gone, or what is read is not what was kept.
    """
    tip = open_cube(path)
    names = tip.group_names("training_sets")
    if name not in names:
        raise FeatureError(
            f"training set {name!r} is not in {path}: there {'are ' + ', '.join(names) if names else 'is none'}"
        )
    group = f"training_sets/{name}"
    kept = tip.group_attributes(group)
    try:
        cube = open_cube(path, snapshot_id=str(kept["snapshot"]))
    except StoreError as error:
        raise FeatureError(
            f"training set {name} was drawn from snapshot {kept['snapshot']} of {path}, which is gone: its tag must "
            "have been deleted by hand; build it anew under another name"
        ) from error
    rows, ids, split = (np.asarray(tip.array(f"{group}/{one}")[:]) for one in MEMBER_COLUMNS)
    definition: Mapping[str, Any] = kept["definition"]
    features = tuple(definition["feature_views"])
    values = {label: cube.read_label(label)[rows] for label in definition["labels"]}
    content_hash = _hash_of(cube, rows, ids, split, values, [feature_view(ref) for ref in features])
    if content_hash != kept["content_hash"]:
        raise FeatureError(
            f"training set {name} of {path} has content hash {content_hash[:12]}, {kept['content_hash'][:12]} was "
            "kept: see what `galstore verify` finds"
        )
    return TrainingSet(
        cube=cube, rows=rows, object_ids=ids, split=split, values=values, features=features,
        content_hash=content_hash, definition=definition, moments=kept["moments"], name=name,
    )  # fmt: skip


def _keep(path: str, name: str, drawn: TrainingSet) -> None:
    moments = _moments_of(drawn)
    tag = f"training-set-{name}-{drawn.content_hash[:12]}-{drawn.snapshot_id[:8]}"
    with write_lock(path):
        repository = open_repository(path)
        if tag not in repository.list_tags():
            repository.create_tag(tag, snapshot_id=drawn.snapshot_id)

    def write(session: icechunk.Session) -> None:
        root = zarr.open_group(session.store, mode="a")
        if f"training_sets/{name}" in root:
            return
        for ref in drawn.features:
            keep_definition(root, path, feature_view(ref))
        attributes = {
            "content_hash": drawn.content_hash, "snapshot": drawn.snapshot_id, "tag": tag,
            "definition": dict(drawn.definition), "moments": moments, "galstore": version("galstore"),
        }  # fmt: skip
        group: Any = create_training_set(root, name, drawn.rows.size, attributes)
        for column, values in zip(MEMBER_COLUMNS, (drawn.rows, drawn.object_ids, drawn.split), strict=True):
            group[column][:] = values

    metadata = {"operation": "training set", "name": name, "content_hash": drawn.content_hash}
    commit(path, write, message=f"training set {name}", metadata=metadata)


def _kept_hash(cube: Cube, name: str) -> str | None:
    if name not in cube.group_names("training_sets"):
        return None
    return str(cube.group_attributes(f"training_sets/{name}")["content_hash"])


def _require_same(kept: TrainingSet, drawn: TrainingSet) -> TrainingSet:
    if kept.content_hash != drawn.content_hash:
        raise FeatureError(
            f"training set {kept.name} of {kept.cube.path} is kept with content hash {kept.content_hash[:12]}, what "
            f"was asked for has {drawn.content_hash[:12]}: a training set never changes, use another name"
        )
    return kept


def _label_names(given: Sequence[str], views: Sequence[LabelView]) -> tuple[str, ...]:
    """Each label by its name; a view means all of its labels."""
    if not given:
        raise FeatureError("a training set needs a label: name one, such as oh_p50, or a label view")
    names = [[one] if one in view.columns else list(view.columns) for one, view in zip(given, views, strict=True)]
    return tuple(dict.fromkeys(name for some in names for name in some))


def _table_views(refs: Iterable[str]) -> list[FeatureView]:
    return [view for view in map(feature_view, refs) if not view.level]


def _incomplete(cube: Cube, rows: npt.NDArray[np.int64], views: Sequence[FeatureView]) -> npt.NDArray[np.bool_]:
    """Which objects lack a value of a column that may not be missing."""
    incomplete = np.zeros(rows.size, dtype=bool)
    for view in views:
        names = [column.name for column in view.columns if column.missing is Missing.LEFT_OUT]
        if names:
            incomplete |= read_features(cube, rows, view)[names].isna().any(axis=1).to_numpy()
    return incomplete


def _split_codes(
    rule: SplitSection,
    ids: npt.NDArray[np.int64],
    ra_deg: npt.NDArray[np.float64],
    dec_deg: npt.NDArray[np.float64],
) -> npt.NDArray[np.int8]:
    shares = {"train": rule.train, "validation": rule.validation, "seed": rule.seed}
    if rule.by == "object":
        hashed = leaders(ids, ra_deg, dec_deg, separation_arcsec=rule.duplicate_arcsec)
        return split_of(hashed, **shares)  # type: ignore[arg-type]
    codes = split_of(sky_cells(ra_deg, dec_deg, order=rule.cell_order), **shares)  # type: ignore[arg-type]
    separation_deg = max(rule.separation_deg, rule.duplicate_arcsec / 3600)
    return leave_out_neighbours(codes, ra_deg, dec_deg, separation_deg=separation_deg)


def _hash_of(
    cube: Cube,
    rows: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
    split: npt.NDArray[np.int8],
    values: Mapping[str, npt.NDArray[np.float64]],
    views: Sequence[FeatureView],
) -> str:
    order = np.argsort(ids, kind="stable")
    digest = hashlib.sha256()

    def add(name: str, part: npt.NDArray[Any], dtype: str) -> None:
        digest.update(f"{name}:{dtype}:{part.shape}\n".encode())
        digest.update(np.ascontiguousarray(part[order], dtype=dtype).tobytes())

    add("object_id", ids, "<i8")
    add("split", split, "<i1")
    for name in sorted(values):
        add(name, _one_nan(values[name]), "<f8")
    for view in sorted(views, key=lambda view: view.ref):
        digest.update(f"{view.ref}:{view.fingerprint}\n".encode())
        if view.level:
            add("body_sha256", cube.read_state("body_sha256")[rows], "|u1")
            add("pixel_scale", _one_nan(cube.read_state("pixel_scale")[rows]), "<f8")
        else:
            for column, part in read_features(cube, rows, view).items():
                add(str(column), _one_nan(part.to_numpy()), "<f8")
    return digest.hexdigest()


def _one_nan(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """NaN has many bit patterns; here it has one."""
    return np.where(np.isnan(values), np.nan, values).astype(np.float64)


def _moments_of(drawn: TrainingSet) -> dict[str, dict[str, Any]]:
    """By exact sums, so that neither order nor machine shows."""
    rows = drawn.rows[drawn.indices(Split.TRAIN)]
    moments: dict[str, dict[str, Any]] = {}
    for view in map(feature_view, drawn.features):
        if view.level:
            moments[view.ref] = _image_moments(drawn.cube, rows, view.level)
            continue
        for column, part in read_features(drawn.cube, rows, view).items():
            finite = part[part.notna()].to_numpy(dtype=np.float64)
            mean = fsum(finite) / finite.size if finite.size else None
            std = None if mean is None else sqrt(fsum((finite - mean) ** 2) / finite.size)
            moments[f"{view.ref}/{column}"] = {"mean": mean, "std": std, "n": int(finite.size)}
    return moments


def _image_moments(cube: Cube, rows: npt.NDArray[np.int64], level: int) -> dict[str, Any]:
    """Counts of each band over all pixels, by sums of the stored integers."""
    array, scale = cube.array(LEVEL[level].path), LEVEL[level].scale_factor
    wanted = np.zeros(cube.n_objects, dtype=bool)
    wanted[rows] = True
    sums, squares, n = [0, 0, 0], [0, 0, 0], 0
    for block in blocks_with(wanted):
        stored = np.asarray(array[block.rows])[wanted[block.rows]].astype(np.uint64)
        n += stored[..., 0].size
        for band in range(3):
            sums[band] += int(stored[..., band].sum())
            squares[band] += int((stored[..., band] ** 2).sum())
    means = [one / n for one in sums]
    # integers until the last step: n * sum(x^2) - sum(x)^2
    stds = [sqrt(n * square - one * one) / n for one, square in zip(sums, squares, strict=True)]
    return {"mean": [one * scale for one in means], "std": [one * scale for one in stds], "n": n, "unit": "count"}
