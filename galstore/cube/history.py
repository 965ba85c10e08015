"""History and lineage: the commits and runs of a cube, and the parents of predictions and training sets."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby

from galstore.cube.arrays import Attributes
from galstore.cube.commits import BRANCH, open_repository
from galstore.cube.reader import Cube, open_cube
from schemas.errors import FeatureError

_COMMIT_FIELDS = ("operation", "run", "commit_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit, with further metadata of its operation and the tags of its snapshot."""

    snapshot: str
    time: datetime
    message: str
    operation: str
    run: str
    tags: tuple[str, ...]
    details: Attributes

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "time": self.time.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """One step of a lineage."""

    kind: str
    name: str
    details: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """Consecutive commits of one run. Commits without a run, such as those of scoring, are grouped by operation."""

    run: str
    operations: dict[str, int]
    """Number of commits by operation."""
    first: datetime
    last: datetime
    n_registered: int
    n_settled: int
    """Number of cutouts stored or quarantined, less those made pending again."""
    n_predicted: int

    @property
    def seconds(self) -> float:
        return (self.last - self.first).total_seconds()

    @property
    def settled_per_s(self) -> float | None:
        """Cutouts per second between the commits; None where it is undefined."""
        return self.n_settled / self.seconds if self.n_settled > 0 and self.seconds > 0 else None

    def to_dict(self) -> dict[str, object]:
        times = {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return {**asdict(self), **times, "seconds": self.seconds, "settled_per_s": self.settled_per_s}


def read_history(path: str) -> list[Commit]:
    """Return the commits of a cube that were not expired, newest first."""
    repository = open_repository(path)
    tags: dict[str, list[str]] = {}
    for tag in sorted(repository.list_tags()):
        tags.setdefault(repository.lookup_tag(tag), []).append(tag)
    return [
        Commit(
            snapshot=snapshot.id,
            time=snapshot.written_at,
            message=snapshot.message,
            operation=str(snapshot.metadata.get("operation", "")),
            run=str(snapshot.metadata.get("run", "")),
            tags=tuple(tags.get(snapshot.id, ())),
            details={key: value for key, value in snapshot.metadata.items() if key not in _COMMIT_FIELDS},
        )
        for snapshot in repository.ancestry(branch=BRANCH)
    ]


def summarise_runs(path: str, max_runs: int = 12) -> list[RunSummary]:
    """Return the last runs of a cube, newest first, as far as its history goes back; read two snapshots per run."""
    # the first, empty commit of the repository has no operation, and is older than the cube
    history = [commit for commit in read_history(path) if commit.operation]
    groups = [list(group) for _, group in groupby(history, key=lambda commit: commit.run or commit.operation)]
    summaries, n_seen = [], 0
    for commits in groups[:max_runs]:
        n_seen += len(commits)
        before = history[n_seen] if n_seen < len(history) else None
        # if the commit before was expired, the counts before are unknown
        if before is not None or commits[-1].operation == "create":
            summaries.append(_summarise_run(path, commits, before))
    return summaries


def _summarise_run(path: str, commits: list[Commit], before: Commit | None) -> RunSummary:
    newest, oldest = commits[0], commits[-1]
    registered, settled = _counts(path, newest.snapshot)
    registered_before, settled_before = _counts(path, before.snapshot if before else None)
    return RunSummary(
        run=newest.run,
        operations=dict(Counter(commit.operation for commit in reversed(commits))),
        first=oldest.time,
        last=newest.time,
        n_registered=registered - registered_before,
        n_settled=settled - settled_before,
        n_predicted=sum(int(c.details.get("n_objects", 0)) for c in commits if c.operation == "predict"),
    )


def _counts(path: str, snapshot: str | None) -> tuple[int, int]:
    if snapshot is None:
        return 0, 0
    counts = open_cube(path, snapshot_id=snapshot).counts()
    return counts.registered, counts.stored + counts.quarantined


def trace_lineage(path: str, name: str) -> list[Ancestor]:
    """Trace predictions (by model id) or a training set back to the survey's query, step by step.

    An unknown name raises `FeatureError`.
    """
    cube = open_cube(path)
    models, sets = cube.group_names("predictions"), cube.group_names("training_sets")
    chain: list[Ancestor] = []
    if name in models:
        attributes = dict(cube.group_attributes(f"predictions/{name}"))
        chain.append(Ancestor(kind="predictions and model", name=name, details=attributes))
        wanted = str(attributes.get("training_set", ""))
        stored = [known for known in sets if cube.group_attributes(f"training_sets/{known}")["content_hash"] == wanted]
        if not stored:
            chain.append(Ancestor(kind="training set", name=wanted[:12], details={"kept": False}))
            return [*chain, *_catalogs(cube)]
        name = stored[0]
    elif name not in sets:
        known = ", ".join([*models, *sets]) or "none yet"
        raise FeatureError(f"{path} has neither predictions nor a training set named {name!r}: choose one of {known}")
    attributes = dict(cube.group_attributes(f"training_sets/{name}"))
    attributes.pop("moments")
    chain.append(Ancestor(kind="training set", name=name, details=attributes))
    snapshot = str(attributes["snapshot"])
    commits = {commit.snapshot: commit for commit in read_history(path)}
    details = commits[snapshot].to_dict() if snapshot in commits else {"in_history": False, "tag": attributes["tag"]}
    chain.append(Ancestor(kind="snapshot", name=snapshot, details=details))
    return [*chain, *_catalogs(open_cube(path, snapshot_id=snapshot))]


def _catalogs(cube: Cube) -> list[Ancestor]:
    survey = {key: cube.attributes[key] for key in ("survey", "simulated", "scale_rule", "scale_arcsec_per_px")}
    return [
        Ancestor(kind="catalog", name=str(entry["name"]), details={**survey, **entry})
        for entry in cube.attributes["catalogs"]
    ]
