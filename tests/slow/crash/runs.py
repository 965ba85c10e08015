"""Runs that are killed: how they start and die, and what must be true of their cube afterwards."""

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
    """A survey on loopback, and what a cube of it must hold in the end."""

    service: SkyServer
    bodies: dict[int, Path]
    """JPEG of every object that has one."""
    outside: frozenset[int]
    """Objects without."""

    @property
    def n_objects(self) -> int:
        return len(self.bodies) + len(self.outside)

    def n_requests(self) -> int:
        """Requests so far."""
        return int(log_of(self.service)["requests"])

    def attempts(self) -> pd.Series:
        """Requests so far, by object."""
        return pd.Series({int(one): n for one, n in log_of(self.service)["attempts"].items()}, dtype="int64")


@contextmanager
def playing_survey(folder: Path) -> Iterator[Survey]:
    """2,497 objects in three blocks, 25 of them outside the footprint, and three rows that are rejected."""
    ids = FIRST_ID + 7919 * np.arange(N_ROWS, dtype=np.int64)
    (folder / "cutouts").mkdir()
    blobs = draw_blobs(100)
    files = {int(one): folder / "cutouts" / f"{one}.jpg" for one in ids}
    for n, file in enumerate(files.values()):
        shift, which = divmod(n, len(blobs))
        file.write_bytes(encode(np.roll(blobs[which], shift, axis=1)))
    metallicity = np.full(N_ROWS, 8.9)
    metallicity[[7, 1500, 2400]] = 42.0  # beyond the column's range
    places = {"ra": np.linspace(100, 260, N_ROWS).round(6), "dec": np.linspace(-5, 60, N_ROWS).round(6)}
    pd.DataFrame({"objID": ids, **places, "oh_p50": metallicity}).to_csv(folder / "catalog.csv", index=False)
    plan = FaultPlan(seed=SEED_OF_EMULATOR, section=FaultSection(out_of_footprint=OUTSIDE_SHARE))
    kept = [int(one) for one in ids[metallicity < 40]]
    outside = frozenset(one for one in kept if plan.fate(one).fault is Fault.OUT_OF_FOOTPRINT)
    with emulator(folder, out_of_footprint=OUTSIDE_SHARE) as service:
        yield Survey(service=service, bodies={one: files[one] for one in kept if one not in outside}, outside=outside)


@dataclass(slots=True)
class Run:
    """A run under way."""

    pid: int
    wait: Callable[[], int]
    """Blocks until it is over; its exit code, -9 where it was killed."""
    log: Path
    """Where its errors are."""
    is_over: Callable[[], bool] = lambda: False
    """For runs that were started alone."""

    def was_killed(self) -> bool:
        """Wait for its end: by SIGKILL, or when it had done everything."""
        code = self.wait()
        assert code in {0, -signal.SIGKILL}, f"a run failed with exit code {code}: {self.log.read_text()[-3000:]}"
        return code != 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def kill_group(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)


class Launcher:
    """Starts one run at a time, each a process of its own with its imports done."""

    def __init__(self, log: Path) -> None:
        # no thread of a numerical library may be under way where processes fork
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._errors = log
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [*PROGRAM, "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip

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
    """A run in a process group of its own, with its imports before it."""
    with (
        log.open("ab") as stderr,
        subprocess.Popen([*PROGRAM, *arguments], stderr=stderr, cwd=ROOT, start_new_session=True) as process,
    ):
        yield Run(pid=process.pid, wait=process.wait, log=log, is_over=lambda: process.poll() is not None)


@contextmanager
def killed_after(seconds: float, kill: Callable[[], None]) -> Iterator[None]:
    """Kill a run at a moment, unless it is over by then."""
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
    """In a worker: what its first task would else do, imports and compiled code."""
    importlib.import_module("galstore.ingest.fill")
    build_pyramid(np.zeros((1, 128, 128, 3), dtype=np.uint8))


def wait_until_idle(workers: distributed.Client) -> None:
    """Until no task of a killed run is left: what is being fetched when its run dies is fetched to the end."""

    def is_idle() -> bool:
        if workers.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            return False
        return not any(workers.run(lambda dask_worker: len(dask_worker.active_threads)).values())

    wait_for(is_idle, "the workers to finish what a killed run began")


def wait_until_gone(group: int) -> None:
    """Until no process of a group is left: workers end with their run."""

    def is_gone() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    wait_for(is_gone, f"the processes of group {group} to end")


@dataclass(slots=True)
class Tally:
    """What all kills came to."""

    kills: Counter[str] = field(default_factory=Counter)
    n_acknowledged: int = 0
    n_cubes: int = 0
    n_unborn: int = 0
    """Kills before the cube's first commit."""
    n_escaped: int = 0
    """Runs that were done before their kill came; they are run again."""
    n_asked_again: int = 0
    most_asked_again: int = 0
    n_lost: int = 0
    n_doubled: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({kinds}) of {self.n_cubes} cubes, {self.n_unborn} before there was a cube, "
            f"{self.n_escaped} runs escaped; "
            f"{self.n_acknowledged} acknowledged commits of blocks; {self.n_asked_again} objects asked again, at most "
            f"{self.most_asked_again} after one kill; {self.n_lost} lost, {self.n_doubled} doubled"
        )


