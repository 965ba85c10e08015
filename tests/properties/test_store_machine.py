"""A state machine compares a cube with a reference under registrations, fills, retries, kills and other writers."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import simplejpeg
import zarr
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from galstore.cube import commits
from galstore.cube.commits import commit, open_repository
from galstore.cube.labels import label_tag, tag_label_versions
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from galstore.ingest.catalog_update import CatalogUpdate, Registration, SeenRows, finish_update, register_page
from galstore.ingest.fetch import BlockTask, FetchedBlock
from galstore.ingest.fill import count_open, plan_block_tasks
from galstore.ingest.write import FilledBlock, commit_blocks, write_block
from galstore.survey.responses import CutoutResponse
from galstore.survey.row_checks import prepare_catalog
from schemas.cube import BLOCK_ROWS, LABEL_VIEW
from schemas.cutouts import Reason
from tests.conftest import draw_blobs, encode
from tests.galstore.conftest import SCALE
from tests.properties.checks import check
from tests.properties.reference import LABEL, Line, Listed, Outcome, Page, Reference, Registered

MOST_OBJECTS = 3 * BLOCK_ROWS
"""Three blocks; the last one grows."""

BODIES = [encode(pixels) for pixels in draw_blobs(16)]
PIXELS = [simplejpeg.decode_jpeg(body) for body in BODIES]
FIRST_ID = 1237648702973411443
"""Beyond 2^53, where a float would lose the last digits."""

PAGE_STEPS = ("opened", "changed", "committed")
"""Steps of a commit that `galstore.cube.commits` logs, at which a run may die."""

REASONS = tuple(reason for reason in Reason if reason is not Reason.NONE)
LABELS = st.sampled_from([None, "-9999", "8.1", "8.25", "9.0"])
CATALOGS = st.sampled_from(["alpha", "beta"])
RUNS = st.sampled_from(["", "last", "next"])

FAULTS = {
    "far": ({"ra": "400.0"}, ("ra", "out_of_range", "400.0")),
    "no place": ({"dec": None}, ("dec", "missing", "")),
    "sentinel": ({"dec": "-9999"}, ("dec", "missing", "-9999")),
    "words": ({"dec": "north"}, ("dec", "not_a_number", "north")),
    "label": ({"label": "99.0"}, (LABEL, "out_of_range", "99.0")),
    "damaged": ({"object_id": "1.2376487029734114e+18"}, ("object_id", "damaged_id", "1.2376487029734114e+18")),
    "negative": ({"object_id": "-5"}, ("object_id", "not_an_id", "-5")),
    "no id": ({"object_id": None}, ("object_id", "missing", "")),
}
"""Faults of a line: changed fields, and the expected column, reason and value of the rejection."""

LINE_KINDS = st.tuples(
    st.sampled_from(["new", "new", "known", "known", "known", "repeated", *FAULTS]),
    st.integers(0, MOST_OBJECTS),
    LABELS,
)
PAGES = st.lists(st.tuples(st.lists(LINE_KINDS, min_size=1, max_size=5), st.booleans()), min_size=1, max_size=3)
OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from([Reason.NONE] * 8 + list(REASONS)),
        st.integers(1, 4),
        st.sampled_from([0.296, 0.5, float("nan")]),
    ),
    min_size=1,
    max_size=6,
)
WHERE = st.tuples(st.integers(0, 2), st.integers(0, BLOCK_ROWS))
"""Number of the block, and of its first open row to fill."""
RETRIED = st.frozensets(st.sampled_from(REASONS), min_size=6)


class _KilledError(Exception):
    """Stands for SIGKILL; galstore does not catch it."""


class Store(RuleBasedStateMachine):
    """One cube, its reference, and a copy of the reference for each snapshot."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.path = str(self._folder / "cube")
        ensure_cube(self.path, survey="simulated", scale=SCALE)
        self.reference = Reference()
        self.history: dict[str, Reference] = {}
        self.n_ids = self.n_runs = 0
        self.touched: list[int] = []
        self._remember()

    def teardown(self) -> None:
        shutil.rmtree(self._folder)

    @invariant()
    def the_cube_is_what_the_reference_says(self) -> None:
        n = len(self.reference.objects)
        check(open_cube(self.path), self.reference, [0, n // 2, n - 1, *self.touched[-6:]] if n else [])

    # registering

    @initialize(n=st.integers(3, 12), many=st.booleans())
    def begin(self, n: int, many: bool) -> None:
        """Register objects: an empty cube cannot be filled, overtaken or relabelled."""
        self._register(self._update("alpha", "next"), self._many(n + 1020 * many))

    @rule(catalog=CATALOGS, kinds=PAGES, run=RUNS)
    def register_a_whole_catalog(self, catalog: str, kinds: list, run: str) -> None:
        self._register_pages(self._update(catalog, run, whole=True), kinds)

    @rule(catalog=CATALOGS, kinds=PAGES, run=RUNS)
    def register_part_of_a_catalog(self, catalog: str, kinds: list, run: str) -> None:
        self._register_pages(self._update(catalog, run), kinds)

    @rule(catalog=CATALOGS, kinds=PAGES, run=RUNS)
    def stop_between_two_pages(self, catalog: str, kinds: list, run: str) -> None:
        """Register pages without finishing the update, as a killed run does."""
        self._register_pages(self._update(catalog, run, whole=True), kinds, closed=False)

    @precondition(lambda self: len(self.reference.objects) < MOST_OBJECTS - 1500)
    @rule(catalog=CATALOGS, n=st.sampled_from([700, 1500]))
    def register_many(self, catalog: str, n: int) -> None:
        """Register more new objects than a block has, on one page."""
        self._register(self._update(catalog, ""), self._many(n))

    @precondition(lambda self: self.reference.objects)
    @rule(
        catalog=CATALOGS,
        changed=st.dictionaries(st.integers(0, MOST_OBJECTS), LABELS, min_size=1, max_size=8),
        run=RUNS,
    )
    def relabel(self, catalog: str, changed: dict[int, str | None], run: str) -> None:
        self._register(self._update(catalog, run), self._relabelling(changed))

    @rule(catalog=CATALOGS, kinds=PAGES, step=st.sampled_from(PAGE_STEPS), run=RUNS)
    def kill_a_registration(self, catalog: str, kinds: list, step: str, run: str) -> None:
        """Die while committing a page. Earlier commits remain, and this one may have succeeded."""
        page, *_ = self._pages(kinds)
        update = self._update(catalog, run)
        before, as_it_was = open_cube(self.path).snapshot_id, self.reference.copied()
        try:
            with self._at_step(step, _die):
                self._register(update, page)
        except _KilledError:
            if step == "committed":
                self._expect_page(update, page, tip=before)
                self._remember()
            else:
                self.reference = as_it_was
                assert open_cube(self.path).snapshot_id == before

    # filling

    @precondition(lambda self: self.reference.open_rows())
    @rule(blocks=st.lists(st.tuples(WHERE, OUTCOMES), min_size=1, max_size=2))
    def fill(self, blocks: list) -> None:
        self._commit([write_block(self.path, fetched) for fetched in self._fetch_each(blocks)])

    @precondition(lambda self: self.reference.open_rows())
    @rule(where=WHERE)
    def fill_a_whole_block(self, where: tuple[int, int]) -> None:
        outcomes = [(Reason.NONE if n % 11 else Reason.TRUNCATED, 1, 0.296) for n in range(BLOCK_ROWS)]
        self._commit([write_block(self.path, self._fetch((where[0], 0), outcomes))])

    @precondition(lambda self: self.reference.open_rows(REASONS))
    @rule(retried=RETRIED, where=WHERE, outcomes=OUTCOMES)
    def retry(self, retried: frozenset[Reason], where: tuple[int, int], outcomes: list) -> None:
        if self.reference.open_rows(retried):
            self._commit([write_block(self.path, self._fetch(where, outcomes, retried))])

    @precondition(lambda self: self.reference.open_rows())
    @rule(where=WHERE, outcomes=OUTCOMES, how=st.sampled_from(["unmerged", "half merged", *PAGE_STEPS]))
    def kill_a_fill(self, where: tuple[int, int], outcomes: list, how: str) -> None:
        fetched = self._fetch(where, outcomes)
        filled = write_block(self.path, fetched)
        before = open_cube(self.path).snapshot_id
        if how == "half merged":
            with pytest.raises(_KilledError):
                commit(self.path, lambda session: _merge_and_die(session, filled), message="half", metadata={})
        elif how != "unmerged":
            with pytest.raises(_KilledError), self._at_step(how, _die):
                commit_blocks(self.path, [filled])
        if how == "committed":
            self._expect_fetched(fetched)
            self._remember()
        else:
            assert open_cube(self.path).snapshot_id == before

    # other writers

    @precondition(lambda self: self.reference.open_rows())
    @rule(
        blocks=st.lists(st.tuples(WHERE, OUTCOMES), min_size=1, max_size=2),
        retried=st.one_of(st.just(frozenset()), RETRIED),
        overtaker=st.sampled_from(["new", "many", "relabel", "same block", "other block", "kill"]),
        where=WHERE,
        outcomes=OUTCOMES,
    )
    def overtake_a_fill(
        self, blocks: list, retried: frozenset[Reason], overtaker: str, where: tuple[int, int], outcomes: list
    ) -> None:
        """Another writer commits after a block was written and before its commit."""
        given = self._fetch_each(blocks, retried)
        filled = [write_block(self.path, fetched) for fetched in given]
        states = [self.reference.block_state(fetched.task.block.index) for fetched in given]
        self._overtake(overtaker, given[0], where, outcomes)
        n_stale = sum(
            was != self.reference.block_state(fetched.task.block.index)
            for was, fetched in zip(states, given, strict=True)
        )
        self._commit(filled, n_stale=n_stale)

    @rule(
        outer=st.sampled_from(["fill", "page"]),
        overtaker=st.sampled_from(["new", "relabel", "same block", "other block"]),
        where=st.tuples(WHERE, WHERE),
        outcomes=st.tuples(OUTCOMES, OUTCOMES),
        kinds=PAGES,
    )
    def overtake_a_commit(self, outer: str, overtaker: str, where: tuple, outcomes: tuple, kinds: list) -> None:
        """Another writer commits while a change is applied, as on an object store without a lock."""
        if outer == "fill" and not self.reference.open_rows():
            return
        fetched = self._fetch(where[0], outcomes[0]) if self.reference.open_rows() else None

        def overtake() -> None:
            self._overtake(overtaker, fetched, where[1], outcomes[1])

        with patch.object(commits, "write_lock", lambda _: nullcontext()):
            if outer == "page":
                page, *_ = self._pages(kinds)
                with self._at_step("changed", overtake):
                    self._register(self._update("alpha", "next"), page)
                return
            filled = write_block(self.path, fetched)
            was = self.reference.block_state(fetched.task.block.index)
            with self._at_step("changed", overtake):
                done, stale = commit_blocks(self.path, [filled])
            if was != self.reference.block_state(fetched.task.block.index):
                assert (done.n_settled, len(stale)) == (0, 1)
                self._commit([write_block(self.path, stale[0].fetched)])
            else:
                assert stale == []
                self._expect_fetched(fetched)
                self._remember()

    # reading

    @rule(which=st.integers(0, 1000))
    def reopen_an_old_snapshot(self, which: int) -> None:
        snapshot_id, reference = list(self.history.items())[which % len(self.history)]
        n = len(reference.objects)
        check(open_cube(self.path, snapshot_id=snapshot_id), reference, [0, n // 2, *self.touched[-3:]] if n else [])

    @rule()
    def tag_label_versions(self) -> None:
        tag_label_versions(self.path)
        repository = open_repository(self.path)
        for version in self.reference.label_versions[1:]:
            snapshot_id = repository.lookup_tag(label_tag(LABEL_VIEW, version["version"] - 1))
            assert snapshot_id == version["supersedes"]
            old = self.history[snapshot_id]
            labels = open_cube(self.path, snapshot_id=snapshot_id).read_label(LABEL)
            assert np.array_equal(labels, [known.label for known in old.objects], equal_nan=True)
            assert len(old.label_versions) == version["version"] - 1

    # helpers

    def _update(self, catalog: str, run: str, *, whole: bool = False) -> CatalogUpdate:
        if run == "next":
            self.n_runs += 1
        return CatalogUpdate(catalog=catalog, whole=whole, run_id=f"run-{self.n_runs}" if run else "")

    def _register_pages(self, update: CatalogUpdate, kinds: list, *, closed: bool = True) -> None:
        listed, seen, first_row, rejected, expected = Listed(), SeenRows(), 0, [], []
        for page in self._pages(kinds):
            done, registration = self._register(update, page, listed=listed, seen=seen, first_row=first_row)
            first_row += len(page.lines)
            rejected.append(registration.rejected)
            expected += done.rejected
        if not closed:
            return
        n_vanished = finish_update(self.path, update, pd.concat(rejected, ignore_index=True), seen)
        assert n_vanished == self.reference.finish_update(update.catalog, expected, whole=update.whole, listed=listed)
        self._remember()

    def _register(
        self,
        update: CatalogUpdate,
        page: Page,
        *,
        listed: Listed | None = None,
        seen: SeenRows | None = None,
        first_row: int = 0,
    ) -> tuple[Registered, Registration]:
        prepared = prepare_catalog(page.to_frame(), origin="a catalog", first_row=first_row)
        registration = register_page(self.path, update, prepared, seen)
        # an overtaking writer changes the reference too, and comes first
        expected = self._expect_page(update, page, listed=listed, first_row=first_row)
        got = registration.n_new, registration.n_known, registration.n_relabelled, registration.n_rejected
        assert got == (expected.n_new, expected.n_known, expected.n_relabelled, len(expected.rejected))
        self._remember()
        return expected, registration

    def _expect_page(
        self, update: CatalogUpdate, page: Page, *, listed: Listed | None = None, first_row: int = 0, tip: str = ""
    ) -> Registered:
        return self.reference.register_page(
            update.catalog,
            page,
            run_id=update.run_id,
            listed=listed or Listed(),
            first_row=first_row,
            tip=tip or self.tip,
        )

    def _pages(self, kinds: list) -> Iterator[Page]:
        ids: list[str] = []
        for lines, has_labels in kinds:
            made = [self._line(kind, number, label, ids, has_labels) for kind, number, label in lines]
            yield Page(lines=tuple(made), has_labels=has_labels)

    def _line(self, kind: str, number: int, label: str | None, ids: list[str], has_labels: bool) -> Line:
        """Return a line; `ids` are the ids of the update so far."""
        object_id = ids[number % len(ids)] if kind == "repeated" and ids else self._known_id(number, kind)
        ids.append(object_id)
        if kind in FAULTS and (has_labels or kind != "label"):
            wrong, fault = FAULTS[kind]
            return Line(**{"object_id": object_id, "label": label, **wrong}, fault=fault)
        return Line(object_id=object_id, label=label)

    def _known_id(self, number: int, kind: str) -> str:
        """Return the id of a registered object, also for half of the faulty lines; otherwise a new id."""
        objects = self.reference.objects
        if objects and (kind == "known" or (kind in FAULTS and number % 2)):
            return str(objects[number % len(objects)].object_id)
        return self._new_id()

    def _new_id(self) -> str:
        self.n_ids += 1
        return str(FIRST_ID + 7919 * self.n_ids)

    def _many(self, n: int) -> Page:
        return Page(lines=tuple(Line(object_id=self._new_id(), label="8.5") for _ in range(n)))

    def _relabelling(self, changed: dict[int, str | None]) -> Page:
        objects = self.reference.objects
        labels = {str(objects[number % len(objects)].object_id): label for number, label in changed.items()}
        return Page(lines=tuple(Line(object_id=object_id, label=label) for object_id, label in labels.items()))

    def _fetch_each(self, blocks: list, retried: frozenset[Reason] = frozenset()) -> list[FetchedBlock]:
        """Fetch blocks, each once."""
        given = [self._fetch(where, outcomes, retried) for where, outcomes in blocks]
        return list({fetched.task.block.index: fetched for fetched in given}.values())

    def _fetch(self, where: tuple[int, int], outcomes: list, retried: frozenset[Reason] = frozenset()) -> FetchedBlock:
        """Return responses for some open rows of a planned block; the reference must plan the same blocks."""
        cube, open_rows = open_cube(self.path), self.reference.open_rows(retried)
        tasks = plan_block_tasks(cube, retried=retried)
        assert [task.block.index for task in tasks] == list(open_rows)
        assert count_open(cube, tasks) == sum(map(len, open_rows.values()))
        task = tasks[where[0] % len(tasks)]
        rows = open_rows[task.block.index]
        first = where[1] % len(rows)
        chosen = rows[first : first + len(outcomes)]
        return _fetched(task, chosen, outcomes[: len(chosen)])

    def _overtake(self, overtaker: str, under_way: FetchedBlock | None, where: tuple[int, int], outcomes: list) -> None:
        if overtaker == "new":
            self._register(self._update("beta", ""), self._many(3))
        elif overtaker == "many" and len(self.reference.objects) < MOST_OBJECTS:
            self._register(self._update("beta", ""), self._many(1100))
        elif overtaker == "relabel" and self.reference.objects:
            self._register(self._update("alpha", "next"), self._relabelling({where[1]: "9.25"}))
        elif overtaker == "same block" and under_way is not None:
            # the second half of its rows, and the rows after them
            rows = self.reference.open_rows(under_way.task.retried).get(under_way.task.block.index, [])
            behind = [row for row in rows if row >= under_way.rows[under_way.rows.size // 2]][: len(outcomes)]
            if behind:
                self._commit([write_block(self.path, _fetched(under_way.task, behind, outcomes[: len(behind)]))])
        elif overtaker == "other block" and self.reference.open_rows():
            self._commit([write_block(self.path, self._fetch(where, outcomes))])
        elif overtaker == "kill" and under_way is not None:
            write_block(self.path, under_way)

    def _commit(self, filled: list[FilledBlock], *, n_stale: int = 0) -> None:
        """Commit blocks, and write overtaken blocks again until all are committed."""
        done, stale = commit_blocks(self.path, filled, run_id="fill")
        assert len(stale) == n_stale
        indices = {block.fetched.task.block.index for block in stale}
        n_settled = sum(
            (self._expect_fetched(block.fetched) for block in filled if block.fetched.task.block.index not in indices),
            start=0,
        )
        assert done.n_settled == n_settled
        self._remember()
        if stale:
            self._commit([write_block(self.path, block.fetched) for block in stale])

    def _expect_fetched(self, fetched: FetchedBlock) -> int:
        outcomes = [
            Outcome(
                row=response.row,
                reason=response.reason,
                http_status=response.http_status,
                attempts=response.attempts,
                scale_arcsec=float(scale),
                body=response.body,
            )
            for response, scale in zip(fetched.responses, fetched.scales_arcsec, strict=True)
        ]
        self.touched += [outcome.row for outcome in outcomes[-4:]]
        return sum(self.reference.settle(outcomes, retried=fetched.task.retried).values())

    def _remember(self) -> None:
        self.tip = open_cube(self.path).snapshot_id
        self.history[self.tip] = self.reference.copied()

    @contextmanager
    def _at_step(self, step: str, action: Callable[[], None]) -> Iterator[None]:
        """Call `action` once, at a step of the next commit."""
        log, handler = logging.getLogger("galstore.cube.commits"), _AtStep(step, action)
        level = log.level
        log.setLevel(logging.DEBUG)
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)


class _AtStep(logging.Handler):
    def __init__(self, step: str, action: Callable[[], None]) -> None:
        super().__init__()
        self._step, self._action = step, action
        self._is_done = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_done and str(record.msg).startswith(f"step {self._step}"):
            self._is_done = True
            self._action()


def _die() -> None:
    raise _KilledError


def _merge_and_die(session: object, filled: FilledBlock) -> None:
    if filled.fork is not None:
        session.merge(filled.fork)
    zarr.open_group(session.store, mode="a")["state/status"][: filled.n_objects] = 2
    raise _KilledError


def _fetched(task: BlockTask, rows: list[int], outcomes: list) -> FetchedBlock:
    responses = []
    for row, (reason, attempts, _) in zip(rows, outcomes, strict=True):
        body = BODIES[(row + attempts) % len(BODIES)]
        good = reason is Reason.NONE
        responses.append(
            CutoutResponse(
                row=row,
                reason=reason,
                http_status=200 if good else (0, 200, 404, 503)[attempts - 1],
                attempts=attempts,
                body=body if good else b"",
                digest=hashlib.sha256(body).digest() if good else b"",
                pixels=PIXELS[(row + attempts) % len(BODIES)] if good else None,
            )
        )
    scales = np.array([scale for _, _, scale in outcomes])
    return FetchedBlock(task=task, rows=np.array(rows), responses=tuple(responses), scales_arcsec=scales)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_cube_equals_its_reference_after_any_steps(long_run: bool) -> None:
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=200 if long_run else 6,
            stateful_step_count=15,
            deadline=None,
            # every run of the short version takes the same steps; the long one looks for new ones
            derandomize=not long_run,
            # a step writes to a disk and takes tenths of a second; a failing example is shrunk all the same
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
