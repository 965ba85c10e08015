"""Check of chunk files, snapshots and label versions.

Icechunk's manifests give the files of each snapshot. The name of a chunk file is the 12 bytes, in Crockford's base 32,
that the manifest refers to, so a search for these bytes needs only the header of the format
(https://icechunk.io/en/stable/reference/spec/, the same in versions 1 and 2). A file that no snapshot uses is garbage:
a killed writer left it, or it is being written. Damage in garbage, for example after a power failure, is harmless.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import google_crc32c
import icechunk
import numpy as np
import pyarrow as pa
import zarr

from galstore.cube.arrays import Attributes
from galstore.cube.labels import label_tag
from galstore.cube.storage import first_line, is_remote
from galstore.integrity.checks.state import IMAGE_LAYOUTS
from galstore.integrity.findings import Problem, ProblemKind
from galstore.parallel import map_ahead

_MANIFEST_HEADER_BYTES = 39  # magic, implementation, spec version, file type; the last byte: 1 = zstd, 0 = uncompressed
_ID_CHARACTERS = 20
_TO_RFC_4648 = str.maketrans("0123456789ABCDEFGHJKMNPQRSTVWXYZ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def named_snapshots(repository: icechunk.Repository) -> list[dict[str, str]]:
    """Return the arguments of `Repository.ancestry` for all branches and tags."""
    starts = [{"branch": name} for name in sorted(repository.list_branches())]
    return starts + [{"tag": name} for name in sorted(repository.list_tags())]


class SnapshotHistory:
    """Snapshots that a branch or tag reaches, and a given one, with their manifests."""

    def __init__(self, repository: icechunk.Repository, snapshot_id: str) -> None:
        self.snapshot_id = snapshot_id
        self.problems: list[Problem] = []
        self.snapshots: dict[str, icechunk.SnapshotInfo] = {}
        self.array_of: dict[str, str] = {}
        """Path of the array of each manifest."""
        self.manifests: dict[str, dict[str, int]] = {}
        """Number of chunks by snapshot and manifest."""
        for start in [{"snapshot_id": snapshot_id}, *named_snapshots(repository)]:
            self._follow(repository, start)
        for reachable_id in self.snapshots:
            self._inspect(repository, reachable_id)

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
            text = f"the history of {name} cannot be read completely ({first_line(error)})"
            self.problems.append(Problem(kind=ProblemKind.HISTORY, path="snapshots", text=text))

    def _inspect(self, repository: icechunk.Repository, snapshot_id: str) -> None:
        try:
            content: str | Attributes = repository.inspect_snapshot(snapshot_id)
        except icechunk.IcechunkError as error:
            text = f"the snapshot cannot be read ({first_line(error)})"
            self.problems.append(Problem(kind=ProblemKind.HISTORY, path=f"snapshots/{snapshot_id}", text=text))
            return
        # Icechunk 1 returns JSON, Icechunk 2 a dictionary; both call it a test helper, so only the ids are required
        tree: Attributes = json.loads(content) if isinstance(content, str) else content
        self.manifests[snapshot_id] = {entry["id"]: int(entry.get("num_chunk_refs", 0)) for entry in tree["manifests"]}
        for node in tree.get("nodes", ()):
            for reference in node.get("manifest_refs") or ():
                self.array_of[reference.get("id", "")] = str(node.get("path", "")).lstrip("/")


def check_files(history: SnapshotHistory, path: str, *, n_threads: int) -> tuple[dict[str, int], list[Problem]]:
    """Check that all used chunk files of a local cube exist and that each file has the checksum at its end.

    Return totals by field of `Verification`, which are empty on an object store, and problems.
    """
    if is_remote(path):
        return {}, []
    folder = Path(path).expanduser()
    # listed after the snapshots, so that their files are in the list; files of later commits count as garbage
    sizes = _sizes(folder / "chunks")
    files = (folder / "chunks" / name for name in sizes)
    checks = map_ahead(_has_valid_checksum, files, n_threads=n_threads, n_ahead=64)
    damaged = {name for name, is_valid in zip(sizes, checks, strict=True) if not is_valid}
    usage = FileUsage(history, folder, sizes)
    garbage = sizes.keys() - usage.array_of.keys()
    reported = sorted(damaged - garbage)
    if usage.is_partial:
        # an unreadable manifest may refer to it
        reported += sorted(damaged & garbage)
    totals = {
        "n_files": len(sizes),
        "file_bytes": sum(sizes.values()),
        "n_garbage": len(garbage),
        "garbage_bytes": sum(sizes[name] for name in garbage),
        "n_garbage_damaged": len(damaged & garbage),
    }
    return totals, usage.problems + [usage.damage_problem(name) for name in reported]


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # a writer may rename a file after the listing
            if entry.is_file():
                sizes[entry.name] = entry.stat().st_size
    return sizes


def _has_valid_checksum(file: Path) -> bool:
    """Test whether a chunk file ends with the CRC-32C of the rest; True if it was deleted in the meantime."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return len(content) > 4 and google_crc32c.value(content[:-4]) == int.from_bytes(content[-4:], "little")


