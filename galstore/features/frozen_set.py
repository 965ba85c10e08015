"""Frozen training sets: a group `/training_sets/<name>` of the cube (rows, ids, split, definition).

A tag on its snapshot ensures the same bytes after later catalogs, changes of labels and expiry of snapshots.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version

import icechunk
import numpy as np
import zarr

from galstore.cube.arrays import Attributes, require_array
from galstore.cube.commits import commit, open_repository, write_lock
from galstore.cube.layout import create_training_set
from galstore.cube.reader import open_cube
from galstore.features.content_hash import hash_content
from galstore.features.moments import compute_moments
from galstore.features.training_set import TrainingSet, draw_training_set
from galstore.features.views import store_definition
from schemas.errors import FeatureError, StoreError
from schemas.features import Split, feature_view
from schemas.recipes import SplitSection

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)


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
    """Draw a training set from a snapshot (default: the last), see `draw_training_set`, and freeze it under a name.

    Raises
    ------
    FeatureError
        A set with this name and other content exists; and as `draw_training_set`.
    """
    if not _NAME.fullmatch(name):
        raise FeatureError(
            f"{name!r} cannot name a training set: use letters, digits, dots, dashes and underscores, at most 80"
        )
    cube = open_cube(path, snapshot_id=snapshot_id)
    drawn = draw_training_set(cube, labels, features=features, selection=selection, split=split)
    if name not in open_cube(path).group_names("training_sets"):
        _freeze(path, name, drawn)
    stored = open_training_set(path, name)
    if stored.content_hash != drawn.content_hash:
        raise FeatureError(
            f"training set {name} of {path} has content hash {stored.content_hash[:12]}, the requested set "
            f"{drawn.content_hash[:12]}: a training set never changes, use another name"
        )
    return stored


def open_training_set(path: str, name: str) -> TrainingSet:
    """Open a frozen training set at its snapshot.

    Raises
    ------
    FeatureError
        The set or its snapshot does not exist, or the content differs from its hash.
    """
    tip = open_cube(path)
    names, group = tip.group_names("training_sets"), f"training_sets/{name}"
    if name not in names:
        raise FeatureError(f"training set {name!r} is not in {path}: choose one of {', '.join(names) or 'none'}")
    attributes = tip.group_attributes(group)
    try:
        cube = open_cube(path, snapshot_id=str(attributes["snapshot"]))
    except StoreError as error:
        raise FeatureError(
            f"training set {name} was drawn from snapshot {attributes['snapshot']} of {path}, which no longer exists, "
            "perhaps because its tag was deleted: build it again under another name"
        ) from error
    rows, ids, split = (np.asarray(tip.array(f"{group}/{column}")[:]) for column in ("row", "object_id", "split"))
    definition: Attributes = attributes["definition"]
    features = tuple(definition["feature_views"])
    values = {label: cube.read_label(label)[rows] for label in definition["labels"]}
    content_hash = hash_content(cube, rows, ids, split, values, [feature_view(ref) for ref in features])
    if content_hash != attributes["content_hash"]:
        raise FeatureError(
            f"training set {name} of {path} has content hash {content_hash[:12]}, expected "
            f"{attributes['content_hash'][:12]}: run `galstore verify` to find the damage"
        )
    return TrainingSet(
        cube=cube,
        rows=rows,
        object_ids=ids,
        split=split,
        values=values,
        features=features,
        content_hash=content_hash,
        definition=definition,
        moments=attributes["moments"],
        name=name,
    )


def _freeze(path: str, name: str, drawn: TrainingSet) -> None:
    views = [feature_view(ref) for ref in drawn.features]
    moments = compute_moments(drawn.cube, drawn.rows[drawn.indices(Split.TRAIN)], views)
    tag = f"training-set-{name}-{drawn.content_hash[:12]}-{drawn.snapshot_id[:8]}"
    with write_lock(path):
        repository = open_repository(path)
        if tag not in repository.list_tags():
            repository.create_tag(tag, snapshot_id=drawn.snapshot_id)

    def write(session: icechunk.Session) -> None:
        root = zarr.open_group(session.store, mode="a")
        if f"training_sets/{name}" in root:
            return
        for view in views:
            store_definition(root, path, view)
        attributes = {
            "content_hash": drawn.content_hash,
            "snapshot": drawn.snapshot_id,
            "tag": tag,
            "definition": dict(drawn.definition),
            "moments": moments,
            "galstore": version("galstore"),
        }
        group = create_training_set(root, name, drawn.rows.size, attributes)
        for column, values in (("row", drawn.rows), ("object_id", drawn.object_ids), ("split", drawn.split)):
            require_array(group, column)[:] = values

    metadata = {"operation": "training set", "name": name, "content_hash": drawn.content_hash}
    commit(path, write, message=f"training set {name}", metadata=metadata)
