"""Several processes write one cube while others read it, in a local folder and on S3."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
import zarr

from flows.runtime import dask_client
from galstore.cube.commits import create_repository, open_repository
from galstore.cube.reader import open_cube
from galstore.executor import DaskExecutor
from galstore.ingest.fill import fill_cube, plan_block_tasks
from schemas.cutouts import Status
from schemas.recipes import DaskSection
from tests.galstore.conftest import add_objects, registered_cube, source_of
from tests.slow.crash.runs import KillCounts, KilledCube, Launcher, Survey, serving_survey, wait_for, warm_up
from tests.slow.integration.writers import commit_groups
from tests.support.s3 import BUCKET

N_WRITERS, N_COMMITS = 4, 25
RATE = 1000
"""Requests/s; a fill lasts long enough for other writers to commit in between."""


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survey]:
    with serving_survey(tmp_path_factory.mktemp("survey")) as survey:
        yield survey


@pytest.fixture(scope="module")
def workers(s3_endpoint: str) -> Iterator[distributed.Client]:
    """Two workers with access to S3."""
    with dask_client(DaskSection(workers=2), n_tasks=2) as client:
        # without imports and compilation now, the other run would end before these workers begin
        client.run(warm_up)
        yield client


@pytest.fixture(scope="module")
def other_workers(s3_endpoint: str) -> Iterator[distributed.Client]:
    """Workers of another, independent scheduler."""
    with dask_client(DaskSection(workers=2), n_tasks=2) as client:
        # without imports and compilation now, the other run would end before these workers begin
        client.run(warm_up)
        yield client


@pytest.fixture(scope="module")
def launchers(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Launcher, Launcher]]:
    folder = tmp_path_factory.mktemp("launchers")
    with Launcher(folder / "first.log") as first, Launcher(folder / "second.log") as second:
        yield first, second


S3_WITH_LONG = pytest.mark.parametrize("path", ["local", pytest.param("s3", marks=pytest.mark.long)], indirect=True)


@pytest.fixture(params=["local", "s3"])
def path(request: pytest.FixtureRequest, tmp_path: Path, s3_endpoint: str) -> str:
    """Path for a new cube."""
    return str(tmp_path / "cube") if request.param == "local" else f"s3://{BUCKET}/{tmp_path.name}"


def test_every_commit_of_every_writer_is_kept(path: str) -> None:
    create_repository(path)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=commit_groups, args=(path, writer, N_COMMITS)) for writer in range(N_WRITERS)]
    started_s = time.monotonic()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    seconds = time.monotonic() - started_s
    assert [writer.exitcode for writer in writers] == [0] * N_WRITERS
    repository = open_repository(path)
    kept = {
        (snapshot.metadata["writer"], snapshot.metadata["number"])
        for snapshot in repository.ancestry(branch="main")
        if snapshot.metadata.get("commit_id")
    }
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    present = [name for name, group in root.groups() if group.attrs["name"] == name]
    n_commits = N_WRITERS * N_COMMITS
    print(f"\n{len(kept)} of {n_commits} commits kept, {len(present)} of {n_commits} groups there; {seconds:.1f} s")
    assert kept == {(writer, number) for writer in range(N_WRITERS) for number in range(N_COMMITS)}
    assert sorted(present) == sorted(f"w{writer}-{number}" for writer, number in kept)
    assert sum(1 for _ in repository.ancestry(branch="main")) == 1 + n_commits


@S3_WITH_LONG
def test_a_reader_keeps_its_snapshot_while_another_process_commits(
    path: str, tmp_path: Path, survey: Survey, workers: distributed.Client, launchers: tuple[Launcher, Launcher]
) -> None:
    killed_cube = KilledCube(path, tmp_path, survey, KillCounts())
    scheduler = workers.scheduler.address
    registered_cube(path, survey.service)
    (first, *_) = plan_block_tasks(open_cube(path))
    fill_cube(path, [first], source_of(survey.service), DaskExecutor(workers))
    reader = open_cube(path)
    rows = np.flatnonzero(reader.read_state("status") == Status.STORED)[:100]
    before = reader.counts(), reader.read_pixels(64, rows)
    run = launchers[0].start(killed_cube.arguments("--scheduler", scheduler, "--rate", str(RATE)))
    seen = set()
    while "done" not in {line["event"] for line in killed_cube.acknowledged()}:
        seen.add(open_cube(path).counts().stored)
        assert reader.counts() == before[0]
        assert np.array_equal(reader.read_pixels(64, rows), before[1])
        time.sleep(0.02)
    assert not run.was_killed()
    assert reader.counts() == before[0]
    assert len(seen) > 1, "every reading was of the same snapshot"
    killed_cube.check_complete()


@S3_WITH_LONG
def test_two_runs_at_once_store_every_object_once(
    path: str,
    tmp_path: Path,
    survey: Survey,
    workers: distributed.Client,
    other_workers: distributed.Client,
    launchers: tuple[Launcher, Launcher],
) -> None:
    registered_cube(path, survey.service)
    kill_counts = KillCounts()
    n_requests = survey.n_requests()
    killed_cubes = [KilledCube(path, tmp_path, survey, kill_counts) for _ in launchers]
    schedulers = [client.scheduler.address for client in (workers, other_workers)]
    runs = [
        launcher.start(killed_cube.arguments("--scheduler", scheduler, "--rate", str(RATE)))
        for launcher, killed_cube, scheduler in zip(launchers, killed_cubes, schedulers, strict=True)
    ]
    for run in runs:
        assert not run.was_killed()
    done = [killed_cube.acknowledged()[-1]["n_stored"] for killed_cube in killed_cubes]
    n_requests = survey.n_requests() - n_requests
    print(f"\nthe runs stored {done}, {sum(done)} in all, with {n_requests} requests")
    assert sum(done) == len(survey.bodies)
    for killed_cube in killed_cubes:
        killed_cube.check_complete()
    assert (open_cube(path).read_state("attempts") == 1).all()


@S3_WITH_LONG
def test_objects_that_are_registered_in_the_middle_of_a_fill_cost_nothing(
    path: str, tmp_path: Path, survey: Survey, workers: distributed.Client, launchers: tuple[Launcher, Launcher]
) -> None:
    killed_cube = KilledCube(path, tmp_path, survey, KillCounts())
    # half the rate, so that the new objects are registered while the first blocks are fetched
    run = launchers[0].start(killed_cube.arguments("--scheduler", workers.scheduler.address, "--rate", str(RATE // 2)))
    n_before = survey.n_requests()
    wait_for(lambda: survey.n_requests() > n_before, "the first cutout")
    n_new = 300
    new = pd.DataFrame({"object_id": np.arange(1, n_new + 1), "ra": np.linspace(1, 50, n_new), "dec": -80.0})
    add_objects(path, new, catalog="new")
    n_filled = sum(line["event"] == "filled" for line in killed_cube.acknowledged())
    assert not run.was_killed()
    lines = killed_cube.acknowledged()
    print(
        f"\n300 objects were registered after {n_filled} of {sum(line['event'] == 'filled' for line in lines)} commits"
    )
    cube = open_cube(path)
    counts = cube.counts()
    assert n_filled < sum(line["event"] == "filled" for line in lines)
    assert (counts.registered, counts.stored) == (survey.n_objects + n_new, len(survey.bodies))
    assert (counts.quarantined, counts.pending) == (len(survey.outside), n_new)
    assert lines[-1]["n_requests"] == survey.n_objects
    # the new objects lie outside the footprint
    filled = fill_cube(path, plan_block_tasks(cube), source_of(survey.service), DaskExecutor(workers))
    assert filled.quarantined == {"out_of_footprint": n_new}
    assert open_cube(path).counts().add_up
    assert open_cube(path).counts().pending == 0
