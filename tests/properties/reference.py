"""Reference of a cube in plain Python, written from the docstrings of `galstore.ingest` alone."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from schemas.cube import BLOCK_ROWS, Listing
from schemas.cutouts import Reason, Status

LABEL = "oh_p50"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Row of a catalog as text. `fault` is the column, reason and value of its rejection, if any."""

    object_id: str | None
    ra: str | None = "150.25"
    dec: str | None = "2.5"
    label: str | None = None
    fault: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Rows of a catalog. Without labels the label column is absent, and no label is removed."""

    lines: tuple[Line, ...]
    has_labels: bool = True

    def to_frame(self) -> pd.DataFrame:
        columns = {"objID": [line.object_id for line in self.lines]}
        columns |= {"ra": [line.ra for line in self.lines], "dec": [line.dec for line in self.lines]}
        if self.has_labels:
            columns[LABEL] = [line.label for line in self.lines]
        return pd.DataFrame(columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Final response for one object."""

    row: int
    reason: Reason
    http_status: int
    attempts: int
    scale_arcsec: float
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """State of one registered object."""

    row: int
    object_id: int
    catalog: str
    label: float
    listing: Listing = Listing.LISTED
    status: Status = Status.PENDING
    reason: Reason = Reason.NONE
    attempts: int = 0
    http_status: int = 0
    scale_arcsec: float = np.nan
    body: bytes = b""

    def is_open(self, retried: Collection[Reason]) -> bool:
        return self.status is Status.PENDING or (self.status is Status.QUARANTINED and self.reason in retried)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    catalog: str
    row: int
    object_id: str
    column: str
    reason: str
    value: str


@dataclass(slots=True, kw_only=True)
class Registered:
    """Counts of a page."""

    n_new: int = 0
    n_known: int = 0
    n_relabelled: int = 0
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(slots=True)
class Listed:
    """Ids that a catalog has listed so far, in accepted and in rejected rows."""

    accepted: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)


