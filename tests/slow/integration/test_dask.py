"""Fills over a running Dask scheduler into a cube on S3, with a killed scheduler and killed workers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import distributed
import pytest
from numcodecs import Zstd

from galstore.cube.reader import open_cube
from galstore.executor import DaskExecutor
from galstore.ingest.fill import fill_cube, plan_block_tasks
from galstore.ingest.write import FillResult
from schemas.errors import ServiceError
from tests.conftest import ROOT
from tests.galstore.conftest import registered_cube, source_of
from tests.slow.crash.runs import KillCounts, KilledCube, Survey, serving_survey, wait_for, warm_up
from tests.support.s3 import BUCKET, KEY_ID, SECRET, list_objects, read_object

RATE = 800
"""Requests/s; a fill lasts long enough for a kill in its middle."""

ZSTD_MAGIC = bytes.fromhex("28b52ffd")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survey]:
    with serving_survey(tmp_path_factory.mktemp("survey")) as survey:
        yield survey


@contextmanager
def started(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process of Dask's command line."""
    # its profiler reads frames of other threads, which may block a worker before Python 3.11.9 (gh-106883)
    environment = os.environ | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            stdout=stream,
            stderr=stream,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


class Machines:
    """A scheduler and its workers, each in a separate process."""

    def __init__(self, folder: Path, *, n_workers: int = 2) -> None:
        self._folder, self._n_workers, self._stack = folder, n_workers, ExitStack()
        self.log = folder / "dask.log"

    def __enter__(self) -> Machines:
        self._folder.mkdir()
        scheduler_file = self._folder / "scheduler.json"
        with ExitStack() as stack:
            address = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(scheduler_file))
            self.scheduler = stack.enter_context(started(self.log, "scheduler", *address))
            # the file exists before its content
            wait_for(lambda: scheduler_file.exists() and scheduler_file.stat().st_size > 0, "the scheduler")
            self.address = str(json.loads(scheduler_file.read_text())["address"])
            worker = ("worker", self.address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
            self.workers = [
                stack.enter_context(started(self.log, *worker, "--no-nanny", "--death-timeout", "20"))
                for _ in range(self._n_workers)
            ]
            with distributed.Client(self.address) as client:
                client.wait_for_workers(self._n_workers, timeout=60)
                # otherwise one worker could finish a block before the other begins
                client.run(warm_up)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def fill_with(on_commit: Callable[[FillResult], None], path: str, survey: Survey, address: str) -> FillResult:
    source = source_of(survey.service)
    source = replace(source, request_limits=replace(source.request_limits, requests_per_second=RATE))
    # time for attempts to reach a dead scheduler
    with distributed.Client(address, timeout=5) as client:
        tasks = plan_block_tasks(open_cube(path))
        return fill_cube(path, tasks, source, DaskExecutor(client), blocks_per_commit=1, on_commit=on_commit)


@pytest.mark.long
@pytest.mark.slow
def test_a_dead_scheduler_is_a_service_error_and_a_new_one_completes(
    tmp_path: Path, survey: Survey, s3_endpoint: str
) -> None:
    path = f"s3://{BUCKET}/{tmp_path.name}"
    registered_cube(path, survey.service)
    killed_cube = KilledCube(path, tmp_path, survey, KillCounts())
    acknowledged: list[FillResult] = []
    with Machines(tmp_path / "first") as machines:

        def kill_scheduler(filled: FillResult) -> None:
            nonlocal killed_s
            acknowledged.append(filled)
            machines.scheduler.kill()
            killed_s = time.monotonic()

        killed_s = 0.0
        with pytest.raises(ServiceError, match=r"(?=.*Dask)(?=.*scheduler)"):
            fill_with(kill_scheduler, path, survey, machines.address)
        seconds = time.monotonic() - killed_s
    n_settled = sum(filled.n_settled for filled in acknowledged)
    counts = open_cube(path).counts()
    print(f"\nthe error came {seconds:.1f} s after the scheduler's death; {n_settled} acknowledged, {counts}")
    assert counts.add_up
    assert 0 < n_settled == counts.stored + counts.quarantined < counts.registered
    killed_cube.check()
    with Machines(tmp_path / "second") as machines:
        fill_with(lambda _: None, path, survey, machines.address)
    killed_cube.check_complete()


@pytest.mark.slow
def test_a_killed_worker_of_a_running_scheduler_costs_a_repeat_and_no_object(
    tmp_path: Path, survey: Survey, s3_endpoint: str
) -> None:
    path = f"s3://{BUCKET}/{tmp_path.name}"
    registered_cube(path, survey.service)
    killed_cube = KilledCube(path, tmp_path, survey, KillCounts())
    n_before = survey.n_requests()
    with Machines(tmp_path / "machines") as machines:
        victim, _ = machines.workers
        # both are in the middle of their first block
        killer = threading.Thread(
            target=lambda: (wait_for(lambda: survey.n_requests() > n_before + 600, "requests"), victim.kill())
        )
        killer.start()
        filled = fill_with(lambda _: None, path, survey, machines.address)
        killer.join()
        assert victim.poll() == -9
    n_requests = survey.n_requests() - n_before
    print(f"\n{n_requests} requests for {filled.n_settled} objects")
    assert filled.n_stored == len(survey.bodies)
    assert survey.n_objects < n_requests <= survey.n_objects + 2 * 1024
    killed_cube.check_complete()


RECIPE = """
name = "simulated"
store = {{ path = "cube" }}
output = {{ folder = "{folder}" }}
[survey]
name = "simulated"
base_url = "{base_url}"
selection = "labelled"
columns = ["ra", "dec", "oh_p50"]
requests_per_second = 5000
concurrency = 32
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.long
def test_the_command_line_ingests_to_s3_over_a_running_scheduler_and_keeps_the_credentials_to_itself(
    tmp_path: Path, survey: Survey, s3_endpoint: str
) -> None:
    prefix = tmp_path.name
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(folder=tmp_path / "out", base_url=survey.service.base_url))
    environment = {
        **os.environ,
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "200",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "ICECHUNK_LOG": "debug",
        "COLUMNS": "250",
    }
    with Machines(tmp_path / "machines") as machines:
        command = [sys.executable, "-m", "flows.cli", "ingest", str(recipe)]
        sets = ["--set", f"dask.scheduler={machines.address}", "--set", f"store.path=s3://{BUCKET}/{prefix}"]
        done = subprocess.run([*command, *sets], check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    n_stored, n_outside = len(survey.bodies), len(survey.outside)
    counts = rf"{survey.n_objects} registered\D+{n_stored} stored\D+{n_outside} quarantined\D+\b0 pending"
    assert re.search(counts, done.stderr)
    KilledCube(f"s3://{BUCKET}/{prefix}", tmp_path, survey, KillCounts()).check_complete()
    assert not (tmp_path / "cube").exists()

    logs = {"the command": (done.stdout + done.stderr).encode(), "Dask": machines.log.read_bytes()}
    files = [file for file in (tmp_path / "prefect").rglob("*") if file.is_file()]
    logs |= {str(file): file.read_bytes() for file in files}
    objects = {key: read_object(s3_endpoint, key) for key in list_objects(s3_endpoint, f"{prefix}/")}
    print(f"\nlooked through {len(objects)} objects of the bucket and {len(logs)} logs and files")
    assert len(objects) > 100
    for name, content in (logs | objects).items():
        assert not holds_credentials(content), f"a credential is in {name}"


def holds_credentials(content: bytes) -> bool:
    """Return whether the content holds the key or its secret, also inside Icechunk's compressed metadata."""
    texts = [content]
    start = content.find(ZSTD_MAGIC)
    while start >= 0:
        with suppress(RuntimeError):
            texts.append(Zstd().decode(content[start:]))
        start = content.find(ZSTD_MAGIC, start + 1)
    return any(secret.encode() in text for text in texts for secret in (KEY_ID, SECRET))


def test_credentials_would_be_found() -> None:
    assert holds_credentials(b"log: " + SECRET.encode())
    assert holds_credentials(b"ICECHUNK" + Zstd().encode(f"key {KEY_ID}".encode() * 100))
    assert not holds_credentials(b"nothing " + ZSTD_MAGIC + b" of the kind")
