"""History and lineage: which commits made a cube, and what a model, predictions or a training set came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from galstore.cube.commits import BRANCH, open_repository
from galstore.cube.reader import Cube, open_cube
from schemas.errors import FeatureError

_OWN = ("operation", "run", "commit_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit; `details` is what its operation noted beside the run, `tags` are names that keep its snapshot."""

    snapshot: str
    time: datetime
    message: str
    operation: str
    run: str
    tags: tuple[str, ...]
    details: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "time": self.time.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """One step of a lineage: what it is, its name, and what is known of it."""

    kind: str
    name: str
    details: dict[str, Any]


def read_history(path: str) -> list[Commit]:
    """Commits of a cube that are still there, newest first."""
    repository = open_repository(path)
    tags: dict[str, list[str]] = {}
    for tag in sorted(repository.list_tags()):
        tags.setdefault(repository.lookup_tag(tag), []).append(tag)
    return [
        Commit(
            snapshot=one.id,
            time=one.written_at,
            message=one.message,
            operation=str(one.metadata.get("operation", "")),
            run=str(one.metadata.get("run", "")),
            tags=tuple(tags.get(one.id, ())),
            details={key: value for key, value in one.metadata.items() if key not in _OWN},
        )
        for one in repository.ancestry(branch=BRANCH)
    ]


def trace_lineage(path: str, name: str) -> list[Ancestor]:
    """From predictions (by the model's id) or a training set back to the survey's query, step by step.

    Raises
    ------
    FeatureError
        The cube has neither predictions nor a training set of this name.
    """
    cube = open_cube(path)
    models, sets = cube.group_names("predictions"), cube.group_names("training_sets")
    chain: list[Ancestor] = []
    if name in models:
        attributes = dict(cube.group_attributes(f"predictions/{name}"))
        chain.append(Ancestor(kind="predictions and model", name=name, details=attributes))
        wanted = str(attributes.get("training_set", ""))
        kept = [one for one in sets if cube.group_attributes(f"training_sets/{one}")["content_hash"] == wanted]
        if not kept:
            chain.append(Ancestor(kind="training set", name=wanted[:12], details={"kept": False}))
            return [*chain, *_catalogs(cube)]
        name = kept[0]
    elif name not in sets:
        known = ", ".join([*models, *sets]) or "none yet"
        raise FeatureError(f"{path} has neither predictions nor a training set named {name!r}: there are {known}")
    attributes = dict(cube.group_attributes(f"training_sets/{name}"))
    attributes.pop("moments")
    chain.append(Ancestor(kind="training set", name=name, details=attributes))
    snapshot = str(attributes["snapshot"])
    commits = {one.snapshot: one for one in read_history(path)}
    details = commits[snapshot].to_dict() if snapshot in commits else {"in_history": False, "tag": attributes["tag"]}
    chain.append(Ancestor(kind="snapshot", name=snapshot, details=details))
    return [*chain, *_catalogs(open_cube(path, snapshot_id=snapshot))]


def _catalogs(cube: Cube) -> list[Ancestor]:
    survey = {key: cube.attributes[key] for key in ("survey", "simulated", "scale_rule", "scale_arcsec_per_px")}
    return [
        Ancestor(kind="catalog", name=str(entry["name"]), details={**survey, **entry})
        for entry in cube.attributes["catalogs"]
    ]
