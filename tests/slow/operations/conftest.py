"""Service with server, worker, supervisor and deployments over a small simulated survey, in a temporary folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.service.directory import ServiceDirectory
from flows.service.processes import service_processes
from galstore.cube.reader import open_cube
from galstore.integrity.verify import verify_cube
from tests.conftest import ROOT

TIMEOUT_S = 420.0
"""Long enough for a loaded machine, on which a run takes about 20 s to start."""

SMALL = (
    "emulator.n_galaxies=400",
    "emulator.n_new=60",
    "network.level=16",
    "train.epochs=1",
    "train.batch_size=64",
    "dask.workers=1",
)


INBOX_EVERY_S = 30


@dataclass
class Service:
    """Service in a folder, with the commands of a user and the requests of a program."""

    folder: Path
    overrides: tuple[str, ...] = SMALL
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> ServiceDirectory:
        return ServiceDirectory(folder=self.folder / ".galstore")

    @property
    def cube(self) -> Path:
        return self.folder / "demo" / "cube"

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{json.loads(self.directory.record_file('server').read_text())['port']}/api"

    def galstore(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._call(sys.executable, "-m", "flows.cli", *arguments)

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a prefect command exactly as written, in a shell in this folder."""
        words = " ".join(["prefect", *arguments])
        return self._call("sh", "-c", words)

    @property
    def environment_of_a_shell(self) -> dict[str, str]:
        # without the settings of this process's own Prefect
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
            "DO_NOT_TRACK": "1",
            # only the folder's prefect.toml names the server
            "PREFECT_HOME": str(self.folder / "prefect-of-the-user"),
            "PYTHONUNBUFFERED": "1",
            **self.environment,
        }

    def _call(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment_of_a_shell,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def up(self, *more: str) -> subprocess.CompletedProcess[str]:
        sets = [word for override in self.overrides for word in ("--set", override)]
        done = self.galstore("up", *sets, *more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}{path}", data=data, headers={"Content-Type": "application/json"})
        deadline_s = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                # SQLite is busy; Prefect's clients retry, too
                if error.code != 503 or time.monotonic() > deadline_s:
                    raise
            time.sleep(1.0)

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a run and return its id."""
        found = self.ask(f"/deployments/name/{deployment}/{deployment}")
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"])

    def state_of(self, run: str) -> dict[str, Any]:
        return self.ask(f"/flow_runs/{run}")["state"]

    def await_state(self, run: str, *wanted: str) -> dict[str, Any]:
        """Wait for a state by name or type; by default for any final state."""
        wanted = wanted or ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        def reached() -> dict[str, Any] | None:
            try:
                state = self.state_of(run)
            except OSError:
                return None  # the server restarts
            return state if {state["type"], state["name"]} & set(wanted) else None

        return eventually(reached, what=f"run {run} to be {' or '.join(wanted)}")

    def complete(self, deployment: str, **parameters: Any) -> str:
        run = self.start(deployment, **parameters)
        state = self.await_state(run)
        assert state["type"] == "COMPLETED", (state["name"], state["message"])
        return run

    def runs(self, *types: str, **more: Any) -> list[dict[str, Any]]:
        return self.ask("/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": list(types)}}}, **more})

    def flow_process(self, run: str) -> psutil.Process:
        """Return the process of a run."""

        def found() -> psutil.Process | None:
            processes = [process for process, run_id in service_processes(self.directory) if run_id == run]
            engines = [process for process in processes if any("prefect" in word for word in process.cmdline())]
            return engines[-1] if engines else None

        return eventually(found, what=f"a process of run {run}")

    def record(self, service: str, *, other_than: int | None = None) -> psutil.Process:
        """Wait for the recorded process of the server, the worker or the supervisor to be alive, and return it."""

        def found() -> psutil.Process | None:
            try:
                process = psutil.Process(json.loads(self.directory.record_file(service).read_text())["pid"])
            except psutil.NoSuchProcess:
                return None
            return process if process.is_running() and process.pid != other_than else None

        return eventually(found, what=f"a living {service}")

    def await_server(self) -> None:
        """Wait until the server answers."""

        def answers() -> bool:
            try:
                return self.ask("/health") is True
            except OSError:
                return False

        eventually(answers, what="the server to answer")

    def stored(self, cube: Path | None = None) -> int:
        return open_cube(str(cube or self.cube)).counts().stored

    def assert_sound(self, path: Path | None = None) -> None:
        """Check that the cube verifies, its counts add up, no object is pending, and ids are unique."""
        cube = open_cube(str(path or self.cube))
        counts = cube.counts()
        assert counts.add_up
        assert counts.pending == 0
        assert cube.read_catalog(["object_id"])["object_id"].is_unique
        checked = verify_cube(cube)
        assert checked.ok, checked

    def assert_nothing_seems_to_run(self) -> None:
        """Check that the server shows no active run within three minutes."""
        eventually(lambda: not self.runs("RUNNING", "PENDING", "CANCELLING"), what="no run under way", within_s=180)


def eventually(look: Callable[[], Any], *, what: str, within_s: float = TIMEOUT_S) -> Any:
    """Poll `look` until it returns a true value, and return that."""
    deadline_s = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline_s, f"waited {within_s:.0f} s for {what}"
        time.sleep(0.5)


def deployment_file(**changes: Callable[[dict[str, Any]], None]) -> str:
    """Return the project's `prefect.yaml` with some deployments changed."""
    described = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    described.pop("definitions")
    for deployment in described["deployments"]:
        # YAML's anchors share one pool section among deployments: copy it
        deployment.update(json.loads(json.dumps(deployment)))
        change = changes.get(deployment["name"])
        if change is not None:
            change(deployment)
    return yaml.safe_dump(described)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start a service; the schedule of its inbox is short enough to fire within the tests."""
    started = Service(folder=tmp_path_factory.mktemp("service"))

    def look_often(inbox: dict[str, Any]) -> None:
        inbox["schedules"] = [{"slug": "watch", "interval": INBOX_EVERY_S, "active": True}]
        inbox["parameters"]["settle_s"] = 1.0

    (started.folder / "prefect.yaml").write_text(deployment_file(inbox=look_often))
    try:
        started.up("--port", "0")
        yield started
    finally:
        ended = started.galstore("down", "--wait", "0")
        left = [process.cmdline() for process, _ in service_processes(started.directory)]
        for process, _ in service_processes(started.directory):
            process.kill()
    assert not left, ended.stdout + ended.stderr


@pytest.fixture(scope="session")
def ingested(service: Service) -> Service:
    """Return the service after the documented command has run."""
    done = service.prefect("deployment run ingest --watch --watch-timeout 200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Flow run finished successfully in 'Completed'" in done.stdout
    return service
