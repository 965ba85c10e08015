"""Expiry of old snapshots and deletion of the files that no snapshot uses."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk

from galstore.cube.commits import open_repository, write_lock
from galstore.cube.labels import label_tag, tag_label_versions
from galstore.cube.reader import open_cube
from galstore.cube.storage import is_remote
from galstore.integrity.checks.files import named_snapshots
from schemas.errors import ContractError, StoreBusyError, StoreError

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryResult:
    """Numbers of expired snapshots and of deleted files, and their bytes."""

    n_snapshots_expired: int
    n_objects_deleted: int
    bytes_freed: int


def expire_snapshots(path: str, *, keep: timedelta, grace: timedelta = timedelta(days=1)) -> ExpiryResult:
    """Expire snapshots older than `keep` and delete the files that no snapshot uses any more.

    The last commit and snapshots with a tag, such as superseded versions of the labels, stay. Expired snapshots can no
    longer be read, even by readers that have one open.

    Parameters
    ----------
    grace
        Age up to which unused files stay. A running process has written chunks that no snapshot uses yet, and reads
        the snapshot from which it started; both are younger than the run. Use zero only without writers.

    Raises
    ------
    StoreBusyError
        A run has just changed labels and not yet tagged the superseded version.
    StoreError
        The cube cannot be read.
    """
    tag_label_versions(path)
    with write_lock(path):
        repository = open_repository(path)
        _require_tagged_labels(path, repository)
        now = datetime.now(UTC)
        before = _reachable_snapshots(repository)
        try:
            repository.expire_snapshots(now - keep)
            freed = repository.garbage_collect(now - grace)
        except icechunk.IcechunkError as error:
            raise StoreError(
                f"old snapshots of {path} cannot be expired ({error}): run `galstore verify` to find the damage"
            ) from error
        n_drafts, draft_bytes = _delete_drafts(path, now - grace)
        n_files = freed.chunks_deleted + freed.manifests_deleted + freed.snapshots_deleted
        n_files += freed.attributes_deleted + freed.transaction_logs_deleted
        n_expired = len(before - _reachable_snapshots(open_repository(path)))
    n_deleted, bytes_freed = n_files + n_drafts, freed.bytes_deleted + draft_bytes
    logger.info("expired %d snapshots of %s and deleted %d files (%d bytes)", n_expired, path, n_deleted, bytes_freed)
    return ExpiryResult(n_snapshots_expired=n_expired, n_objects_deleted=n_deleted, bytes_freed=bytes_freed)


def parse_duration(text: str) -> timedelta:
    """Parse a duration in hours, days or weeks.

    Raises
    ------
    ContractError
        The text has another form, or more than four digits.

    Examples
    --------
    >>> [str(parse_duration(text)) for text in ("30d", "12h", "4w", "0d")]
    ['30 days, 0:00:00', '12:00:00', '28 days, 0:00:00', '0:00:00']
    """
    match = re.fullmatch(r"([0-9]{1,4})([hdw])", text.strip())
    if match is None:
        raise ContractError(
            f"{text!r} is not a duration: give a whole number of hours, days or weeks, such as 12h, 30d, 4w or 0d"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _require_tagged_labels(path: str, repository: icechunk.Repository) -> None:
    """Raise if a superseded version of the labels lacks its tag: expiring its snapshot would lose it."""
    cube, tags = open_cube(path), repository.list_tags()
    for view in cube.group_names("labels"):
        for entry in cube.read_label_versions(view)[1:]:
            tag = label_tag(view, entry["version"] - 1)
            if tag not in tags:
                raise StoreBusyError(
                    f"a run has just changed the labels of {path} and not yet added the tag {tag} of the previous "
                    "version: run the same command again after it ends"
                )


def _reachable_snapshots(repository: icechunk.Repository) -> set[str]:
    return {snapshot.id for start in named_snapshots(repository) for snapshot in repository.ancestry(**start)}


def _delete_drafts(path: str, older_than: datetime) -> tuple[int, int]:
    """Delete unfinished files of killed writers, which Icechunk does not list; return their number and bytes."""
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
