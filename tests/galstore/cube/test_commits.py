from __future__ import annotations

import multiprocessing
from functools import partial

import icechunk
import pytest
import zarr

from galstore.cube.commits import commit, create_repository, open_repository
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from schemas.errors import StoreError
from tests.galstore.conftest import SCALE

N_WRITERS, N_COMMITS = 4, 5


def add_group(name: str, session: icechunk.Session) -> None:
    zarr.open_group(session.store, mode="a").create_group(name)


def add_groups(path: str, writer: int) -> None:
    for number in range(N_COMMITS):
        commit(path, partial(add_group, f"w{writer}-{number}"), message="add", metadata={"writer": writer})


@pytest.mark.long
def test_commits_of_several_processes_are_all_kept(cube_path) -> None:
    create_repository(cube_path)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add_groups, args=(cube_path, writer)) for writer in range(N_WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    session = open_repository(cube_path).readonly_session("main")
    assert len(list(zarr.open_group(session.store, mode="r").group_keys())) == N_WRITERS * N_COMMITS


def test_a_body_that_fails_commits_nothing(cube_path) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    before = open_cube(cube_path).snapshot_id

    def fail_half_way(session: icechunk.Session) -> None:
        add_group("half", session)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        commit(cube_path, fail_half_way, message="fail", metadata={})
    assert open_cube(cube_path).snapshot_id == before
    assert commit(cube_path, lambda _: 7, message="nothing", metadata={}) == 7
    assert open_cube(cube_path).snapshot_id == before


def test_commits_say_what_they_were(cube_path) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    tip = next(iter(open_repository(cube_path).ancestry(branch="main")))
    assert (tip.message, tip.metadata["operation"], tip.metadata["survey"]) == ("create", "create", "a")
    assert len(tip.metadata["commit_id"]) == 32


def test_a_place_that_is_no_folder_is_refused() -> None:
    with pytest.raises(StoreError, match=r"(?=.*s3://bucket/prefix)(?=.*'gs://bucket/cube')"):
        open_repository("gs://bucket/cube")
