"""Home: the folder of a galstore service, where its server keeps its database, and what its processes are told."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.errors import ServiceError

HOST = "127.0.0.1"
USUAL_PORT = 4200
MARK = "GALSTORE_HOME"
"""Every process of a service has its home in this variable, and so have all that they start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where one service lives.

    Attributes
    ----------
    folder
        Its database, logs and records of processes; kept when the service ends.
    """

    folder: Path

    @property
    def prefect_folder(self) -> Path:
        return self.folder / "prefect"

    @property
    def deployed_file(self) -> Path:
        """What was deployed last, with recipe and places filled in."""
        return self.folder / "prefect.yaml"

    def log_file(self, service: str) -> Path:
        return self.folder / "logs" / f"{service}.log"

    def record_file(self, service: str) -> Path:
        return self.folder / f"{service}.pid.json"

    def create(self) -> None:
        """Make the folders.

        Raises
        ------
        ServiceError
            That is not possible here.
        """
        try:
            for folder in (self.prefect_folder, self.folder / "logs"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(
                f"the service's folder {self.folder} cannot be made ({error.strerror}): choose another with --home"
            ) from error

    def environment(self, port: int) -> dict[str, str]:
        """What a process of the service is told; the caller's own Prefect profile and login play no part."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in {"PREFECT_PROFILE", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILES_PATH"}
        }
        return inherited | {
            MARK: str(self.folder),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_HOME": str(self.prefect_folder),
            "PREFECT_API_URL": api_url(port),
            "PREFECT_SERVER_API_HOST": HOST,
            # by environment, not by flag: the UI looks for its API where these say
            "PREFECT_SERVER_API_PORT": str(port),
            # kept in memory, a slot of a concurrency limit would be lost with the server
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            # SQLite has one writer; on a loaded machine the others wait longer than the usual 10 s
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            # the plugin is for command lines that people type
            "PREFECT_PLUGINS_ENABLED": "false",
        }


def api_url(port: int) -> str:
    """Where the server's API is; the UI is the same without `/api`."""
    return f"http://{HOST}:{port}/api"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """A process that was started, when, and on which port its server is."""

    pid: int
    started_at: float
    port: int
    n_quick_ends: int = 0

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> ServiceRecord | None:
        """The record at this place; None where there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            # a disk that was full may have left half a record: the process is then found by its mark
            return None


def choose_port(wanted: int | None, remembered: int | None) -> int:
    """A port of loopback that can be listened on: the one that is wanted (0 = any), else the last, the usual, or any.

    Raises
    ------
    ServiceError
        Another program listens on the wanted one.
    """
    if wanted:
        if not is_free(wanted):
            raise ServiceError(
                f"port {wanted} of {HOST} is in use by another program: end it, choose another with --port, or leave "
                "--port out for a free one"
            )
        return wanted
    for port in (remembered, USUAL_PORT) if wanted is None else ():
        if port and is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
