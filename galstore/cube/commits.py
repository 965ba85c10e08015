"""Commits: how a cube changes, one whole step at a time, whoever else is writing.

A change is a function of a session at the tip. It is applied and committed; if another writer came first, it is
applied again to the new tip, so that it always sees what it changes. Icechunk alone loses acknowledged commits on a
local folder when several processes commit at once (26 of 100 were lost with four writers), so there a cross-process
file lock is held while a change is applied and committed. On S3 the service's compare-and-swap decides.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
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

from schemas.errors import StoreBusyError, StoreError, StoreNotFoundError

BRANCH = "main"
LOCK_TIMEOUT_S = 600
CREATION_S = 3.0
"""A repository on an object store that somebody else began is there within this time, or never."""
MANIFEST_SPLIT_CHUNKS = 1024
"""Chunks of one manifest along `object`: unsplit, a commit costs 3 ms at 1 k chunks but 83 ms at 65 k."""

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


class _OvertakenError(Exception):
    """Another writer committed between opening and committing."""


def create_repository(path: str) -> icechunk.Repository:
    """A repository in a local folder or under `s3://bucket/prefix`: a new, empty one, unless there is one already.

    Whoever creates a local one holds `write_lock`.

    Raises
    ------
    StoreError
        Other files are in the way.
    """
    with _storage_errors(path):
        if not _has_created(path):
            taken_over = icechunk.Repository.open(_storage(path), config=_config())
            if _is_empty(taken_over) and icechunk.Repository.fetch_config(_storage(path)) is None:
                # a run that was killed while creating may have left the branch and no configuration
                taken_over.save_config()
        return icechunk.Repository.open(_storage(path))


def _has_created(path: str) -> bool:
    """Create a repository, unless there is one: of a run that was killed, or ours, if only the answer got lost."""
    if icechunk.Repository.exists(_storage(path)):
        return False
    try:
        _create(path)
    except icechunk.IcechunkError as error:
        if _comes_about(path):
            return False
        if "clean prefix" in str(error):
            raise _in_the_way(path, _first_line(error)) from error
        raise
    return True


def _comes_about(path: str) -> bool:
    """Whether there is a repository now or soon: on an object store another process may be half-way through."""
    polling = Retrying(
        retry=retry_if_result(lambda there: not there),
        stop=stop_after_delay(CREATION_S if is_remote(path) else 0),
        wait=wait_fixed(0.1),
        retry_error_callback=lambda _: False,
    )
    return bool(polling(icechunk.Repository.exists, _storage(path)))


def _create(path: str) -> None:
    if is_remote(path):
        icechunk.Repository.create(_storage(path), config=_config())
        return
    # half of a repository could neither be opened nor created: a local one appears as a whole
    folder = Path(path).expanduser()
    begun = folder.with_name(f"{folder.name}.begun")
    if begun.exists():
        shutil.rmtree(begun)
    icechunk.Repository.create(_storage(str(begun)), config=_config())
    try:
        begun.rename(folder)
    except OSError as error:
        shutil.rmtree(begun)
        raise _in_the_way(path, str(error.strerror)) from error


def _in_the_way(path: str, what: str) -> StoreError:
    return StoreError(
        f"there is no cube at {path}, but other files are in the way, perhaps of a run that was killed while creating "
        f"it ({what}): delete them, or use another store.path"
    )


def open_repository(path: str) -> icechunk.Repository:
    """The repository at this place.

    Raises
    ------
    StoreNotFoundError
        There is none, or nothing was committed to it yet.
    """
    repository = _open(path)
    with _storage_errors(path):
        if _is_empty(repository):
            raise _not_found(path)
    return repository


def repository_exists(path: str) -> bool:
    """Whether a repository was created at this place, and its first commit made."""
    try:
        open_repository(path)
    except StoreNotFoundError:
        return False
    return True


def _open(path: str) -> icechunk.Repository:
    if not is_remote(path) and not Path(path).expanduser().is_dir():
        raise _not_found(path)
    with _storage_errors(path):
        if not icechunk.Repository.exists(_storage(path)):
            raise _not_found(path)
        return icechunk.Repository.open(_storage(path))


def _is_empty(repository: icechunk.Repository) -> bool:
    return next(iter(repository.ancestry(branch=BRANCH))).parent_id is None


def _not_found(path: str) -> StoreNotFoundError:
    return StoreNotFoundError(f"there is no cube at {path}: run `galstore ingest RECIPE` first, or mend store.path")


def is_remote(path: str) -> bool:
    """Whether a cube's place is an object store, and not a folder of this machine."""
    return "://" in path