class Reference:
    """Expected contents of a cube."""

    def __init__(self) -> None:
        self.objects: list[Known] = []
        self.row_of: dict[int, int] = {}
        self.rejected: list[Rejected] = []
        self.catalogs: list[str] = []
        self.label_versions: list[dict[str, object]] = [{"version": 1}]

    def copied(self) -> Reference:
        other = copy.copy(self)
        for name in ("objects", "row_of", "rejected", "catalogs", "label_versions"):
            setattr(other, name, copy.copy(getattr(self, name)))
        return other

    def register_page(
        self, catalog: str, page: Page, *, run_id: str, listed: Listed, first_row: int, tip: str
    ) -> Registered:
        """Register a page. `listed` holds the ids of earlier pages; those of this page are added."""
        done, on_page = Registered(), set()
        known = set(self.row_of)
        for number, line in enumerate(page.lines, start=first_row):
            object_id = line.object_id or ""
            if line.fault is not None:
                done.rejected.append(self._rejected(catalog, number, object_id, *line.fault))
                if object_id.isdecimal() and int(object_id) in known:
                    listed.rejected.add(int(object_id))
                    self._unflag(catalog, self.row_of[int(object_id)])
            elif int(object_id) in on_page:
                done.rejected.append(self._rejected(catalog, number, object_id, "object_id", "repeated_id", object_id))
            else:
                on_page.add(int(object_id))
                self._register(catalog, line, page.has_labels, listed.accepted, done)
        listed.accepted |= on_page
        if done.n_relabelled:
            self._add_label_version(done.n_relabelled, run_id, tip)
        return done

    def finish_update(self, catalog: str, rejected: Sequence[Rejected], *, whole: bool, listed: Listed) -> int:
        """Store the rejected rows, flag vanished objects, and return their number."""
        self._add_catalog(catalog)
        new_ids = {row.object_id for row in rejected}
        superseded = [row for row in self.rejected if row.catalog == catalog and (whole or row.object_id in new_ids)]
        self.rejected = [row for row in self.rejected if row not in superseded] + list(rejected)
        if not whole or not listed.accepted:
            # a catalog without readable rows does not show which objects have vanished
            return 0
        ids = listed.accepted | listed.rejected
        vanished = [known for known in self.objects if known.catalog == catalog and known.object_id not in ids]
        for known in vanished:
            self.objects[known.row] = replace(known, listing=Listing.VANISHED)
        return len(vanished)

    def settle(self, outcomes: Iterable[Outcome], *, retried: Collection[Reason] = ()) -> Counter[Reason]:
        """Store the outcomes of open rows, and return their number by reason."""
        n_of_reason: Counter[Reason] = Counter()
        for outcome in outcomes:
            known = self.objects[outcome.row]
            if not known.is_open(retried):
                continue
            n_of_reason[outcome.reason] += 1
            self.objects[outcome.row] = replace(
                known,
                status=Status.STORED if outcome.reason is Reason.NONE else Status.QUARANTINED,
                reason=outcome.reason,
                attempts=known.attempts + outcome.attempts,
                http_status=outcome.http_status,
                scale_arcsec=outcome.scale_arcsec,
                body=outcome.body,
            )
        return n_of_reason

    def open_rows(self, retried: Collection[Reason] = ()) -> dict[int, list[int]]:
        """Return the open rows by the index of their block."""
        found: dict[int, list[int]] = {}
        for known in self.objects:
            if known.is_open(retried):
                found.setdefault(known.row // BLOCK_ROWS, []).append(known.row)
        return found

    def block_state(self, index: int) -> tuple[int, list[tuple[Status, int]]]:
        """Return the length of the cube and the state of the block; a change by another writer overtakes a fill."""
        rows = self.objects[index * BLOCK_ROWS : (index + 1) * BLOCK_ROWS]
        return len(self.objects), [(known.status, known.attempts) for known in rows]

    def _register(self, catalog: str, line: Line, has_labels: bool, accepted: set[int], done: Registered) -> None:
        object_id = int(line.object_id or "")
        label = np.nan if line.label in (None, "-9999") else float(np.float32(line.label))
        row = self.row_of.get(object_id)
        if row is None:
            self._add_catalog(catalog)
            self.row_of[object_id] = len(self.objects)
            self.objects.append(
                Known(
                    row=len(self.objects), object_id=object_id, catalog=catalog, label=label if has_labels else np.nan
                )
            )
            done.n_new += 1
        elif object_id in accepted:
            # the row number of an id that an earlier page has is not stored
            text = str(object_id)
            done.rejected.append(self._rejected(catalog, -1, text, "object_id", "repeated_id", text))
        else:
            done.n_known += 1
            self._unflag(catalog, row)
            known = self.objects[row]
            if has_labels and not _same(known.label, label):
                done.n_relabelled += 1
                known = replace(known, label=label)
            self.objects[row] = known

    def _add_label_version(self, n_changed: int, run_id: str, tip: str) -> None:
        last = self.label_versions[-1]
        if run_id and last.get("run") == run_id:
            self.label_versions[-1] = {**last, "n_changed": last["n_changed"] + n_changed}
            return
        number = len(self.label_versions) + 1
        self.label_versions.append({"version": number, "run": run_id, "n_changed": n_changed, "supersedes": tip})

    def _unflag(self, catalog: str, row: int) -> None:
        """Mark an object as listed again, if this is the catalog that registered it."""
        if self.objects[row].catalog == catalog:
            self.objects[row] = replace(self.objects[row], listing=Listing.LISTED)

    def _add_catalog(self, catalog: str) -> None:
        if catalog not in self.catalogs:
            self.catalogs.append(catalog)

    @staticmethod
    def _rejected(catalog: str, row: int, object_id: str, column: str, reason: str, value: str) -> Rejected:
        return Rejected(catalog=catalog, row=row, object_id=object_id, column=column, reason=reason, value=value)


def _same(a: float, b: float) -> bool:
    return a == b or (np.isnan(a) and np.isnan(b))
