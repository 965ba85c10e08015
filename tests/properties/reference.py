"""A cube in plain Python: dictionaries and lists that obey what the cube promises, to be compared with it.

Nothing here looks at the code under test; it follows the docstrings of `galstore.ingest.register` and `galstore.ingest.fill`.
"""

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
    """One row of a delivered catalog, as text; `fault` is its column, the reason and the value where it is at fault."""

    object_id: str | None
    ra: str | None = "150.25"
    dec: str | None = "2.5"
    label: str | None = None
    fault: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some rows of a delivery; without labels it has no column for them, and takes none back."""

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
    """What became of one object's request."""

    row: int
    reason: Reason
    http_status: int
    attempts: int
    scale_arcsec: float
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is known of one registered object."""

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
    """What the reference says that a page, or a whole delivery, did."""

    n_new: int = 0
    n_known: int = 0
    n_relabelled: int = 0
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(slots=True)
class Listed:
    """Ids that a delivery had so far: `kept` ones, of which a further row is a repeat, and those at fault too."""

    kept: set[int] = field(default_factory=set)
    at_fault: set[int] = field(default_factory=set)


class Reference:
    """The cube that ought to be."""

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
        """Register a page; `listed` is what earlier pages had, and gets this page's."""
        done, on_page = Registered(), set()
        known = set(self.row_of)
        for number, line in enumerate(page.lines, start=first_row):
            told = line.object_id or ""
            if line.fault is not None:
                done.rejected.append(self._rejected(catalog, number, told, *line.fault))
                for object_id in known & {int(told) if told.isdecimal() else -1}:
                    listed.at_fault.add(object_id)
                    self._list_again(catalog, self.row_of[object_id])
            elif int(told) in on_page:
                done.rejected.append(self._rejected(catalog, number, told, "object_id", "repeated_id", told))
            else:
                on_page.add(int(told))
                self._register(catalog, line, page.has_labels, listed.kept, done)
        listed.kept |= on_page
        if done.n_relabelled:
            self._count_label_version(done.n_relabelled, run_id, tip)
        return done

    def close_delivery(self, catalog: str, rejected: Sequence[Rejected], *, whole: bool, listed: Listed) -> int:
        """Keep what was rejected, flag what is gone; returns how many objects of the catalog are gone."""
        self._name(catalog)
        told_again = {one.object_id for one in rejected}
        self.rejected = [
            one
            for one in self.rejected
            if one.catalog != catalog or not (whole or one.object_id in told_again)
        ] + list(rejected)  # fmt: skip
        named = listed.kept | listed.at_fault
        if not whole or not listed.kept:
            # a catalog of which nothing can be read says nothing about what it lacks
            return 0
        gone = [one for one in self.objects if one.catalog == catalog and one.object_id not in named]
        for one in gone:
            self.objects[one.row] = replace(one, listing=Listing.VANISHED)
        return len(gone)

    def settle(self, outcomes: Iterable[Outcome], *, retried: Collection[Reason] = ()) -> Counter[Reason]:
        """Keep outcomes of rows that are still open; returns how many for each reason."""
        tally: Counter[Reason] = Counter()
        for outcome in outcomes:
            known = self.objects[outcome.row]
            if not known.is_open(retried):
                continue
            tally[outcome.reason] += 1
            self.objects[outcome.row] = replace(
                known,
                status=Status.STORED if outcome.reason is Reason.NONE else Status.QUARANTINED,
                reason=outcome.reason,
                attempts=known.attempts + outcome.attempts,
                http_status=outcome.http_status,
                scale_arcsec=outcome.scale_arcsec,
                body=outcome.body,
            )
        return tally

    def open_rows(self, retried: Collection[Reason] = ()) -> dict[int, list[int]]:
        """Rows that may be settled, by the index of their block."""
        found: dict[int, list[int]] = {}
        for one in self.objects:
            if one.is_open(retried):
                found.setdefault(one.row // BLOCK_ROWS, []).append(one.row)
        return found

    def block_state(self, index: int) -> tuple[int, list[tuple[Status, int]]]:
        """What another writer may not touch while a block is under way: the cube's length, and the block's rows."""
        rows = self.objects[index * BLOCK_ROWS : (index + 1) * BLOCK_ROWS]
        return len(self.objects), [(one.status, one.attempts) for one in rows]

    def _register(self, catalog: str, line: Line, has_labels: bool, kept: set[int], done: Registered) -> None:
        object_id = int(line.object_id or "")
        label = np.nan if line.label in (None, "-9999") else float(np.float32(line.label))
        row = self.row_of.get(object_id)
        if row is None:
            self._name(catalog)
            self.row_of[object_id] = len(self.objects)
            self.objects.append(
                Known(
                    row=len(self.objects), object_id=object_id, catalog=catalog, label=label if has_labels else np.nan
                )
            )
            done.n_new += 1
        elif object_id in kept:
            # on which row of the delivery an id of an earlier page comes again is not kept
            told = str(object_id)
            done.rejected.append(self._rejected(catalog, -1, told, "object_id", "repeated_id", told))
        else:
            done.n_known += 1
            self._list_again(catalog, row)
            known = self.objects[row]
            if has_labels and not _same(known.label, label):
                done.n_relabelled += 1
                known = replace(known, label=label)
            self.objects[row] = known

    def _count_label_version(self, n_changed: int, run_id: str, tip: str) -> None:
        last = self.label_versions[-1]
        if run_id and last.get("run") == run_id:
            self.label_versions[-1] = {**last, "n_changed": last["n_changed"] + n_changed}
            return
        number = len(self.label_versions) + 1
        self.label_versions.append({"version": number, "run": run_id, "n_changed": n_changed, "supersedes": tip})

    def _list_again(self, catalog: str, row: int) -> None:
        """An object is back in the catalog that brought it; another one says nothing about that."""
        if self.objects[row].catalog == catalog:
            self.objects[row] = replace(self.objects[row], listing=Listing.LISTED)

    def _name(self, catalog: str) -> None:
        if catalog not in self.catalogs:
            self.catalogs.append(catalog)

    @staticmethod
    def _rejected(catalog: str, row: int, object_id: str, column: str, reason: str, value: str) -> Rejected:
        return Rejected(catalog=catalog, row=row, object_id=object_id, column=column, reason=reason, value=value)


def _same(one: float, other: float) -> bool:
    return one == other or (np.isnan(one) and np.isnan(other))
