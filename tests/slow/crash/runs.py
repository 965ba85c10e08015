"""Runs that are killed: their start, their end, and checks of their cube afterwards."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import simplejpeg

from galstore.cube.pyramid import build_pyramid
from galstore.cube.reader import Cube, open_cube
from galstore.emulator.faults import Fault, FaultPlan
from galstore.integrity.verify import verify_cube
from galstore.survey.skyserver import SkyServer
from schemas.cutouts import Reason, Status
from schemas.errors import StoreNotFoundError
from schemas.recipes import FaultSection
from tests.conftest import ROOT, draw_blobs, encode
from tests.slow.integration.test_faults import emulator, log_of

N_ROWS, N_REJECTED = 2500, 3
FIRST_ID = 1237651213912145921
OUTSIDE_SHARE = 0.01
PROGRAM = [sys.executable, "-m", "tests.slow.crash.program"]
SEED_OF_EMULATOR = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A survey on loopback, and the expected contents of its cube."""

    service: SkyServer
    bodies: dict[int, Path]
    """JPEG of each object inside the footprint."""
    outside: frozenset[int]
    """Objects outside the footprint."""

    @property
    def n_objects(self) -> int:
        return len(self.bodies) + len(self.outside)

    def n_requests(self) -> int:
        return int(log_of(self.service)["requests"])

    def attempts(self) -> pd.Series:
        """Return the number of requests so far by object."""
        return pd.Series(
            {int(object_id): n for object_id, n in log_of(self.service)["attempts"].items()}, dtype="int64"
        )


@contextmanager
def serving_survey(folder: Path) -> Iterator[Survey]:
    """Serve 2,497 objects in three blocks, 25 of them outside the footprint, and three rows that are rejected."""
    ids = FIRST_ID + 7919 * np.arange(N_ROWS, dtype=np.int64)
    (folder / "cutouts").mkdir()
    blobs = draw_blobs(100)
    files = {int(object_id): folder / "cutouts" / f"{object_id}.jpg" for object_id in ids}
    for n, file in enumerate(files.values()):
        shift, which = divmod(n, len(blobs))
        file.write_bytes(encode(np.roll(blobs[which], shift, axis=1)))
    metallicity = np.full(N_ROWS, 8.9)
    metallicity[[7, 1500, 2400]] = 42.0  # beyond the column's range
    positions = {"ra": np.linspace(100, 260, N_ROWS).round(6), "dec": np.linspace(-5, 60, N_ROWS).round(6)}
    pd.DataFrame({"objID": ids, **positions, "oh_p50": metallicity}).to_csv(folder / "catalog.csv", index=False)
    plan = FaultPlan(seed=SEED_OF_EMULATOR, section=FaultSection(out_of_footprint=OUTSIDE_SHARE))
    accepted = [int(object_id) for object_id in ids[metallicity < 40]]
    outside = frozenset(
        object_id for object_id in accepted if plan.object_fault(object_id).fault is Fault.OUT_OF_FOOTPRINT
    )
    with emulator(folder, out_of_footprint=OUTSIDE_SHARE) as service:
        bodies = {object_id: files[object_id] for object_id in accepted if object_id not in outside}
        yield Survey(service=service, bodies=bodies, outside=outside)


@dataclass(slots=True)
class Run:
    """A started run."""

    pid: int
    wait: Callable[[], int]
    """Wait for the end; return the exit code, -9 after a kill."""
    log: Path
    """File with its errors."""
    is_over: Callable[[], bool] = lambda: False
    """Return whether it has ended; only for runs that were started alone."""

    def was_killed(self) -> bool:
        """Wait for the end, and return whether SIGKILL caused it."""
        code = self.wait()
        assert code in {0, -signal.SIGKILL}, f"a run failed with exit code {code}: {self.log.read_text()[-3000:]}"
        return code != 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def kill_group(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)