def stored_bytes(path: str) -> int:
    """Bytes of a cube's files, all snapshots; on an object store those of its chunks."""
    if is_remote(path):
        return int(open_repository(path).total_chunks_storage())
    return sum(file.stat().st_size for file in Path(path).expanduser().rglob("*") if file.is_file())


@contextmanager
def write_lock(path: str) -> Iterator[None]:
    """Hold the one right to commit to a local cube among all processes of this machine; nothing on S3."""
    if is_remote(path):
        yield
        return
    folder = Path(path).expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{folder}.lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise StoreBusyError(
            f"another process has been committing to {path} for {LOCK_TIMEOUT_S} s: see whether it hangs, then run "
            "the same command again"
        ) from error


def commit(
    path: str, change: Callable[[icechunk.Session], _Result], *, message: str, metadata: Mapping[str, object]
) -> _Result:
    """Apply a change to the tip and commit it; a change that touches nothing makes no commit.

    Parameters
    ----------
    path
        Place of the cube.
    change
        Writes into a session at the tip. It is called again with a newer one if another writer came first, so it must
        decide by what the session holds and leave nothing behind elsewhere.
    message, metadata
        Kept with the commit, with a `commit_id` by which a commit whose answer was lost is recognised.

    Returns
    -------
    object
        What the last call of `change` returned.

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
    with write_lock(path), _storage_errors(path):
        session = _open(path).writable_session(BRANCH)
        base = session.snapshot_id
        _log.debug("step opened: %s", message)
        result = change(session)
        _log.debug("step changed: %s", message)
        if not session.has_uncommitted_changes:
            return result
        try:
            session.commit(message, metadata)
        except (icechunk.ConflictError, icechunk.IcechunkError) as error:
            # an answer that got lost on its way back looks like a conflict with ourselves
            if not _has_landed(path, str(metadata["commit_id"]), since=base):
                if isinstance(error, icechunk.ConflictError):
                    raise _OvertakenError from error
                raise
        _log.debug("step committed: %s", message)
        return result


def _has_landed(path: str, commit_id: str, *, since: str) -> bool:
    for ancestor in _open(path).ancestry(branch=BRANCH):
        if ancestor.id == since:
            return False
        if ancestor.metadata.get("commit_id") == commit_id:
            return True
    return False


def _storage(path: str) -> icechunk.Storage:
    # icechunk warns at every opening that local folders are unsafe with several writers: the lock above is the answer
    icechunk.set_logs_filter("warn,icechunk::storage::object_store=error")
    if not is_remote(path):
        return icechunk.local_filesystem_storage(str(Path(path).expanduser()))
    place = urlsplit(path)
    if place.scheme != "s3" or not place.netloc or not place.path.strip("/"):
        raise StoreError(f"cubes live in local folders or under s3://bucket/prefix, got {path!r}: mend store.path")
    # credentials come from the environment or the standard AWS files, and are never written anywhere
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return icechunk.s3_storage(
        bucket=place.netloc,
        prefix=place.path.strip("/"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=endpoint is not None,
        from_env=True,
    )


@contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    """What a disk or an object store refuses (no space, no bucket, no right) as an error of galstore's own."""
    try:
        yield
    except icechunk.IcechunkError as error:
        if not is_remote(path):
            raise StoreError(
                f"the cube at {path} cannot be read or written ({_first_line(error)}): see whether the disk is full or "
                "its files were changed by hand"
            ) from error
        raise StoreError(
            f"the object store of {path} refuses or does not answer ({_first_line(error)}): check the bucket, "
            "AWS_ENDPOINT_URL, AWS_REGION, and the credentials in the environment or the AWS files"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip(" x│|") for line in str(error).splitlines() if line.strip(" x│|")), type(error).__name__)


def _config() -> icechunk.RepositoryConfig:
    config = icechunk.RepositoryConfig.default()
    config.inline_chunk_threshold_bytes = 0  # small chunks inside manifests would make every commit carry them
    along_object: dict[Any, int] = {icechunk.ManifestSplitDimCondition.DimensionName("object"): MANIFEST_SPLIT_CHUNKS}
    config.manifest = icechunk.ManifestConfig(
        splitting=icechunk.ManifestSplittingConfig.from_dict({icechunk.ManifestSplitCondition.AnyArray(): along_object})
    )
    return config
