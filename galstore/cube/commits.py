"""Atomic commits to a cube, with other writers committing at the same time.

A change is a function of a session at the tip. It is applied and committed. If another writer came first, it is applied
to the new tip, so that it always sees what it changes. Icechunk alone loses acknowledged commits on a local folder when
several processes commit at once (26 of 100 were lost with four writers). A cross-process file lock prevents that there;
on S3 the service's compare-and-swap does.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import icechunk
from filelock import FileLock, Timeout
from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from galstore.cube.storage import first_line, is_remote, open_storage, repository_config, storage_errors
from schemas.errors import StoreBusyError, StoreError, StoreNotFoundError

BRANCH = "main"
LOCK_TIMEOUT_S = 600
LOGGED_WAIT_S = 1.0
"""Longer waits for the lock are logged."""
CREATION_S = 3.0
"""A repository that another process creates on an object store appears within this time, or never."""

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


class _OvertakenError(Exception):
    """Another writer committed between opening and committing."""


def create_repository(path: str) -> icechunk.Repository:
    """Open the repository in a local folder or under `s3://bucket/prefix`, or create an empty one.

    The caller holds `write_lock`. Other files in the way raise `StoreError`.
    """
    with storage_errors(path):
        if not _has_created(path):
            existing = icechunk.Repository.open(open_storage(path), config=repository_config())
            if _is_empty(existing) and icechunk.Repository.fetch_config(open_storage(path)) is None:
                # a run that was killed while creating may have left the branch without a configuration
                existing.save_config()
        return icechunk.Repository.open(open_storage(path))


def _has_created(path: str) -> bool:
    """Create a repository unless one exists, and return whether it did.

    An existing one may come from a killed run, or from this call if only the response was lost.
    """
    if icechunk.Repository.exists(open_storage(path)):
        return False
    try:
        _create(path)
    except icechunk.IcechunkError as error:
        if _appears(path):
            return False
        if "clean prefix" in str(error):
            raise _blocked_error(path, first_line(error)) from error
        raise
    return True


def _appears(path: str) -> bool:
    """Return whether a repository exists, or appears soon: another process may be creating it on an object store."""
    polling = Retrying(
        retry=retry_if_result(lambda exists: not exists),
        stop=stop_after_delay(CREATION_S if is_remote(path) else 0),
        wait=wait_fixed(0.1),
        retry_error_callback=lambda _: False,
    )
    return bool(polling(icechunk.Repository.exists, open_storage(path)))


def _create(path: str) -> None:
    if is_remote(path):
        icechunk.Repository.create(open_storage(path), config=repository_config())
        return
    # half a repository could neither be opened nor created, so a local one appears as a whole
    folder = Path(path).expanduser()
    draft = folder.with_name(f"{folder.name}.begun")
    if draft.exists():
        shutil.rmtree(draft)
    icechunk.Repository.create(open_storage(str(draft)), config=repository_config())
    try:
        draft.rename(folder)
    except OSError as error:
        shutil.rmtree(draft)
        raise _blocked_error(path, str(error.strerror)) from error


def _blocked_error(path: str, reason: str) -> StoreError:
    return StoreError(
        f"no cube was found at {path}, but other files are in the way ({reason}), perhaps of a run that was killed "
        "while creating it: delete them, or use another store.path"
    )


def open_repository(path: str) -> icechunk.Repository:
    """Open the repository at `path`; without one, or before its first commit, raise `StoreNotFoundError`."""
    repository = _open(path)
    with storage_errors(path):
        if _is_empty(repository):
            raise _not_found(path)
    return repository


def repository_exists(path: str) -> bool:
    """Return whether a repository exists and has its first commit."""
    try:
        open_repository(path)
    except StoreNotFoundError:
        return False
    return True


def _open(path: str) -> icechunk.Repository:
    if not is_remote(path) and not Path(path).expanduser().is_dir():
        raise _not_found(path)
    with storage_errors(path):
        if not icechunk.Repository.exists(open_storage(path)):
            raise _not_found(path)
        return icechunk.Repository.open(open_storage(path))


def _is_empty(repository: icechunk.Repository) -> bool:
    return next(iter(repository.ancestry(branch=BRANCH))).parent_id is None


def _not_found(path: str) -> StoreNotFoundError:
    return StoreNotFoundError(f"no cube was found at {path}: run `galstore ingest RECIPE` first, or change store.path")


def stored_bytes(path: str) -> int:
    """Return the bytes of a cube's files over all snapshots; on an object store, those of its chunks."""
    if is_remote(path):
        return int(open_repository(path).total_chunks_storage())
    return sum(file.stat().st_size for file in Path(path).expanduser().rglob("*") if file.is_file())