class Launcher:
    """Server process that forks one run at a time, with all imports done."""

    def __init__(self, log: Path) -> None:
        # a process with threads of numerical libraries must not fork
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._errors = log
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [*PROGRAM, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def __enter__(self) -> Launcher:
        assert self._read() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._log.close()

    def start(self, arguments: Sequence[str], environment: dict[str, str] | None = None) -> Run:
        self._process.stdin.write(json.dumps({"arguments": arguments, "environment": environment or {}}) + "\n")
        self._process.stdin.flush()
        return Run(pid=int(self._read()), wait=lambda: int(self._read()), log=self._errors)

    def _read(self) -> str:
        return str(self._process.stdout.readline()).strip()


@contextmanager
def started_alone(arguments: Sequence[str], log: Path) -> Iterator[Run]:
    """Start a run in a new process group."""
    with (
        log.open("ab") as stderr,
        subprocess.Popen([*PROGRAM, *arguments], stderr=stderr, cwd=ROOT, start_new_session=True) as process,
    ):
        yield Run(pid=process.pid, wait=process.wait, log=log, is_over=lambda: process.poll() is not None)


@contextmanager
def killed_after(seconds: float, kill: Callable[[], None]) -> Iterator[None]:
    """Kill a run after some seconds, unless it has ended."""
    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def wait_for(is_so: Callable[[], bool], what: str, *, seconds: float = 180) -> None:
    deadline_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline_s, f"after {seconds} s still waiting for {what}"
        time.sleep(0.02)


def warm_up() -> None:
    """Import modules and compile code in a worker before its first task."""
    importlib.import_module("galstore.ingest.fill")
    build_pyramid(np.zeros((1, 128, 128, 3), dtype=np.uint8))


def wait_until_idle(workers: distributed.Client) -> None:
    """Wait until no task of a killed run is left; running tasks end normally."""

    def is_idle() -> bool:
        if workers.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            return False
        return not any(workers.run(lambda dask_worker: len(dask_worker.active_threads)).values())

    wait_for(is_idle, "the workers to finish what a killed run began")


def wait_until_gone(group: int) -> None:
    """Wait until no process of a group is left; workers end with their run."""

    def is_gone() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    wait_for(is_gone, f"the processes of group {group} to end")


@dataclass(slots=True)
class KillCounts:
    """Counts over all kills."""

    kills: Counter[str] = field(default_factory=Counter)
    n_acknowledged: int = 0
    n_cubes: int = 0
    n_before_creation: int = 0
    """Kills before the cube's first commit."""
    n_escaped: int = 0
    """Runs that ended before their kill; they are repeated."""
    n_repeated: int = 0
    max_repeated: int = 0
    n_lost: int = 0
    n_doubled: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({kinds}) of {self.n_cubes} cubes, {self.n_before_creation} before "
            f"its creation; {self.n_escaped} runs escaped; "
            f"{self.n_acknowledged} acknowledged commits of blocks; {self.n_repeated} objects requested again, at most "
            f"{self.max_repeated} after one kill; {self.n_lost} lost, {self.n_doubled} doubled"
        )