class FileUsage:
    """Chunk files that the snapshots use."""

    def __init__(self, history: SnapshotHistory, folder: Path, names: Iterable[str]) -> None:
        self.problems: list[Problem] = []
        self.array_of: dict[str, str] = {}
        """Path of the array of each used file."""
        self.is_partial = bool(history.problems) or history.snapshot_id not in history.manifests
        """True if a snapshot or manifest could not be read."""
        search = _ManifestSearch(names)
        files_of: dict[str, frozenset[str]] = {}
        current = history.manifests.get(history.snapshot_id, {})
        all_manifests = {name: n for manifests in history.manifests.values() for name, n in manifests.items()}
        for manifest, n_chunks in all_manifests.items():
            path = history.array_of.get(manifest, "an array")
            text = ""
            try:
                found = files_of[manifest] = search.files_in(folder / "manifests" / manifest)
            except (OSError, pa.ArrowInvalid) as error:
                self.is_partial = True
                text = f"the manifest of {path} cannot be read ({first_line(error)})"
            else:
                self.array_of |= dict.fromkeys(found, path)
                if n_missing := max(n_chunks - len(found), 0):
                    text = f"{n_missing:,} of {n_chunks:,} chunk files of {path} in this manifest are missing"
            if text:
                kind = ProblemKind.FILE if manifest in current else ProblemKind.HISTORY
                self.problems.append(Problem(kind=kind, path=f"manifests/{manifest}", text=text))
        files = {
            snapshot_id: frozenset().union(*(files_of.get(manifest, ()) for manifest in manifests))
            for snapshot_id, manifests in history.manifests.items()
        }
        self.current = files.get(history.snapshot_id, frozenset())
        """Files that the verified snapshot uses."""
        self.replaced = self._replaced_files(history, files)
        """Files of images that a rebuild has replaced."""

    def _replaced_files(self, history: SnapshotHistory, files: Mapping[str, frozenset[str]]) -> set[str]:
        replaced: set[str] = set()
        snapshots = history.snapshots.values()
        for rebuild in snapshots:
            if rebuild.metadata.get("operation") != "rebuild" or rebuild.id not in files:
                continue
            older = [str(rebuild.metadata.get("base"))]
            if older[0] not in files:  # the repaired snapshot is expired
                older = [other.id for other in snapshots if other.written_at < rebuild.written_at]
            replaced |= frozenset().union(*(files.get(snapshot_id, ()) for snapshot_id in older)) - files[rebuild.id]
        return {name for name in replaced if self.array_of[name] in IMAGE_LAYOUTS}

    def damage_problem(self, name: str) -> Problem:
        text = "its content does not match the CRC-32C at its end: it is a chunk"
        text += f" of {self.array_of[name]}" if name in self.array_of else ""
        if name in self.current:
            kind = ProblemKind.FILE
        elif name in self.replaced:
            kind = ProblemKind.REPLACED
            text += " that a rebuild has replaced: expire old snapshots (`galstore gc`)"
        else:
            kind = ProblemKind.HISTORY
            text += " that only other snapshots use: expire them (`galstore gc`)"
        return Problem(kind=kind, path=f"chunks/{name}", text=text)


class _ManifestSearch:
    """Search for the ids of chunk files in manifests."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = {chunk_id: name for name in names if (chunk_id := _chunk_id(name))}
        self.heads = np.sort(np.frombuffer(b"".join(chunk_id[:8] for chunk_id in self.names), dtype="<u8"))

    def files_in(self, manifest: Path) -> frozenset[str]:
        """Return the names of the chunk files that a manifest refers to.

        Raises
        ------
        OSError, pyarrow.ArrowInvalid
            The manifest is missing or damaged.
        """
        content = manifest.read_bytes()
        body = content[_MANIFEST_HEADER_BYTES:]
        if content[_MANIFEST_HEADER_BYTES - 1 : _MANIFEST_HEADER_BYTES] == b"\x01":
            body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
        if len(body) < 12 or not self.heads.size:
            return frozenset()
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(body, dtype=np.uint8), 8)
        heads = np.ascontiguousarray(windows).view("<u8").ravel()
        nearest = np.minimum(np.searchsorted(self.heads, heads), self.heads.size - 1)
        candidates = np.flatnonzero(self.heads[nearest] == heads)
        found = (self.names.get(body[offset : offset + 12]) for offset in candidates)
        return frozenset(name for name in found if name)


def _chunk_id(name: str) -> bytes:
    """Decode the name of a chunk file to its 12 bytes; empty for other files."""
    if len(name) == _ID_CHARACTERS and name.isascii():
        with suppress(ValueError):
            return base64.b32decode(name.translate(_TO_RFC_4648) + "====")
    return b""


def check_labels(repository: icechunk.Repository, history: SnapshotHistory, root: zarr.Group) -> list[Problem]:
    """Check that all superseded versions of the labels exist, by tag or, until their run ends, in the history."""
    views = root.get("labels")
    tags = repository.list_tags()
    problems = []
    for name, view in views.groups() if isinstance(views, zarr.Group) else ():
        attributes: Attributes = view.attrs
        for entry in attributes.get("versions", [])[1:]:
            tag, snapshot_id = label_tag(name, entry["version"] - 1), str(entry["supersedes"])
            tagged_id = repository.lookup_tag(tag) if tag in tags else None
            text = ""
            if tagged_id is None and snapshot_id not in history.snapshots:
                text = f"version {entry['version'] - 1} is lost: tag {tag} is missing and its snapshot is expired"
            elif tagged_id is not None and tagged_id != snapshot_id:
                text = f"tag {tag} names snapshot {tagged_id}, the version was superseded in {snapshot_id}"
            if text:
                problems.append(Problem(kind=ProblemKind.LABELS, path=f"labels/{name}", text=text))
    return problems
