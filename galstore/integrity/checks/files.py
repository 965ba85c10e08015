"""Chunk files and snapshots: whether every file is whole, and which snapshots use it.

Which file belongs to which snapshot is read off Icechunk's manifests: a chunk's file is named by the 12 bytes (in
Crockford's base 32) by which a manifest refers to it, so that looking for these bytes needs no more of the format than
its header (https://icechunk.io/en/stable/reference/spec/, the same in versions 1 and 2). A file that no snapshot uses
is garbage: it was left by a writer that was killed, or is being written. Icechunk writes a local file under another
name and renames it when it is whole; garbage may be bad after a power failure, and nobody will ever read it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import icechunk
import numpy as np
import pyarrow as pa
import zarr

from galstore.cube.commits import is_remote
from galstore.cube.labels import label_tag
from galstore.integrity.checks.state import (
    IMAGE_SHAPES,
)
from galstore.integrity.damaged_reads import first_line, in_order
from galstore.integrity.findings import Problem, ProblemKind

_MANIFEST_HEADER_BYTES = 39  # magic, implementation, spec version, file type; the last byte: 1 = zstd, 0 = as it is
_ID_CHARACTERS = 20
_TO_RFC_4648 = str.maketrans("0123456789ABCDEFGHJKMNPQRSTVWXYZ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


class History:
    """Snapshots that some branch or tag reaches, and this one, with the manifests of each."""

    def __init__(self, repository: icechunk.Repository, snapshot_id: str) -> None:
        self.snapshot_id = snapshot_id
        self.problems: list[Problem] = []
        self.snapshots: dict[str, Any] = {}
        self.array_of: dict[str, str] = {}
        """Path of the array by manifest."""
        self.manifests: dict[str, dict[str, int]] = {}
        """By snapshot: manifests, and how many chunks each refers to."""
        starts = [{"branch": name} for name in sorted(repository.list_branches())]
        starts += [{"tag": name} for name in sorted(repository.list_tags())]
        for start in [{"snapshot_id": snapshot_id}, *starts]:
            self._follow(repository, start)
        for one in self.snapshots:
            self._inspect(repository, one)

    @property
    def n_chunks(self) -> int:
        return sum(self.manifests.get(self.snapshot_id, {}).values())

    def _follow(self, repository: icechunk.Repository, start: dict[str, str]) -> None:
        try:
            for snapshot in repository.ancestry(**start):
                if snapshot.id in self.snapshots:
                    return
                self.snapshots[snapshot.id] = snapshot
        except icechunk.IcechunkError as error:
            name = " ".join(next(iter(start.items())))
            text = f"the history of {name} cannot be read to its end ({first_line(error)})"
            self.problems.append(Problem(kind=ProblemKind.HISTORY, path="snapshots", text=text))

    def _inspect(self, repository: icechunk.Repository, snapshot_id: str) -> None:
        try:
            raw: Any = repository.inspect_snapshot(snapshot_id)
        except icechunk.IcechunkError as error:
            text = f"the snapshot cannot be read ({first_line(error)})"
            self.problems.append(Problem(kind=ProblemKind.HISTORY, path=f"snapshots/{snapshot_id}", text=text))
            return
        # Icechunk 1 hands back JSON, Icechunk 2 what it says; both call it a help for tests, so only ids must be there
        tree: dict[str, Any] = json.loads(raw) if isinstance(raw, str) else raw
        self.manifests[snapshot_id] = {one["id"]: int(one.get("num_chunk_refs", 0)) for one in tree["manifests"]}
        for node in tree.get("nodes", ()):
            for one in node.get("manifest_refs") or ():
                self.array_of[one.get("id", "")] = str(node.get("path", "")).lstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """Chunk files of all snapshots: their sums, and which of them are damaged."""

    n_files: int = 0
    n_bytes: int = 0
    n_garbage: int = 0
    garbage_bytes: int = 0
    n_garbage_damaged: int = 0
    problems: list[Problem] = field(default_factory=list)


def check_files(history: History, path: str, pool: ThreadPoolExecutor) -> FileCheck:
    """Every chunk file of a local cube has the checksum with which it ends, and every one that is used is there."""
    if is_remote(path):
        return FileCheck()
    folder = Path(path).expanduser()
    # listed after the snapshots, so that what they use is in the list; what others commit meanwhile is garbage here
    sizes = _sizes(folder / "chunks")
    checks = in_order(pool, lambda name: _is_whole(folder / "chunks" / name), sizes, n_ahead=64)
    damaged = {name for name, whole in zip(sizes, checks, strict=True) if not whole}
    used = UsedFiles(history, folder, sizes)
    garbage = sizes.keys() - used.array_of.keys()
    problems = used.problems + [used.problem(name) for name in sorted(damaged - garbage)]
    if used.is_partial:
        # the manifest that refers to it may be among those that cannot be read
        problems += [used.problem(name) for name in sorted(damaged & garbage)]
    return FileCheck(
        n_files=len(sizes),
        n_bytes=sum(sizes.values()),
        n_garbage=len(garbage),
        garbage_bytes=sum(sizes[name] for name in garbage),
        n_garbage_damaged=len(damaged & garbage),
        problems=problems,
    )


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file; a writer may rename one between the listing and the look."""
    sizes = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            if entry.is_file():
                sizes[entry.name] = entry.stat().st_size
    return sizes


