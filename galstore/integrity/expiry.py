"""Expiry: old snapshots are forgotten, and the bytes that nothing else uses are freed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk

from galstore.cube.commits import is_remote, open_repository, write_lock
from galstore.cube.labels import keep_label_versions, label_tag
from galstore.cube.reader import open_cube
from schemas.errors import ContractError, StoreBusyError, StoreError

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """What is gone: snapshots of the history; files of any kind, and their bytes."""

    n_snapshots_expired: int
    n_objects_deleted: int
    bytes_freed: int


def expire_snapshots(path: str, *, keep: timedelta, grace: timedelta = timedelta(days=1)) -> Expired:
    """Forget snapshots that are older than `keep`, and delete what no snapshot uses any more.

    The last commit stays, and so does every snapshot with a tag, such as superseded versions of the labels. Others
    cannot be read any more, even by readers who have one open.

    Parameters
    ----------
    path
        Place of the cube.
    keep
        Age up to which snapshots stay.
    grace
        Files younger than this stay, whoever uses them. A run under way has written chunks that no snapshot uses yet,
        and reads the snapshot from which it started; both are younger than the run. Zero is for when nobody writes.

    Returns
    -------
    Expired
        Counts.

    Raises
    ------
    StoreBusyError
        A run has just changed labels and not yet tagged the version before.
    StoreError
        The cube cannot be read.
    """
    keep_label_versions(path)
    with write_lock(path):
        repository = open_repository(path)
        _require_tagged_labels(path, repository)
        now = datetime.now(UTC)
        before = _history(repository)
        try:
            repository.expire_snapshots(now - keep)
            freed = repository.garbage_collect(now - grace)
        except icechunk.IcechunkError as error:
            raise StoreError(
                f"old snapshots of {path} cannot be expired ({error}): see what `galstore verify` finds"
            ) from error
        n_drafts, draft_bytes = _delete_drafts(path, now - grace)
        n_files = freed.chunks_deleted + freed.manifests_deleted + freed.snapshots_deleted
        n_files += freed.attributes_deleted + freed.transaction_logs_deleted
        return Expired(
            n_snapshots_expired=len(before - _history(open_repository(path))),
            n_objects_deleted=n_files + n_drafts,
            bytes_freed=freed.bytes_deleted + draft_bytes,
        )


def parse_keep(text: str) -> timedelta:
    """A duration in hours, days or weeks.

    Raises
    ------
    ContractError
        It has another form, or more than four digits.

    Examples
    --------
    >>> parse_keep("30d"), parse_keep("12h"), parse_keep("4w"), parse_keep("0d")
    (datetime.timedelta(days=30), datetime.timedelta(seconds=43200), datetime.timedelta(days=28), datetime.timedelta(0))
    >>> parse_keep("a month")
    Traceback (most recent call last):
    schemas.errors.ContractError: 'a month' is no duration: give a whole number of hours, days or weeks, as 12h, ...
    """
    match = re.fullmatch(r"([0-9]{1,4})([hdw])", text.strip())
    if match is None:
        raise ContractError(
            f"{text!r} is no duration: give a whole number of hours, days or weeks, as 12h, 30d, 4w, or 0d for nothing"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _require_tagged_labels(path: str, repository: icechunk.Repository) -> None:
    """Refuse while a superseded version of the labels has no tag: expiring its snapshot would lose it."""
    cube, tags = open_cube(path), repository.list_tags()
    for view in cube.group_names("labels"):
        for entry in cube.read_label_versions(view)[1:]:
            tag = label_tag(view, entry["version"] - 1)
            if tag not in tags:
                raise StoreBusyError(
                    f"a run has just changed the labels of {path}, and their version before has no tag {tag} yet: run "
                    "the same command again when it is done"
                )


def _history(repository: icechunk.Repository) -> set[str]:
    """Ids of all snapshots that a branch or a tag reaches."""
    starts = [{"branch": name} for name in repository.list_branches()]
    starts += [{"tag": name} for name in repository.list_tags()]
    return {snapshot.id for start in starts for snapshot in repository.ancestry(**start)}


def _delete_drafts(path: str, older_than: datetime) -> tuple[int, int]:
    """Delete what killed writers left of files that they had not yet renamed; Icechunk does not list them."""
    if is_remote(path):
        return 0, 0
    # Icechunk's local storage writes NAME#1, NAME#2 … and renames it to NAME
    drafts = [
        file
        for file in Path(path).expanduser().rglob("*#*")
        if re.search(r"#[0-9]+$", file.name) and file.stat().st_mtime < older_than.timestamp()
    ]
    n_bytes = sum(file.stat().st_size for file in drafts)
    for file in drafts:
        file.unlink(missing_ok=True)
    return len(drafts), n_bytes
