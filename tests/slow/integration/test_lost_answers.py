"""Commits to an object store whose responses are lost; a relay drops the connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import zarr

from galstore.cube.commits import commit, create_repository, open_repository
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from tests.galstore.conftest import SCALE
from tests.slow.integration.writers import add_group
from tests.support.s3 import BUCKET, Relay, moves_the_branch, relayed, s3_environment


@pytest.fixture
def relay(s3_server: str) -> Iterator[Relay]:
    with relayed(s3_server) as relay, s3_environment(relay.endpoint):
        yield relay


def messages(path: str) -> list[str]:
    return [snapshot.message for snapshot in open_repository(path).ancestry(branch="main")]


def groups(path: str) -> set[str]:
    root = zarr.open_group(open_repository(path).readonly_session("main").store, mode="r")
    return {name for name, _ in root.groups()}


class Once:
    """Callable that is true for the first request that moves the branch."""

    def __init__(self) -> None:
        self.n_moves = 0

    def __call__(self, method: str, path: str) -> bool:
        self.n_moves += moves_the_branch(method, path)
        return moves_the_branch(method, path) and self.n_moves == 1


def test_a_commit_whose_answer_is_lost_lands_once_and_returns(relay: Relay) -> None:
    path = f"s3://{BUCKET}/lost-commit"
    ensure_cube(path, survey="a", scale=SCALE)
    relay.asked.clear()
    relay.loses_answer = Once()
    n_changes = []

    def change(session: object) -> int:
        n_changes.append(1)
        add_group("ours", session)
        return 7

    assert commit(path, change, message="ours", metadata={}) == 7
    moves = [status for method, path_, status in relay.asked if moves_the_branch(method, path_)]
    print(f"\nanswers to the requests that moved the branch (0 = lost): {moves}")
    assert moves[0] == 0
    assert len(n_changes) == 1
    assert messages(path)[:2] == ["ours", "create"]
    assert "ours" in groups(path)


def test_a_commit_whose_answer_is_lost_is_found_behind_another_writers(relay: Relay, s3_server: str) -> None:
    path = f"s3://{BUCKET}/lost-and-overtaken"
    ensure_cube(path, survey="a", scale=SCALE)
    first = Once()

    def lose_and_overtake(method: str, requested: str) -> bool:
        if not first(method, requested):
            return False
        with s3_environment(s3_server):
            commit(path, partial(add_group, "theirs"), message="theirs", metadata={})
        return True

    relay.loses_answer = lose_and_overtake
    commit(path, partial(add_group, "ours"), message="ours", metadata={})
    assert messages(path)[:3] == ["theirs", "ours", "create"]
    assert {"ours", "theirs"} <= groups(path)


def test_the_answer_to_every_write_may_be_lost_once(relay: Relay) -> None:
    path = f"s3://{BUCKET}/all-lost"
    ensure_cube(path, survey="a", scale=SCALE)
    met: Counter[str] = Counter()

    def lose_first(method: str, requested: str) -> bool:
        met[requested] += method == "PUT"
        return method == "PUT" and met[requested] == 1

    relay.loses_answer = lose_first
    for number in range(3):

        def write(session: object, number: int = number) -> None:
            root = zarr.open_group(session.store, mode="a")
            root.create_array(f"numbers-{number}", data=np.arange(1000) + number, chunks=(250,))

        commit(path, write, message=f"numbers {number}", metadata={})
    n_lost = sum(status == 0 for _, _, status in relay.asked)
    print(f"\n{n_lost} answers were lost")
    assert n_lost > 3 * 4
    assert messages(path)[:4] == ["numbers 2", "numbers 1", "numbers 0", "create"]
    for number in range(3):
        assert np.array_equal(open_cube(path).array(f"numbers-{number}")[:], np.arange(1000) + number)


def test_a_repository_whose_creation_is_not_answered_is_ours(relay: Relay) -> None:
    path = f"s3://{BUCKET}/lost-creation"
    relay.loses_answer = Once()
    create_repository(path)
    commit(path, partial(add_group, "first"), message="first", metadata={})
    assert messages(path)[0] == "first"
    assert open_repository(path).config.inline_chunk_threshold_bytes == 0
