"""Refused responses: a few of each reason are stored, as long as their objects are quarantined for it."""

from __future__ import annotations

import pandas as pd
import pytest
import zarr

from galstore.cube.commits import commit
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import Cube, open_cube
from galstore.ingest.refused_responses import limit_refused, read_refused, store_refused
from galstore.survey.responses import CutoutResponse
from schemas.cube import MOST_REFUSED
from schemas.cutouts import Reason, Status
from tests.galstore.conftest import SCALE, add_objects

N = 40


@pytest.fixture
def path(cube_path: str) -> str:
    ensure_cube(cube_path, survey="simulated", scale=SCALE)
    add_objects(cube_path, pd.DataFrame({"object_id": range(1, N + 1), "ra": 10.0, "dec": 1.0}), catalog="a")
    return cube_path


def refusal(row: int, reason: Reason, body: bytes) -> CutoutResponse:
    return CutoutResponse(row=row, reason=reason, http_status=200, attempts=1, refused=body)


def settle(path: str, responses: list[CutoutResponse]) -> Cube:
    """Commit what became of some rows, as an ingest does."""

    def write(session) -> None:
        root = zarr.open_group(session.store, mode="a")
        for response in responses:
            root["state/status"][response.row] = Status.QUARANTINED if response.reason else Status.STORED
            root["state/reason"][response.row] = response.reason
        store_refused(root, responses)

    commit(path, write, message="settle", metadata={})
    return open_cube(path)


def kept(cube: Cube) -> list[tuple[int, Reason, bytes]]:
    return [(int(row.row), Reason(row.reason), row.body) for row in read_refused(cube).itertuples()]


def test_a_cube_without_refused_answers_has_none(path) -> None:
    assert kept(open_cube(path)) == []
    cube = settle(path, [CutoutResponse(row=0, reason=Reason.READ_TIMEOUT, http_status=0, attempts=5)])
    assert kept(cube) == []
    assert "refused" not in cube.group_names("")


def test_of_each_reason_a_few_are_kept_byte_by_byte(path) -> None:
    refused = [refusal(row, Reason.FLAT, bytes([row]) * row) for row in range(1, 20)]
    cube = settle(path, [*refused, refusal(30, Reason.HTML_PAGE, b"<html>\0")])
    assert kept(cube) == [
        *((row, Reason.FLAT, bytes([row]) * row) for row in range(1, MOST_REFUSED + 1)),
        (30, Reason.HTML_PAGE, b"<html>\0"),
    ]
    # later commits add what there is room for
    cube = settle(path, [refusal(31, Reason.FLAT, b"one more"), refusal(32, Reason.HTML_PAGE, b"<p>")])
    assert kept(cube)[-2:] == [(30, Reason.HTML_PAGE, b"<html>\0"), (32, Reason.HTML_PAGE, b"<p>")]
    assert len(kept(cube)) == MOST_REFUSED + 2


def test_what_was_tried_again_is_shown_as_it_came_last_and_what_is_stored_not_at_all(path) -> None:
    settle(path, [refusal(1, Reason.TRUNCATED, b"\xff\xd8a"), refusal(2, Reason.TRUNCATED, b"\xff\xd8b")])
    cube = settle(
        path,
        [
            refusal(1, Reason.TRUNCATED, b"\xff\xd8later"),
            CutoutResponse(row=2, reason=Reason.NONE, http_status=200, attempts=1),
        ],
    )
    assert kept(cube) == [(1, Reason.TRUNCATED, b"\xff\xd8later")]
    cube = settle(path, [refusal(1, Reason.FLAT, b"\xff\xd8")])
    assert kept(cube) == [(1, Reason.FLAT, b"\xff\xd8")]


def test_between_processes_no_more_travel_than_are_kept() -> None:
    many = [refusal(row, Reason.FLAT, b"tile") for row in range(20)] + [refusal(20, Reason.TRUNCATED, b"part")]
    limited = limit_refused(many)
    assert [response.row for response in limited] == list(range(21))
    assert [bool(response.refused) for response in limited] == [
        *[True] * MOST_REFUSED,
        *[False] * (20 - MOST_REFUSED),
        True,
    ]
