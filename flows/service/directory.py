"""Folder of a service on one machine: Prefect's database, logs, and a record of each process."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from galstore.atomic_write import atomic_file
from schemas.errors import ServiceError

HOST = "127.0.0.1"
DEFAULT_PORT = 4200
DIRECTORY_VARIABLE = "GALSTORE_HOME"
"""Environment variable with the service's folder; all processes of a service and their children have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDirectory:
    """Folder with the files of one service; it stays when the service stops."""

    folder: Path

    @property
    def prefect_folder(self) -> Path:
        return self.folder / "prefect"

    @property
    def deployed_file(self) -> Path:
        """Path of the `prefect.yaml` that was deployed last, with recipe and paths filled in."""
        return self.folder / "prefect.yaml"

    def log_file(self, service: str) -> Path:
        return self.folder / "logs" / f"{service}.log"

    def record_file(self, service: str) -> Path:
        return self.folder / f"{service}.pid.json"

    def create(self) -> None:
        try:
            for folder in (self.prefect_folder, self.folder / "logs"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot create the service's folder {self.folder} ({error.strerror}): choose another with --home"
            raise ServiceError(message) from error

    def environment(self, port: int) -> dict[str, str]:
        """Return the environment of the service's processes, without the caller's Prefect profile and login."""
        personal = {"PREFECT_PROFILE", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILES_PATH"}
        inherited = {name: value for name, value in os.environ.items() if name not in personal}
        return inherited | {
            DIRECTORY_VARIABLE: str(self.folder),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_HOME": str(self.prefect_folder),
            "PREFECT_API_URL": api_url(port),
            "PREFECT_SERVER_API_HOST": HOST,
            # as a variable and not as a flag: the UI reads the address of its API from these
            "PREFECT_SERVER_API_PORT": str(port),
            # slots of a concurrency limit that are held in memory would be lost when the server stops
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            # SQLite has one writer; on a loaded machine others wait longer than the default 10 s
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            # the plugin is for interactive command lines
            "PREFECT_PLUGINS_ENABLED": "false",
        }


def api_url(port: int) -> str:
    """Return the URL of the server's API; the UI has the same URL without `/api`."""
    return f"http://{HOST}:{port}/api"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """Process id and start time of a service, and the port of the server."""

    pid: int
    started_at: float
    port: int
    n_quick_ends: int = 0

    def write(self, path: Path) -> None:
        with atomic_file(path) as draft:
            draft.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> ServiceRecord | None:
        """Return the record in a file, or None if it is missing or invalid."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            # a full disk may have left half a record; the process is then found by its environment
            return None


def choose_port(wanted: int | None, previous: int | None) -> int:
    """Choose a free port: `wanted` or a `ServiceError`; 0 = any; None = the previous port, the default port, or any."""
    if wanted:
        if not is_free(wanted):
            raise ServiceError(
                f"port {wanted} of {HOST} is in use by another program: stop it, choose another with --port, or leave "
                "--port out for a free one"
            )
        return wanted
    for port in (previous, DEFAULT_PORT) if wanted is None else ():
        if port and is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