@contextmanager
def write_lock(path: str) -> Iterator[None]:
    """Hold the lock of a local cube among all processes of this machine; do nothing on S3."""
    if is_remote(path):
        yield
        return
    folder = Path(path).expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    try:
        with FileLock(f"{folder}.lock", timeout=LOCK_TIMEOUT_S):
            waited_s = time.monotonic() - started_s
            if waited_s > LOGGED_WAIT_S:
                logger.info("waited %.1f s for the lock of %s", waited_s, path)
            yield
    except Timeout as error:
        raise StoreBusyError(
            f"another process has been committing to {path} for {LOCK_TIMEOUT_S} s: check whether it hangs, then run "
            "the same command again"
        ) from error


def commit(
    path: str, change: Callable[[icechunk.Session], _Result], *, message: str, metadata: Mapping[str, object]
) -> _Result:
    """Apply a change to the tip and commit it. A change that writes nothing makes no commit.

    Message and metadata are stored with the commit, together with a `commit_id` that identifies a commit whose response
    was lost.

    Parameters
    ----------
    change
        Writes into a session at the tip. It is called with a newer session if another writer came first, so it must
        depend on the session only and leave no other side effects. The result of its last call is returned.

    Raises
    ------
    StoreBusyError
        Other writers came first for ten minutes.
    """
    commit_id = uuid4().hex
    retrying = Retrying(
        retry=retry_if_exception_type(_OvertakenError),
        stop=stop_after_delay(LOCK_TIMEOUT_S),
        wait=wait_random_exponential(multiplier=0.05, max=5),
        reraise=True,
    )
    try:
        result: _Result = retrying(_commit_once, path, change, message, {**metadata, "commit_id": commit_id})
    except _OvertakenError as error:
        raise StoreBusyError(
            f"other writers have kept {path} busy for {LOCK_TIMEOUT_S} s: run the same command again, or fewer at once"
        ) from error
    return result


def _commit_once(
    path: str, change: Callable[[icechunk.Session], _Result], message: str, metadata: dict[str, object]
) -> _Result:
    with write_lock(path), storage_errors(path):
        session = _open(path).writable_session(BRANCH)
        base = session.snapshot_id
        logger.debug("step opened: %s", message)
        result = change(session)
        logger.debug("step changed: %s", message)
        if not session.has_uncommitted_changes:
            return result
        try:
            session.commit(message, metadata)
        except (icechunk.ConflictError, icechunk.IcechunkError) as error:
            # a commit whose response was lost looks like a conflict with another writer
            if not _is_committed(path, str(metadata["commit_id"]), since=base):
                if isinstance(error, icechunk.ConflictError):
                    logger.info("another writer came first at %s: apply '%s' to the new tip", path, message)
                    raise _OvertakenError from error
                raise
            logger.warning("the response to commit '%s' to %s was lost, but the commit is there", message, path)
        logger.debug("step committed: %s", message)
        return result


def _is_committed(path: str, commit_id: str, *, since: str) -> bool:
    for ancestor in _open(path).ancestry(branch=BRANCH):
        if ancestor.id == since:
            return False
        if ancestor.metadata.get("commit_id") == commit_id:
            return True
    return False