class KilledCube:
    """A cube that is filled by runs that are killed, and its checks."""

    def __init__(self, path: str, folder: Path, survey: Survey, kill_counts: KillCounts) -> None:
        self.path = path
        self.ledger = folder / f"ledger-{kill_counts.n_cubes}.jsonl"
        self._survey = survey
        self._counts = kill_counts
        self._attempts = survey.attempts()
        self._settled: set[int] = set()
        self._n_read = 0
        kill_counts.n_cubes += 1

    def arguments(self, *more: str) -> list[str]:
        return ["--path", self.path, "--service", self._survey.service.base_url, "--ledger", str(self.ledger), *more]

    def acknowledged(self) -> list[dict[str, Any]]:
        """Return the acknowledged steps; a line that a kill cut short does not count."""
        if not self.ledger.exists():
            return []
        whole, _, _ = self.ledger.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    @property
    def is_registered(self) -> bool:
        return any(line["event"] == "registered" for line in self.acknowledged())

    @property
    def share_pending(self) -> float:
        """Share of pending objects at the last check."""
        return 1 - len(self._settled) / self._survey.n_objects

    def check(self) -> Cube | None:
        """Check the cube after a kill: it has all acknowledged objects, and none was requested again."""
        kill_counts, lines = self._counts, self.acknowledged()
        kill_counts.n_acknowledged += sum(line["event"] == "filled" for line in lines[self._n_read :])
        self._n_read = len(lines)
        try:
            cube = open_cube(self.path)
        except StoreNotFoundError:
            assert not lines, "a cube that was there is gone"
            kill_counts.n_before_creation += 1
            return None
        ids = cube.read_catalog(["object_id"])["object_id"].to_numpy()
        status = cube.read_state("status")
        assert cube.counts().add_up
        kill_counts.n_doubled += ids.size - np.unique(ids).size
        assert np.unique(ids).size == ids.size
        assert set(ids) <= self._survey.bodies.keys() | self._survey.outside
        for line in lines:
            if line["event"] == "registered":
                assert line["n_objects"] <= ids.size
                assert line["n_rejected"] == len(cube.read_rejected()) == N_REJECTED
            if line["event"] == "filled":
                acknowledged = (
                    np.unpackbits(np.frombuffer(bytes.fromhex(line["rows"]), dtype=np.uint8))[: ids.size] == 1
                )
                missing = acknowledged & (status[: acknowledged.size] == Status.PENDING)
                kill_counts.n_lost += int(missing.sum())
                assert not missing.any(), f"{missing.sum()} acknowledged objects are lost"
        self._check_bodies(cube, ids, status)
        self._check_requests(set(ids[status != Status.PENDING].tolist()))
        verification = verify_cube(cube)
        assert verification.ok, verification.problems
        return cube

    def _check_bodies(self, cube: Cube, ids: np.ndarray, status: np.ndarray) -> None:
        digests, lengths = cube.read_state("body_sha256"), cube.read_state("body_length")
        bodies = np.asarray(cube.array("delivered/body")[:])
        for row in np.flatnonzero(status == Status.STORED):
            digest = hashlib.sha256(self._survey.bodies[int(ids[row])].read_bytes()).digest()
            assert digests[row].tobytes() == digest
            assert hashlib.sha256(bodies[row, : lengths[row]].tobytes()).digest() == digest
        outside = ids[status == Status.QUARANTINED]
        assert set(outside.tolist()) <= self._survey.outside
        assert (cube.read_state("reason")[status == Status.QUARANTINED] == Reason.OUT_OF_FOOTPRINT).all()

    def _check_requests(self, settled: set[int]) -> None:
        """Check that objects settled at the last check were not requested since."""
        now = self._survey.attempts()
        since = now.sub(self._attempts, fill_value=0).astype(int)
        requested = since[since > 0]
        repeated = self._settled & set(requested.index)
        assert not repeated, f"{len(repeated)} settled objects were requested again, the first is {min(repeated)}"
        # requests beyond the first of each newly settled object are repeats
        n_repeats = int(requested.sum()) - len(settled - self._settled)
        self._counts.n_repeated += n_repeats
        self._counts.max_repeated = max(self._counts.max_repeated, n_repeats)
        self._attempts, self._settled = now, settled

    def check_complete(self) -> None:
        """Check the cube after a complete run: nothing is missing, and pixels equal the delivered images."""
        cube = self.check()
        assert cube is not None, f"there is no cube at {self.path}"
        counts = cube.counts()
        assert (counts.registered, counts.quarantined, counts.pending) == (
            self._survey.n_objects,
            len(self._survey.outside),
            0,
        )
        assert len(cube.read_rejected()) == N_REJECTED
        ids = cube.read_catalog(["object_id"])["object_id"].to_numpy()
        rows = np.flatnonzero(cube.read_state("status") == Status.STORED)
        for row, pixels in zip(rows[::7], cube.read_pixels(128, rows[::7]), strict=True):
            assert np.array_equal(pixels, simplejpeg.decode_jpeg(self._survey.bodies[int(ids[row])].read_bytes()))