def _is_whole(file: Path) -> bool:
    """Whether a chunk file ends with the CRC-32C of the rest; one that is gone by now does not matter."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return len(content) > 4 and google_crc32c.value(content[:-4]) == int.from_bytes(content[-4:], "little")


class UsedFiles:
    """Which chunk files the snapshots use.

    Attributes
    ----------
    array_of
        Path of the array of each file that some snapshot uses.
    is_partial
        Some manifest could not be read.
    """

    def __init__(self, history: History, folder: Path, names: Iterable[str]) -> None:
        self.problems: list[Problem] = []
        self.array_of: dict[str, str] = {}
        self.is_partial = bool(history.problems)
        index = _ChunkIndex(names)
        files_of: dict[str, frozenset[str]] = {}
        current = history.manifests.get(history.snapshot_id, {})
        self.is_partial |= history.snapshot_id not in history.manifests
        for manifest, n_chunks in {one: n for ones in history.manifests.values() for one, n in ones.items()}.items():
            path = history.array_of.get(manifest, "an array")
            kind = ProblemKind.FILE if manifest in current else ProblemKind.HISTORY
            try:
                found = files_of[manifest] = index.files_in(folder / "manifests" / manifest)
            except (OSError, pa.ArrowInvalid) as error:
                self.is_partial = True
                text = f"this manifest of {path} cannot be read ({first_line(error)})"
                self.problems.append(Problem(kind=kind, path=f"manifests/{manifest}", text=text))
                continue
            self.array_of |= dict.fromkeys(found, path)
            if len(found) < n_chunks:
                text = f"{n_chunks - len(found):,} of {n_chunks:,} chunk files of {path} that it names are missing"
                self.problems.append(Problem(kind=kind, path=f"manifests/{manifest}", text=text))
        files = {
            one: frozenset().union(*(files_of.get(manifest, ()) for manifest in manifests))
            for one, manifests in history.manifests.items()
        }
        self.current = files.get(history.snapshot_id, frozenset())
        self.replaced = self._replaced(history, files)

    def _replaced(self, history: History, files: Mapping[str, frozenset[str]]) -> set[str]:
        """Files of images that a rebuild put others in place of."""
        replaced: set[str] = set()
        for one in history.snapshots.values():
            if one.metadata.get("operation") != "rebuild" or one.id not in files:
                continue
            base = one.metadata.get("base")
            # where the snapshot that it mended is expired, all older ones stand for it
            older = [base] if base in files else [
                other.id for other in history.snapshots.values() if other.written_at < one.written_at
            ]  # fmt: skip
            replaced |= frozenset().union(*(files.get(other, ()) for other in older)) - files[one.id]
        return {name for name in replaced if self.array_of[name] in IMAGE_SHAPES}

    def problem(self, name: str) -> Problem:
        """What a damaged file means."""
        text = "its bytes do not have the CRC-32C with which they end: it is a chunk"
        text += f" of {self.array_of[name]}" if name in self.array_of else ""
        if name in self.current:
            kind = ProblemKind.FILE
        elif name in self.replaced:
            kind, text = (
                ProblemKind.REPLACED,
                f"{text} that a rebuild has replaced: expire old snapshots (`galstore gc`)",
            )
        else:
            kind, text = ProblemKind.HISTORY, f"{text} that only other snapshots use: expire them (`galstore gc`)"
        return Problem(kind=kind, path=f"chunks/{name}", text=text)


class _ChunkIndex:
    """The ids behind the names of chunk files, to be looked for in manifests."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = {chunk_id: name for name in names if (chunk_id := _chunk_id(name))}
        self.heads = np.sort(np.frombuffer(b"".join(one[:8] for one in self.names), dtype="<u8"))

    def files_in(self, manifest: Path) -> frozenset[str]:
        """Names of the chunk files that a manifest refers to.

        Raises
        ------
        OSError, pyarrow.ArrowInvalid
            It is missing or damaged.
        """
        raw = manifest.read_bytes()
        body = raw[_MANIFEST_HEADER_BYTES:]
        if raw[_MANIFEST_HEADER_BYTES - 1 : _MANIFEST_HEADER_BYTES] == b"\x01":
            body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
        if len(body) < 12 or not self.heads.size:
            return frozenset()
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(body, dtype=np.uint8), 8)
        heads = np.ascontiguousarray(windows).view("<u8").ravel()
        places = np.minimum(np.searchsorted(self.heads, heads), self.heads.size - 1)
        candidates = np.flatnonzero(self.heads[places] == heads)
        found = (self.names.get(body[place : place + 12]) for place in candidates)
        return frozenset(name for name in found if name)


def _chunk_id(name: str) -> bytes:
    """The 12 bytes behind the name of a chunk file; none where it is no such name."""
    if len(name) != _ID_CHARACTERS or not name.isascii():
        return b""
    try:
        return base64.b32decode(name.translate(_TO_RFC_4648) + "====")
    except ValueError:
        return b""


def check_labels(repository: icechunk.Repository, history: History, root: zarr.Group) -> list[Problem]:
    """Every superseded version of the labels is still there, by its tag or, until its run ends, in the history."""
    views = root.get("labels")
    tags = repository.list_tags()
    problems = []
    for name, view in views.groups() if isinstance(views, zarr.Group) else ():
        versions: Any = view.attrs.get("versions", [])
        for entry in versions[1:]:
            tag, snapshot_id = label_tag(name, entry["version"] - 1), str(entry["supersedes"])
            held = repository.lookup_tag(tag) if tag in tags else None
            text = ""
            if held is None and snapshot_id not in history.snapshots:
                text = f"version {entry['version'] - 1} is lost: tag {tag} is missing and its snapshot is expired"
            elif held is not None and held != snapshot_id:
                text = f"tag {tag} names snapshot {held}, the version was superseded in {snapshot_id}"
            if text:
                problems.append(Problem(kind=ProblemKind.LABELS, path=f"labels/{name}", text=text))
    return problems