class Life:
    """One cube on its way to completeness through many kills."""

    def __init__(self, path: str, folder: Path, survey: Survey, tally: Tally) -> None:
        self.path = path
        self.ledger = folder / f"ledger-{tally.n_cubes}.jsonl"
        self._survey = survey
        self._tally = tally
        self._attempts = survey.attempts()
        self._settled: set[int] = set()
        self._n_read = 0
        tally.n_cubes += 1

    def arguments(self, *more: str) -> list[str]:
        return ["--path", self.path, "--service", self._survey.service.base_url, "--ledger", str(self.ledger), *more]

    def acknowledged(self) -> list[dict[str, Any]]:
        """What runs said that they have; a line that a kill cut short was not said."""
        if not self.ledger.exists():
            return []
        whole, _, _ = self.ledger.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    @property
    def is_registered(self) -> bool:
        return any(line["event"] == "registered" for line in self.acknowledged())

    @property
    def share_pending(self) -> float:
        """Of the survey's objects, as of the last check."""
        return 1 - len(self._settled) / self._survey.n_objects

    def check(self) -> Cube | None:
        """After a kill: the cube opens, adds up, and has all that was acknowledged; what it had was not asked again."""
        tally, lines = self._tally, self.acknowledged()
        tally.n_acknowledged += sum(line["event"] == "filled" for line in lines[self._n_read :])
        self._n_read = len(lines)
        try:
            cube = open_cube(self.path)
        except StoreNotFoundError:
            assert not lines, "a cube that was there is gone"
            tally.n_unborn += 1
            return None
        ids = cube.read_catalog(["object_id"])["object_id"].to_numpy()
        status = cube.read_state("status")
        assert cube.counts().add_up
        tally.n_doubled += ids.size - np.unique(ids).size
        assert np.unique(ids).size == ids.size
        assert set(ids) <= self._survey.bodies.keys() | self._survey.outside
        for line in lines:
            if line["event"] == "registered":
                assert line["n_objects"] <= ids.size
                assert line["n_rejected"] == len(cube.read_rejected()) == N_REJECTED
            if line["event"] == "filled":
                said = np.unpackbits(np.frombuffer(bytes.fromhex(line["rows"]), dtype=np.uint8))[: ids.size] == 1
                missing = said & (status[: said.size] == Status.PENDING)
                tally.n_lost += int(missing.sum())
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
        """Since the last check, nobody asked for what was settled then."""
        now = self._survey.attempts()
        since = now.sub(self._attempts, fill_value=0).astype(int)
        asked = since[since > 0]
        repeated = self._settled & set(asked.index)
        assert not repeated, f"{len(repeated)} settled objects were asked for again, the first is {min(repeated)}"
        # an object that is not settled by now will be asked for again, unless its request is this run's first
        n_again = int(asked.sum()) - len(settled - self._settled)
        self._tally.n_asked_again += n_again
        self._tally.most_asked_again = max(self._tally.most_asked_again, n_again)
        self._attempts, self._settled = now, settled

    def check_complete(self) -> None:
        """After a run that was let to its end: nothing is missing, and every pixel is as it was delivered."""
        cube = self.check()
        assert cube is not None, f"there is no cube at {self.path}"
        counts = cube.counts()
        assert (counts.registered, counts.quarantined, counts.pending) == (
            self._survey.n_objects, len(self._survey.outside), 0,
        )  # fmt: skip
        assert len(cube.read_rejected()) == N_REJECTED
        ids = cube.read_catalog(["object_id"])["object_id"].to_numpy()
        rows = np.flatnonzero(cube.read_state("status") == Status.STORED)
        for row, pixels in zip(rows[::7], cube.read_pixels(128, rows[::7]), strict=True):
            assert np.array_equal(pixels, simplejpeg.decode_jpeg(self._survey.bodies[int(ids[row])].read_bytes()))
