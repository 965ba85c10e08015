"""Services: the server, the worker and the keeper that starts them again; each runs once and ends for certain."""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from filelock import FileLock, Timeout

from flows.service.directory import Home, ServiceRecord, api_url
from flows.service.processes import (
    end_processes,
    last_lines,
    marked_environment,
    marked_processes,
    start_process,
    wait_until,
)
from schemas.errors import ServiceError

POOL = "galstore"
SERVER_START_S = 180.0
LOCK_S = 300.0
QUICK_END_S = 20.0
LONGEST_PAUSE_S = 60.0

SERVER, WORKER, KEEPER = "server", "worker", "keeper"


@contextmanager
def changing(home: Home) -> Iterator[None]:
    """One process at a time starts and ends the services of a home.

    Raises
    ------
    ServiceError
        Another one has been at it for minutes.
    """
    try:
        with FileLock(home.folder / "change.lock", timeout=LOCK_S):
            yield
    except Timeout as error:
        raise ServiceError(
            f"another `galstore up` or `down` has held {home.folder} for {LOCK_S:.0f} s: look at it"
        ) from error


def server_answers(home: Home, port: int) -> bool:
    """Whether this home's own server answers there, and not that of another home, which may have taken the port."""
    server = living_service(home, SERVER)
    try:
        listens = server is not None and any(
            one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in server.net_connections("tcp")
        )
        if not listens:
            return False
        with urllib.request.urlopen(f"{api_url(port)}/health", timeout=5) as answer:  # noqa: S310 - loopback
            return bool(answer.read().strip() == b"true")
    except (OSError, psutil.Error):
        return False


def service_command(service: str, home: Home) -> list[str]:
    """The command line of a service."""
    prefect = [sys.executable, "-m", "prefect"]
    return {
        SERVER: [*prefect, "server", "start"],
        WORKER: [*prefect, "worker", "start", "--pool", POOL, "--type", "process", "--name", worker_name(home)],
        KEEPER: [sys.executable, "-m", "flows.service.supervisor", str(home.folder)],
    }[service]


def worker_name(home: Home) -> str:
    """Name of this machine's worker in the pool."""
    import platform

    return f"galstore-{platform.node() or 'here'}-{home.folder.name}"


def living_service(home: Home, service: str) -> psutil.Process | None:
    """The process of a service, if it lives; also one whose record was lost, as on a full disk.

    It is known by its mark and its command line: numbers of processes are used again, and the time at which one began
    changes with the clock, as after a machine's sleep.
    """
    record = ServiceRecord.read(home.record_file(service))
    if record is not None:
        with suppress(psutil.NoSuchProcess):
            recorded = psutil.Process(record.pid)
            if _is_service(recorded, home, service):
                return recorded
    return _unrecorded(home, service)


def _is_service(process: psutil.Process, home: Home, service: str) -> bool:
    try:
        # whichever Python it was started with
        is_it = process.cmdline()[1:] == service_command(service, home)[1:]
    except psutil.Error:
        return False
    return is_it and marked_environment(process, home) is not None


def _unrecorded(home: Home, service: str) -> psutil.Process | None:
    for process, _ in marked_processes(home):
        if not _is_service(process, home, service):
            continue
        try:
            port = int(process.environ()["PREFECT_SERVER_API_PORT"])
            record = ServiceRecord(pid=process.pid, started_at=process.create_time(), port=port)
        except psutil.Error:
            continue
        record.write(home.record_file(service))
        return process
    return None


def port_of(home: Home) -> int | None:
    """Port of the server, as it was last."""
    record = ServiceRecord.read(home.record_file(SERVER))
    return None if record is None else record.port


def ensure_service(home: Home, service: str, port: int) -> bool:
    """Start a service unless it lives; whether it was started."""
    if living_service(home, service) is not None:
        return False
    record = ServiceRecord.read(home.record_file(service))
    ended_quickly = record is not None and time.time() - record.started_at < QUICK_END_S
    process = start_process(
        service_command(service, home),
        log=home.log_file(service),
        folder=home.folder,
        environment=home.environment(port),
    )
    ServiceRecord(
        pid=process.pid,
        started_at=process.create_time(),
        port=port,
        n_quick_ends=record.n_quick_ends + 1 if record and ended_quickly else 0,
    ).write(home.record_file(service))
    return True


def may_start_again(home: Home, service: str) -> bool:
    """Whether a service that ended is due: one that keeps ending at once gets longer and longer pauses."""
    record = ServiceRecord.read(home.record_file(service))
    if record is None:
        return True
    return time.time() - record.started_at > min(LONGEST_PAUSE_S, 2.0**record.n_quick_ends)


def await_server(home: Home, port: int) -> None:
    """Wait until the server answers.

    Raises
    ------
    ServiceError
        It ended, or does not answer in time.
    """
    wait_until(lambda: server_answers(home, port) or living_service(home, SERVER) is None, within_s=SERVER_START_S)
    if server_answers(home, port):
        return
    state = "does not answer" if living_service(home, SERVER) else "ended"
    raise ServiceError(
        f"Prefect's server {state} on {api_url(port)}; its log {home.log_file(SERVER)} ends with: "
        f"{last_lines(home.log_file(SERVER))}"
    )


def end_service(home: Home, service: str, *, patience_s: float = 15.0) -> bool:
    """End a service, if it lives, and forget it; whether it lived."""
    process = living_service(home, service)
    if process is not None:
        end_processes([process], patience_s=patience_s)
    if service != SERVER:
        # the server's keeps the port, so that addresses stay what they were
        home.record_file(service).unlink(missing_ok=True)
    return process is not None
