"""Inbox: a folder whose catalogs are scored without a command.

A file that has stopped growing moves to `under-way/`, named by its content, and a run of the deployment `score` starts
for it. When the run has ended, the file moves to `done/`, to `failed/` with the error as a text beside it, or back into
the inbox if it has changed in between. The location of a file is the only state, so an interrupted look is repeated by
the next one; Prefect starts one run for each content and attempt, however often it is requested.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prefect import flow

from flows.runtime import load_recipe
from flows.service.deployed_flows import log_to_prefect
from galstore.atomic_write import atomic_file

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

UNDER_WAY, DONE, FAILED = "under-way", "done", "failed"
ENTRY_SUFFIX = ".note.json"
UNFINISHED_SUFFIXES = {".part", ".partial", ".tmp", ".filepart", ".crdownload"}
"""Files that a program is still copying or downloading."""
SETTLE_S = 5.0
"""A file has arrived if its size and time of change stay the same for this long."""
MOST_ATTEMPTS = 12
"""Maximum number of runs for a catalog if they fail with a temporary error; half a day with the pauses."""
LONGEST_PAUSE_S = 3600.0
TEMPORARY_ERRORS = ("ServiceError", "ServiceDownError", "StoreBusyError")
"""Errors of galstore after which another attempt may succeed, as named in Prefect's state messages."""


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxEntry:
    """State of one catalog, stored beside it."""

    dropped_as: str  # name in the inbox
    sha256: str
    attempt: int = 1
    not_before: float = 0.0  # time of the next attempt, seconds since 1970
    flow_run: str = ""
    message: str = ""  # state and message of the last run that failed

    @property
    def key(self) -> str:
        """Idempotency key of the run."""
        return self.sha256 if self.attempt == 1 else f"{self.sha256}-{self.attempt}"


def inbox_folder(recipe: str, overrides: list[str] | None = None, folder: str | None = None) -> Path:
    """Return `folder` if it is given, else `inbox` in the recipe's output folder."""
    return Path(folder) if folder else load_recipe(recipe, overrides).output.folder / "inbox"


