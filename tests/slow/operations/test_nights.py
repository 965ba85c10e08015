"""Failures of a nightly service: killed workers and runs, a lost server, a reboot, a full disk, a survey outage.

After each: the next run completes, the cube verifies, no object is lost or doubled, and no run is shown as active.
Twenty nights: `pytest --long tests/slow/operations`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.service.processes import service_processes
from tests.conftest import ROOT
from tests.slow.operations.conftest import Service, eventually

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.xdist_group("operations"), pytest.mark.timeout(3600)]

N_GALAXIES = 400
SLOW = "survey.requests_per_second=40"
"""The run takes ten seconds, so that it can be killed in between."""
DOWN_S = 60.0


def slowly(service: Service, n: int, *more: str) -> list[str]:
    """Return overrides for a slow ingest with a separate cube and sky."""
    folder = service.folder / f"night-{n}"
    return [
        *service.overrides,
        f"store.path='{folder / 'cube'}'",
        f"emulator.new_catalog='{folder / 'new_catalog.csv'}'",
        f"emulator.seed={n}",
        "emulator.faults={}",
        SLOW,
        *more,
    ]


def under_way(service: Service, overrides: list[str]) -> str:
    """Start an ingest, wait until it requests cutouts, and return its id."""
    run = service.start("ingest", overrides=overrides)
    service.await_state(run, "Running")

    def pulling() -> bool:
        return any(
            task["name"].startswith("pull_cutouts") and task["state"]["type"] == "RUNNING"
            for task in tasks_of(service, run)
        )

    eventually(pulling, what="requests of cutouts")
    return run


def heals(service: Service, overrides: list[str], run: str, *ends: str) -> None:
    """Check that the run ended in one of these states, the next one completes, and the cube is sound."""
    state = service.await_state(run)
    assert state["type"] in ends, (state["name"], state["message"])
    service.complete("ingest", overrides=overrides)
    cube = next(word for word in overrides if word.startswith("store.path=")).split("'")[1]
    service.assert_sound(Path(cube))
    assert service.stored(Path(cube)) > 0.8 * N_GALAXIES
    service.assert_nothing_seems_to_run()


def kill_tree(process: psutil.Process) -> None:
    for member in [process, *process.children(recursive=True)]:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def a_killed_worker_in_ingest(service: Service, n: int) -> None:
    # the flow continues without the worker; the supervisor starts another one
    overrides = slowly(service, n)
    run = under_way(service, overrides)
    killed = service.record("worker")
    killed.kill()
    service.record("worker", other_than=killed.pid)
    heals(service, overrides, run, "COMPLETED", "CRASHED")


def a_killed_worker_with_its_flow(service: Service, n: int) -> None:
    overrides = slowly(service, n)
    run = under_way(service, overrides)
    kill_tree(service.record("worker"))
    end_of_flow(service, run)
    heals(service, overrides, run, "CRASHED")


def end_of_flow(service: Service, run: str) -> None:
    """Kill the remaining processes of a run."""
    for process, run_id in list(service_processes(service.directory)):
        if run_id == run:
            kill_tree(process)


def _lives(service: Service, run: str) -> bool:
    return any(run_id == run for _, run_id in service_processes(service.directory))


def a_killed_flow(service: Service, n: int) -> None:
    overrides = slowly(service, n)
    run = under_way(service, overrides)
    service.flow_process(run).kill()
    heals(service, overrides, run, "CRASHED")
    eventually(lambda: not _lives(service, run), what="the end of what the run had started")


def a_killed_worker_in_score(service: Service, n: int) -> None:
    # a new model has objects to score each time
    overrides = [*service.overrides, f"train.seed={n}"]
    service.complete("train", overrides=overrides)
    run = service.start("score", overrides=overrides)
    service.await_state(run, "Running")
    eventually(lambda: tasks_of(service, run), what="a task of the scoring")
    kill_tree(service.record("worker"))
    end_of_flow(service, run)
    state = service.await_state(run)
    assert state["type"] in {"CRASHED", "COMPLETED"}
    service.complete("score", overrides=overrides)
    service.assert_sound()
    service.complete("report", overrides=overrides)  # needs every held-out prediction
    service.assert_nothing_seems_to_run()


def tasks_of(service: Service, run: str) -> list[dict[str, Any]]:
    return service.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})


def a_restarted_server(service: Service, n: int) -> None:
    # runs continue without the server and report to the new one
    overrides = slowly(service, n)
    run = under_way(service, overrides)
    killed = service.record("server")
    kill_tree(killed)
    service.record("server", other_than=killed.pid)
    service.await_server()
    heals(service, overrides, run, "COMPLETED", "FAILED", "CRASHED")


def a_reboot(service: Service, n: int) -> None:
    # all processes end at once; then `galstore up`, as cron does at boot
    overrides = slowly(service, n)
    run = under_way(service, overrides)
    service.record("supervisor").kill()
    for process, _ in list(service_processes(service.directory)):
        if process.is_running():
            kill_tree(process)
    assert service.galstore("status").returncode == 3
    service.up()
    heals(service, overrides, run, "CRASHED")


def a_full_disk(service: Service, n: int) -> None:
    # files cannot grow beyond 64 kB, as under a quota; later the limit is removed
    overrides = slowly(service, n)
    worker = service.record("worker")
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (65_536, hard))
    try:
        run = service.start("ingest", overrides=overrides)
        state = service.await_state(run)
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert state["type"] in {"FAILED", "CRASHED"}
    heals(service, overrides, run, "FAILED", "CRASHED")


def a_survey_that_is_down(service: Service, n: int) -> None:
    # the outage takes a minute in the middle of an ingest
    with emulator(0, n) as (port, survey):
        overrides = slowly(service, n, f"survey.base_url='http://127.0.0.1:{port}'")
        run = under_way(service, overrides)
        survey.kill()
        survey.wait()
    # whatever the run does during the outage, its final state must be correct
    time.sleep(DOWN_S)
    with emulator(port, n):
        heals(service, overrides, run, "COMPLETED", "FAILED")


@contextmanager
def emulator(port: int, seed: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run the survey's emulator in a separate process."""
    words = ["emulate", "--galaxies", str(N_GALAXIES), "--seed", str(seed), "--port", str(port)]
    command = [sys.executable, "-m", "flows.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield int(process.stdout.readline().rsplit(":", 1)[1]), process
        finally:
            process.terminate()


NIGHTS: tuple[Callable[[Service, int], None], ...] = (
    a_reboot,
    a_full_disk,
    a_restarted_server,
    a_killed_worker_with_its_flow,
    a_killed_worker_in_ingest,
    a_killed_flow,
    a_killed_worker_in_score,
    a_survey_that_is_down,
)
N_NIGHTS = 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat all failures several times; they need a service, and therefore `--long`."""
    if "night" in metafunc.fixturenames:
        numbered = [(number, NIGHTS[number % len(NIGHTS)]) for number in range(N_NIGHTS)]
        metafunc.parametrize("night", numbered, ids=[f"{number}-{night.__name__}" for number, night in numbered])


def test_a_failed_night_is_reported_correctly_and_the_next_run_repairs_it(
    request: pytest.FixtureRequest, night: tuple[int, Callable[[Service, int], None]]
) -> None:
    number, fail = night
    request.getfixturevalue("service").await_server()  # another failure may have stopped it
    service = request.getfixturevalue("ingested" if fail is a_killed_worker_in_score else "service")
    fail(service, number)
