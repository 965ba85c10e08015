"""SIGKILL while a cube is created: no cube exists, or a whole one, and the next run creates or uses it."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from schemas.errors import StoreError, StoreNotFoundError
from tests.galstore.conftest import SCALE
from tests.slow.crash.runs import Launcher, killed_after, wait_for
from tests.support.s3 import BUCKET, delete_objects, list_objects, moves_the_branch, relayed, s3_variables

NOBODY = "http://127.0.0.1:1"
"""A survey that does not respond: these runs end after the creation of the cube."""

CREATION_S = 0.1
MIN_PUTS = 6
"""Minimum number of write requests of a creation: Icechunk 1 needs six, Icechunk 2 more."""


def arguments_for(path: str, folder: Path) -> list[str]:
    return ["--path", path, "--service", NOBODY, "--ledger", str(folder / "ledger.jsonl")]


def cube_exists(path: str) -> bool:
    """Return whether a whole cube exists; any other state is an error."""
    try:
        cube = open_cube(path)
    except StoreNotFoundError:
        return False
    assert cube.counts().registered == 0
    assert len(cube.read_rejected()) == 0
    return True


def test_a_local_cube_is_created_whole_or_not_at_all(tmp_path: Path, launcher: Launcher, long_run: bool) -> None:
    draw = random.Random(7)
    seen: Counter[str] = Counter()
    for number in range(200 if long_run else 20):
        path = str(tmp_path / f"cube-{number}")
        if number % 2:
            # a state that is too short to be hit by chance
            (Path(f"{path}.begun") / "snapshots").mkdir(parents=True)
        run = launcher.start(arguments_for(path, tmp_path))
        with killed_after(draw.uniform(0, CREATION_S) ** 2 / CREATION_S, run.kill):
            run.wait()
        exists, begun = cube_exists(path), Path(f"{path}.begun").exists()
        seen["whole" if exists else "empty" if Path(path).exists() else "begun" if begun else "nothing"] += 1
        assert ensure_cube(path, survey="simulated", scale=SCALE) is not exists
        assert cube_exists(path)
        assert not Path(f"{path}.begun").exists()
    print(f"\nwhat kills left of a creation: {dict(seen)}")


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_a_cube_on_s3_is_created_by_the_next_run_or_what_is_in_the_way_is_named(
    answered: bool, tmp_path: Path, launcher: Launcher, s3_endpoint: str
) -> None:
    seen = []
    for n in itertools.count(1):
        prefix = f"{tmp_path.name}-{n}"
        path = f"s3://{BUCKET}/{prefix}"
        has_branch = _kill_at_put(n, path, launcher, tmp_path, s3_endpoint, answered=answered)
        if has_branch is None:
            break
        exists = cube_exists(path)
        seen.append("whole" if exists else "empty" if has_branch else f"{len(list_objects(s3_endpoint, prefix))} files")
        if not has_branch and list_objects(s3_endpoint, prefix):
            with pytest.raises(StoreError, match=rf"(?=.*{re.escape(path)})(?=.*files)"):
                ensure_cube(path, survey="simulated", scale=SCALE)
            delete_objects(s3_endpoint, prefix)
        assert ensure_cube(path, survey="simulated", scale=SCALE) is not exists
        assert cube_exists(path)
    print(f"\nwhat a kill at each write left of a creation on S3: {seen}")
    assert len(seen) >= MIN_PUTS
    assert seen[-1] == ("whole" if answered else "empty")


def _kill_at_put(
    n: int, path: str, launcher: Launcher, folder: Path, s3_endpoint: str, *, answered: bool
) -> bool | None:
    """Kill a run at its n-th write request.

    Returns True if a request that moves the branch was executed, and None if the creation needs fewer requests.
    """
    n_left = itertools.count(n, -1)
    with relayed(s3_endpoint) as relay:
        run = None

        def kill_at_last(method: str, _path: str) -> bool:
            if method == "PUT" and next(n_left) == 1:
                wait_for(lambda: run is not None, "the launcher to return", seconds=10)
                run.kill()
                return True
            return False

        if answered:
            relay.loses_answer = kill_at_last
        else:
            relay.drops_request = kill_at_last
        run = launcher.start(arguments_for(path, folder), s3_variables(relay.endpoint))
        if run.wait() != -9:
            return None
        return any(moves_the_branch(method, path) for method, path, _ in relay.asked)