@flow(name="inbox", timeout_seconds=600)
def inbox(
    recipe: str = "demo", overrides: list[str] | None = None, folder: str | None = None, settle_s: float = SETTLE_S
) -> dict[str, int]:
    """Look into the inbox once: start scoring catalogs that have arrived, and move those with a finished run.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    folder
        Inbox; by default `inbox` in the recipe's output folder.
    settle_s
        Seconds without a change after which a file has arrived.
    """
    log_to_prefect()
    watched = inbox_folder(recipe, overrides, folder).absolute()
    for name in ("", UNDER_WAY, DONE, FAILED):
        (watched / name).mkdir(parents=True, exist_ok=True)
    counts = {"arrived": 0, UNDER_WAY: 0, DONE: 0, FAILED: 0}
    for path in arrived_files(watched, settle_s):
        accept(watched, path)
        counts["arrived"] += 1
    for path in sorted(files_in(watched / UNDER_WAY)):
        counts[advance(watched, path, recipe, overrides)] += 1
    logger.info("inbox: %s", ", ".join(f"{n} {state}" for state, n in counts.items()))
    return counts


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the catalogs of a folder, without entries and unfinished copies (`.name`, `name.part`)."""
    for path in folder.iterdir():
        unfinished = path.name.startswith(".") or path.suffix in UNFINISHED_SUFFIXES
        if path.is_file() and not unfinished and not path.name.endswith((ENTRY_SUFFIX, ".error.txt")):
            yield path


def arrived_files(watched: Path, settle_s: float) -> list[Path]:
    """Return the files that do not change for `settle_s` seconds."""
    before = {path: _size_and_time(path) for path in files_in(watched)}
    if before:
        time.sleep(settle_s)
    return sorted(path for path, seen in before.items() if _size_and_time(path) == seen and seen is not None)


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def accept(watched: Path, path: Path) -> Path:
    """Move a catalog to `under-way/`; one that had failed gets a new attempt, because a person put it there again."""
    digest = _sha256(path)
    name = f"{path.stem}-{digest[:8]}{path.suffix}"
    earlier = read_entry(watched / FAILED / name)
    entry = InboxEntry(dropped_as=path.name, sha256=digest, attempt=1 if earlier is None else earlier.attempt + 1)
    accepted = watched / UNDER_WAY / name
    if not accepted.exists():
        _write_entry(accepted, entry)
    path.replace(accepted)
    return accepted


def advance(watched: Path, path: Path, recipe: str, overrides: list[str] | None) -> str:
    """Start the run of a catalog or check its state; return the name of its present folder."""
    from prefect.deployments import run_deployment

    entry = read_entry(path) or InboxEntry(dropped_as=path.name, sha256=_sha256(path))
    if time.time() < entry.not_before:
        return UNDER_WAY
    run = cast(
        "FlowRun",
        run_deployment(
            "score/score",
            parameters={"recipe": recipe, "overrides": overrides or [], "catalog": str(path)},
            idempotency_key=entry.key,
            flow_run_name=f"{path.stem}, attempt {entry.attempt}",
            timeout=0,
            as_subflow=False,
        ),
    )
    entry = replace(entry, flow_run=str(run.id))
    state = run.state
    if state is None or not state.is_final():
        _write_entry(path, entry)
        return UNDER_WAY
    if state.is_completed():
        return finish(watched, path, entry, DONE)
    entry = replace(entry, message=f"{state.name}: {state.message}")
    if is_temporary(state) and entry.attempt < MOST_ATTEMPTS:
        pause_s = min(LONGEST_PAUSE_S, 60.0 * 2.0 ** (entry.attempt - 1))
        _write_entry(path, replace(entry, attempt=entry.attempt + 1, not_before=time.time() + pause_s))
        return UNDER_WAY
    return finish(watched, path, entry, FAILED)


def is_temporary(state: State) -> bool:
    """Return True if another attempt may succeed: the run was killed, timed out, or a service failed."""
    message = state.message or ""
    return state.is_crashed() or state.name == "TimedOut" or any(f"{name}:" in message for name in TEMPORARY_ERRORS)


def finish(watched: Path, path: Path, entry: InboxEntry, target: str) -> str:
    """Move a catalog and its entry to `target`, or back into the inbox if its content has changed since the run."""
    if _sha256(path) != entry.sha256:
        # the file grew after it was accepted: it is handled as a new catalog
        _entry_path(path).unlink(missing_ok=True)
        path.replace(_unused(watched / entry.dropped_as))
        return UNDER_WAY
    destination = watched / target / path.name
    _write_entry(destination, entry)
    if target == FAILED:
        destination.with_name(f"{destination.name}.error.txt").write_text(
            f"{entry.dropped_as} was not scored.\n{entry.message}\nFlow run {entry.flow_run}, attempt "
            f"{entry.attempt}.\nFix the file and put it into the inbox again.\n",
            encoding="utf-8",
        )
    path.replace(destination)
    _entry_path(path).unlink(missing_ok=True)
    return target


def _unused(path: Path) -> Path:
    candidates = itertools.chain([path], (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in itertools.count(1)))
    return next(candidate for candidate in candidates if not candidate.exists())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry_path(path: Path) -> Path:
    return path.with_name(path.name + ENTRY_SUFFIX)


def read_entry(path: Path) -> InboxEntry | None:
    """Return the stored entry of a catalog, or None if it is missing or invalid."""
    try:
        # entries of older versions have `told` for `message`
        stored = json.loads(_entry_path(path).read_text(encoding="utf-8"))
        return InboxEntry(**{"message" if name == "told" else name: value for name, value in stored.items()})
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def _write_entry(path: Path, entry: InboxEntry) -> None:
    with atomic_file(_entry_path(path)) as draft:
        draft.write_text(json.dumps(asdict(entry), indent=2) + "\n", encoding="utf-8")
