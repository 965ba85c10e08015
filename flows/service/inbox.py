"""Inbox: catalogs that are put into a folder are scored without a command.

A file that has stopped growing moves to `under-way/`, named by its content, and a run of the deployment `score` starts
for it. When that has ended, the file moves on: to `done/`, to `failed/` with the error as a text beside it, or back
into the inbox if it was written to meanwhile. Where a file lies is all the state there is, so that a look that was
killed is repeated by the next one; Prefect starts one run a content and try, however often it is asked.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.runtime import console, load_recipe

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

UNDER_WAY, DONE, FAILED = "under-way", "done", "failed"
NOTE = ".note.json"
SETTLE_S = 5.0
"""A file whose size and time of change stay the same for so long has arrived."""
MOST_TRIES = 12
"""Of a catalog whose runs fail for what may pass; with the pauses, half a day."""
LONGEST_PAUSE_S = 3600.0
PASSING = ("ServiceError", "ServiceDownError", "StoreBusyError")
"""Errors of galstore after which another try may succeed, as Prefect's state messages name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is known of a catalog, kept beside it.

    Attributes
    ----------
    dropped_as
        Its name in the inbox.
    attempt
        Counted from 1.
    not_before
        Time of the next try, seconds since 1970.
    """

    dropped_as: str
    sha256: str
    attempt: int = 1
    not_before: float = 0.0
    flow_run: str = ""
    told: str = ""

    @property
    def key(self) -> str:
        """Prefect starts one run a key."""
        return self.sha256 if self.attempt == 1 else f"{self.sha256}-{self.attempt}"


def inbox_folder(recipe: str, overrides: list[str] | None = None, folder: str | None = None) -> Path:
    """The folder that is watched: the one that is given, or `inbox` in the recipe's output folder."""
    return Path(folder) if folder else load_recipe(recipe, overrides).output.folder / "inbox"


@flow(name="inbox", timeout_seconds=600)
def inbox(
    recipe: str = "demo", overrides: list[str] | None = None, folder: str | None = None, settle_s: float = SETTLE_S
) -> dict[str, int]:
    """Look into the inbox once: start scoring what has arrived, and put away what is finished.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    folder
        What is watched; `inbox` in the recipe's output folder by default.
    settle_s
        A file that stays the same for so long, in seconds, has arrived.

    Returns
    -------
    dict
        How many catalogs arrived, are under way, were done and failed.
    """
    watched = inbox_folder(recipe, overrides, folder).absolute()
    for name in ("", UNDER_WAY, DONE, FAILED):
        (watched / name).mkdir(parents=True, exist_ok=True)
    counts = {"arrived": 0, UNDER_WAY: 0, DONE: 0, FAILED: 0}
    for path in arrived_files(watched, settle_s):
        take_in(watched, path)
        counts["arrived"] += 1
    for path in sorted(files_in(watched / UNDER_WAY)):
        counts[follow(watched, path, recipe, overrides)] += 1
    console.print("inbox: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return counts


def files_in(folder: Path) -> Iterator[Path]:
    """Catalogs of a folder: no notes, and nothing that a copying program has not finished (`.name`, `name.part`)."""
    for path in folder.iterdir():
        unfinished = path.name.startswith(".") or path.suffix in {
            ".part",
            ".partial",
            ".tmp",
            ".filepart",
            ".crdownload",
        }
        if path.is_file() and not unfinished and not path.name.endswith((NOTE, ".error.txt")):
            yield path


def arrived_files(watched: Path, settle_s: float) -> list[Path]:
    """Files that stay the same while one looks."""
    before = {path: _appearance(path) for path in files_in(watched)}
    if before:
        time.sleep(settle_s)
    return sorted(path for path, seen in before.items() if _appearance(path) == seen and seen is not None)


def _appearance(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def take_in(watched: Path, path: Path) -> Path:
    """Move a catalog to those under way; one that had failed gets a new try, since somebody put it there again."""
    digest = _sha256(path)
    name = f"{path.stem}-{digest[:8]}{path.suffix}"
    note = Note(dropped_as=path.name, sha256=digest)
    earlier = read_note(watched / FAILED / name)
    if earlier is not None:
        note = replace(note, attempt=earlier.attempt + 1)
    taken = watched / UNDER_WAY / name
    if not taken.exists():
        _write_note(taken, note)
    path.replace(taken)
    return taken


def follow(watched: Path, path: Path, recipe: str, overrides: list[str] | None) -> str:
    """Start the run of a catalog under way, or see how it does; where the catalog is now."""
    from prefect.deployments import run_deployment

    note = read_note(path) or Note(dropped_as=path.name, sha256=_sha256(path))
    if time.time() < note.not_before:
        return UNDER_WAY
    run: Any = run_deployment(
        "score/score",
        parameters={"recipe": recipe, "overrides": overrides or [], "catalog": str(path)},
        idempotency_key=note.key,
        flow_run_name=f"{path.stem}, try {note.attempt}",
        timeout=0,
        as_subflow=False,
    )
    note = replace(note, flow_run=str(run.id))
    state: State | None = run.state
    if state is None or not state.is_final():
        _write_note(path, note)
        return UNDER_WAY
    if state.is_completed():
        return put_away(watched, path, note, DONE)
    note = replace(note, told=f"{state.name}: {state.message}")
    if may_pass(state) and note.attempt < MOST_TRIES:
        pause_s = min(LONGEST_PAUSE_S, 60.0 * 2.0 ** (note.attempt - 1))
        _write_note(path, replace(note, attempt=note.attempt + 1, not_before=time.time() + pause_s))
        return UNDER_WAY
    return put_away(watched, path, note, FAILED)


def may_pass(state: State) -> bool:
    """Whether another try may succeed: the run was killed, hung, or a service failed; not if the catalog is bad."""
    return (
        state.is_crashed() or state.name == "TimedOut" or any(f"{name}:" in (state.message or "") for name in PASSING)
    )


def put_away(watched: Path, path: Path, note: Note, where: str) -> str:
    """Move a catalog to where it ends, with its note, unless it is not the one any more that the run saw."""
    if _sha256(path) != note.sha256:
        # it was still being written to: what came since is looked at as a new catalog
        _note_of(path).unlink(missing_ok=True)
        path.replace(_unused(watched / note.dropped_as))
        return UNDER_WAY
    target = watched / where / path.name
    _write_note(target, note)
    if where == FAILED:
        text = f"{note.dropped_as} was not scored.\n{note.told}\nFlow run {note.flow_run}, try {note.attempt}.\n"
        target.with_name(f"{target.name}.error.txt").write_text(
            f"{text}Mend it and put it into the inbox again.\n", encoding="utf-8"
        )
    path.replace(target)
    _note_of(path).unlink(missing_ok=True)
    return where


def _unused(path: Path) -> Path:
    n = 1
    candidate = path
    while candidate.exists():
        candidate, n = path.with_name(f"{path.stem}-{n}{path.suffix}"), n + 1
    return candidate


def _sha256(path: Path) -> str:
    # not galstore's: a look every minute shall not import it
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + NOTE)


def read_note(path: Path) -> Note | None:
    """What is known of a catalog; None where nothing is, or what was written is torn."""
    try:
        return Note(**json.loads(_note_of(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write_note(path: Path, note: Note) -> None:
    partial = path.with_name(f".{path.name}{NOTE}")
    partial.write_text(json.dumps(asdict(note), indent=2) + "\n", encoding="utf-8")
    partial.replace(_note_of(path))
