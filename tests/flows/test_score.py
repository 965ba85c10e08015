from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import distributed
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flows.engine.claims import BlockClaims
from flows.engine.scoring import Engine, FinishBlock, ScoringTask, prediction_attributes, score_blocks, score_here
from flows.outputs import predictions_id, scoring_member_ids, training_set_of
from flows.runtime import load_recipe, progress_bar
from flows.score import open_scorer, score_rows, scoring_engine
from galstore.cube.history import read_history
from galstore.cube.predictions import read_predictions
from galstore.cube.reader import open_cube
from modeling.models.checkpoint import load_model
from modeling.models.model import Model
from modeling.scoring.predict import predict
from modeling.scoring.scorer import Scorer
from schemas.errors import RecipeError, StoreError
from tests.conftest import ROOT
from tests.support.scoring_cubes import LEVEL, save_model, stored_cube, write_recipe

# these tests share no fixture with the other tests of the folder and may run in another process
pytestmark = pytest.mark.xdist_group("tests/flows/score")

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
N_OBJECTS = 3000
"""Three blocks; every 50th object is quarantined."""
TOLERANCE_DEX = 1e-5

Rows = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a cube of three blocks, two models and a recipe; each test uses another id of predictions."""
    folder = tmp_path_factory.mktemp("scoring")
    stored_cube(str(folder / "cube"), N_OBJECTS)
    for number, model_id in enumerate((ONE, TWO)):
        save_model(folder, model_id, seed=number)
    write_recipe(folder, model=ONE, n_objects=N_OBJECTS)
    return folder


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    # networks as small as this gain nothing from a second thread, and wait for it on a busy machine
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(folder / "models" / ONE)


@pytest.fixture(scope="module")
def rows(folder: Path) -> Rows:
    """Rows with an image."""
    return np.flatnonzero(np.arange(N_OBJECTS) % 50)


@pytest.fixture(scope="module")
def expected(folder: Path, model: Model, rows: Rows) -> npt.NDArray[np.float64]:
    """Predictions of these rows, computed in memory."""
    pixels = open_cube(str(folder / "cube")).read_pixels(LEVEL, rows)
    return predict(model, pixels, batch_size=100, device="cpu").mean


def scorer_of(*members: Model, batch_size: int = 256) -> Scorer:
    return Scorer(predictions_id="test", members=members, batch_size=batch_size, device="cpu")


def score_with(
    engine: Engine, folder: Path, rows: Rows, predictions_id: str, scorer: Scorer, *, blocks_per_commit: int = 2
) -> int:
    with progress_bar("scoring", rows.size) as progress:
        return score_blocks(
            str(folder / "cube"), predictions_id, rows, engine, attributes=prediction_attributes(scorer),
            blocks_per_commit=blocks_per_commit, progress=progress,
        )  # fmt: skip


def mean_of(folder: Path, predictions_id: str, rows: Rows) -> npt.NDArray[np.float64]:
    cube = open_cube(str(folder / "cube"))
    return read_predictions(cube, predictions_id, rows)["mean"].to_numpy(dtype=np.float64)


def commit_sizes(folder: Path, predictions_id: str) -> list[int]:
    """Return the number of objects in each commit of these predictions, oldest first."""
    commits = read_history(str(folder / "cube"))
    return [
        int(commit.details["n_objects"])
        for commit in reversed(commits)
        if commit.operation == "predict" and commit.details["model"] == predictions_id
    ]


def assert_scored_once(folder: Path, predictions_id: str, rows: Rows, expected: npt.NDArray[np.float64]) -> None:
    """Check that each row with an image is scored once, no other row is, and the values are as expected."""
    np.testing.assert_allclose(mean_of(folder, predictions_id, rows), expected, atol=TOLERANCE_DEX)
    others = np.setdiff1d(np.arange(open_cube(str(folder / "cube")).n_objects), rows)
    assert np.isnan(mean_of(folder, predictions_id, others)).all()
    assert sum(commit_sizes(folder, predictions_id)) == rows.size


@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])  # an example takes two seconds
@given(data=st.data())
def test_batches_order_and_commits_do_not_change_predictions(folder, model, rows, expected, data) -> None:
    scorer = scorer_of(model, batch_size=data.draw(st.integers(40, 1500), label="batch size"))
    first = data.draw(st.integers(1, rows.size), label="scored before")
    order = data.draw(st.permutations(range(3)), label="order of blocks")
    per_commit = data.draw(st.integers(1, 4), label="blocks a commit")
    identity = f"x{time.monotonic_ns()}"

    def in_order(tasks: Iterable[ScoringTask]) -> Iterator[FinishBlock]:
        claimed = {task.block: task for task in tasks}
        return score_here(scorer, [claimed[block] for block in order if block in claimed])

    chosen = np.random.default_rng(first).permutation(rows)[:first]
    assert score_with(in_order, folder, np.sort(chosen), identity, scorer) == first
    assert score_with(in_order, folder, rows, identity, scorer, blocks_per_commit=per_commit) == rows.size - first
    assert_scored_once(folder, identity, rows, expected)


def test_a_scored_catalog_is_not_scored_again(folder, model, rows) -> None:
    scorer = scorer_of(model)
    engine = partial(score_here, scorer)
    assert score_with(engine, folder, rows[:500], "twice", scorer) == 500
    before = open_cube(str(folder / "cube")).snapshot_id
    assert score_with(engine, folder, rows[:500], "twice", scorer) == 0
    assert open_cube(str(folder / "cube")).snapshot_id == before


def test_two_runs_share_the_blocks_and_wait_for_each_other(folder, model, rows, expected) -> None:
    first_has_one, second_has_one = threading.Event(), threading.Event()
    scored: dict[str, int] = {}

    def wait_for_other(
        mine: threading.Event, other: threading.Event
    ) -> Callable[[Iterable[ScoringTask]], Iterator[FinishBlock]]:
        def engine(tasks: Iterable[ScoringTask]) -> Iterator[FinishBlock]:
            for task in tasks:
                mine.set()
                # neither is done before the other has begun
                assert other.wait(120)
                yield from score_here(scorer_of(model), [task])

        return engine

    def run(name: str, engine: Engine) -> None:
        scored[name] = score_with(engine, folder, rows, "shared", scorer_of(model), blocks_per_commit=1)

    runs = [
        threading.Thread(target=run, args=("first", wait_for_other(first_has_one, second_has_one))),
        threading.Thread(target=run, args=("second", wait_for_other(second_has_one, first_has_one))),
    ]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join(240)
    assert scored["first"] > 0
    assert scored["second"] > 0
    assert scored["first"] + scored["second"] == rows.size
    assert_scored_once(folder, "shared", rows, expected)


HOLDER = """
import sys, time
from flows.engine.claims import BlockClaims
claims = BlockClaims(sys.argv[1], sys.argv[2])
print(claims.claim(1), flush=True)
time.sleep(600)
"""


def test_a_block_of_a_run_that_dies_is_scored_by_the_other(folder, model, rows, expected) -> None:
    command = [sys.executable, "-c", HOLDER, str(folder / "cube"), "dead-run"]
    scorer, scored = scorer_of(model), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout.readline() == "True\n"
        engine = partial(score_here, scorer)
        run = threading.Thread(
            target=lambda: scored.append(score_with(engine, folder, rows, "dead-run", scorer, blocks_per_commit=1))
        )
        run.start()
        wait_for(lambda: len(commit_sizes(folder, "dead-run")) == 2, "the blocks without a claim")
        assert run.is_alive()
        holder.kill()
        run.join(240)
    assert scored == [rows.size]
    assert_scored_once(folder, "dead-run", rows, expected)


def test_blocks_scored_before_an_error_are_committed(folder, model, rows, expected) -> None:
    scorer = scorer_of(model)

    def breaks(tasks: Iterable[ScoringTask]) -> Iterator[FinishBlock]:
        for number, finish in enumerate(score_here(scorer, tasks)):
            if number == 2:
                raise StoreError("chunk 7 is damaged")
            yield finish

    with pytest.raises(StoreError, match="chunk 7 is damaged"):
        score_with(breaks, folder, rows, "broken", scorer, blocks_per_commit=10)
    assert len(commit_sizes(folder, "broken")) == 1
    with BlockClaims(str(folder / "cube"), "broken") as claims:
        assert all(claims.claim(block) for block in range(3))
    assert 0 < score_with(partial(score_here, scorer), folder, rows, "broken", scorer) < rows.size
    assert_scored_once(folder, "broken", rows, expected)


def test_an_error_of_a_commit_ends_the_run_and_says_why(folder, model, rows, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreError("the cube cannot be written: see whether the disk is full")

    monkeypatch.setattr("flows.engine.scoring.write_predictions", full)
    with pytest.raises(StoreError, match="see whether the disk is full"):
        score_with(partial(score_here, scorer_of(model)), folder, rows, "full", scorer_of(model), blocks_per_commit=1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("committer", "scoring"))]


def test_an_ensemble_has_another_id_than_its_members(folder, model, rows, expected) -> None:
    listed = load_recipe(str(folder / "scoring.toml"), [f"score.model=['{TWO}', '{ONE}']"])
    named = load_recipe(str(folder / "scoring.toml"), [f"score.model={ONE},{TWO}"])
    cube = open_cube(str(folder / "cube"))
    training_set = training_set_of(listed, cube)
    members = scoring_member_ids(listed, training_set)
    assert members == scoring_member_ids(named, training_set) == (ONE, TWO)
    identity = predictions_id(members)
    assert identity == predictions_id((TWO, ONE)) != ONE
    assert score_rows.fn(named, members, rows[:300]) == 300
    assert score_rows.fn(listed, members, rows[:300]) == 0
    attributes = open_cube(str(folder / "cube")).group_attributes(f"predictions/{identity}")
    assert attributes["members"] == [ONE, TWO]
    other = predict(load_model(folder / "models" / TWO), cube.read_pixels(LEVEL, rows[:300]), device="cpu").mean
    mean = (expected[:300] + other) / 2
    np.testing.assert_allclose(mean_of(folder, identity, rows[:300]), mean, atol=TOLERANCE_DEX)


def test_recipes_name_models_as_a_list_or_with_commas(folder) -> None:
    recipe = str(folder / "scoring.toml")
    assert load_recipe(recipe, ["score.model=['a', 'b']"]).score.models == ("a", "b")
    assert load_recipe(recipe, ["score.model='a, b'"]).score.models == ("a", "b")
    assert load_recipe(recipe, ["score.model=''"]).score.models == ()
    with pytest.raises(RecipeError, match=r"score\.model"):
        load_recipe(recipe, ["score.model=3"])


@pytest.mark.slow
def test_the_workers_of_a_scheduler_give_the_same_predictions(folder, rows, expected, dask_workers) -> None:
    recipe = load_recipe(str(folder / "scoring.toml"), [f"dask.scheduler='{dask_workers.scheduler.address}'"])
    scorer = open_scorer(recipe, [ONE])
    with scoring_engine(recipe, scorer, n_tasks=3) as engine:
        assert score_with(engine, folder, rows, "workers", scorer) == rows.size
    assert_scored_once(folder, "workers", rows, expected)


@pytest.mark.long
def test_a_killed_worker_s_blocks_are_scored_by_another(folder, rows, expected) -> None:
    recipe = load_recipe(str(folder / "scoring.toml"), ["score.workers=2"])
    scorer = open_scorer(recipe, [ONE])
    with scoring_engine(recipe, scorer, n_tasks=2) as engine:

        def kills(tasks: Iterable[ScoringTask]) -> Iterator[FinishBlock]:
            for number, finish in enumerate(engine(tasks)):
                if number == 0:
                    client: distributed.Client = engine.args[1]
                    pids = client.run(os.getpid)
                    assert len(pids) == 2
                    os.kill(next(iter(pids.values())), signal.SIGKILL)
                yield finish

        assert score_with(kills, folder, rows, "killed-worker", scorer, blocks_per_commit=1) == rows.size
    assert_scored_once(folder, "killed-worker", rows, expected)


@pytest.fixture
def command(prefect_server: None, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `galstore score` over a cube of four blocks in a new process, slowly."""
    from prefect.settings import PREFECT_API_URL

    stored_cube(str(tmp_path / "cube"), N_MANY)
    save_model(tmp_path, ONE)
    recipe = write_recipe(tmp_path, model=ONE, n_objects=N_MANY)
    environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "OMP_NUM_THREADS": "1"}
    started: list[subprocess.Popen[str]] = []

    def start(*more: str) -> subprocess.Popen[str]:
        # small batches make it slow enough to be killed in the middle
        words = [sys.executable, "-m", "flows.cli", "score", str(recipe), "--set", "score.batch_size=16", *more]
        started.append(subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


N_MANY = 4 * 1024


def expected_of(folder: Path) -> tuple[Rows, npt.NDArray[np.float64]]:
    rows = np.flatnonzero(np.arange(N_MANY) % 50)
    pixels = open_cube(str(folder / "cube")).read_pixels(LEVEL, rows)
    return rows, predict(load_model(folder / "models" / ONE), pixels, device="cpu").mean


def assert_ended_well(process: subprocess.Popen[str]) -> str:
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def assert_published(folder: Path, rows: Rows, expected: npt.NDArray[np.float64]) -> None:
    published = pd.read_parquet(folder / "predictions" / "all.parquet")
    assert len(published) == N_MANY
    np.testing.assert_allclose(published["prediction"].to_numpy()[rows], expected, atol=TOLERANCE_DEX)
    assert published["prediction"].isna().sum() == N_MANY - rows.size


@pytest.mark.slow
def test_a_killed_run_is_resumed(command, tmp_path) -> None:
    rows, expected = expected_of(tmp_path)
    killed = command()
    wait_for(lambda: len(commit_sizes(tmp_path, ONE)) >= 2, "two commits", killed)
    killed.kill()
    killed.wait()
    assert killed.returncode == -signal.SIGKILL
    n_before = sum(commit_sizes(tmp_path, ONE))
    assert 0 < n_before < rows.size
    assert_ended_well(command())
    assert_scored_once(tmp_path, ONE, rows, expected)
    assert_published(tmp_path, rows, expected)


@pytest.mark.long
@pytest.mark.slow
def test_two_commands_at_once_score_nothing_twice(command, tmp_path) -> None:
    rows, expected = expected_of(tmp_path)
    both = [command(), command()]
    for process in both:
        assert_ended_well(process)
    assert_scored_once(tmp_path, ONE, rows, expected)
    assert_published(tmp_path, rows, expected)


def wait_for(is_so: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None) -> None:
    deadline_s = time.monotonic() + 180
    while not is_so():
        assert process is None or process.poll() is None, f"the run ended before {what}"
        assert time.monotonic() < deadline_s, f"after 180 s still waiting for {what}"
        time.sleep(0.02)
