"""Server, worker and supervisor of a service: start each of them once, find it, and stop it."""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from filelock import FileLock, Timeout

from flows.service.directory import ServiceDirectory, ServiceRecord, api_url
from flows.service.processes import (
    last_lines,
    service_environment,
    service_processes,
    start_process,
    stop_processes,
    wait_until,
)
from schemas.errors import ServiceError

POOL = "galstore"
SERVER_START_S = 180.0
LOCK_S = 300.0
QUICK_END_S = 20.0
LONGEST_PAUSE_S = 60.0

SERVER, WORKER, SUPERVISOR = "server", "worker", "supervisor"


@contextmanager
def service_lock(directory: ServiceDirectory) -> Iterator[None]:
    """Allow one process at a time to start and stop services."""
    try:
        with FileLock(directory.folder / "change.lock", timeout=LOCK_S):
            yield
    except Timeout as error:
        message = (
            f"another `galstore up` or `down` has locked {directory.folder} for {LOCK_S:.0f} s: check that process"
        )
        raise ServiceError(message) from error


def server_answers(directory: ServiceDirectory, port: int) -> bool:
    """Check that this service's server, and not another one that took the port, answers."""
    server = running_service(directory, SERVER)
    try:
        listens = server is not None and any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in server.net_connections("tcp")
        )
        if not listens:
            return False
        with urllib.request.urlopen(f"{api_url(port)}/health", timeout=5) as response:  # noqa: S310 - loopback
            return bool(response.read().strip() == b"true")
    except (OSError, psutil.Error):
        return False


def service_command(service: str, directory: ServiceDirectory) -> list[str]:
    prefect = [sys.executable, "-m", "prefect"]
    return {
        SERVER: [*prefect, "server", "start"],
        WORKER: [*prefect, "worker", "start", "--pool", POOL, "--type", "process", "--name", worker_name(directory)],
        SUPERVISOR: [sys.executable, "-m", "flows.service.supervisor", str(directory.folder)],
    }[service]


def worker_name(directory: ServiceDirectory) -> str:
    """Return the name of this machine's worker in the pool."""
    import platform

    return f"galstore-{platform.node() or 'here'}-{directory.folder.name}"


def running_service(directory: ServiceDirectory, service: str) -> psutil.Process | None:
    """Return the living process of a service, even if its record was lost, as on a full disk.

    A process is identified by its environment and command line: process ids are reused, and start times change with
    the clock, for example after a suspend.
    """
    record = ServiceRecord.read(directory.record_file(service))
    if record is not None:
        with suppress(psutil.NoSuchProcess):
            recorded = psutil.Process(record.pid)
            if _is_service(recorded, directory, service):
                return recorded
    for process, _ in service_processes(directory):
        if _is_service(process, directory, service):
            with suppress(psutil.Error):
                port = int(process.environ()["PREFECT_SERVER_API_PORT"])
                record = ServiceRecord(pid=process.pid, started_at=process.create_time(), port=port)
                record.write(directory.record_file(service))
                return process
    return None


def _is_service(process: psutil.Process, directory: ServiceDirectory, service: str) -> bool:
    try:
        # without the interpreter: another one may have started it
        same_command = process.cmdline()[1:] == service_command(service, directory)[1:]
    except psutil.Error:
        return False
    return same_command and service_environment(process, directory) is not None


def server_port(directory: ServiceDirectory) -> int | None:
    record = ServiceRecord.read(directory.record_file(SERVER))
    return None if record is None else record.port


def ensure_service(directory: ServiceDirectory, service: str, port: int) -> bool:
    """Start a service unless it runs; return True if it was started."""
    if running_service(directory, service) is not None:
        return False
    record = ServiceRecord.read(directory.record_file(service))
    ended_quickly = record is not None and time.time() - record.started_at < QUICK_END_S
    process = start_process(
        service_command(service, directory),
        log=directory.log_file(service),
        folder=directory.folder,
        environment=directory.environment(port),
    )
    ServiceRecord(
        pid=process.pid,
        started_at=process.create_time(),
        port=port,
        n_quick_ends=record.n_quick_ends + 1 if record and ended_quickly else 0,
    ).write(directory.record_file(service))
    return True


def may_restart(directory: ServiceDirectory, service: str) -> bool:
    """Return True if the pause before a restart is over; it doubles each time a service ends right after its start."""
    record = ServiceRecord.read(directory.record_file(service))
    return record is None or time.time() - record.started_at > min(LONGEST_PAUSE_S, 2.0**record.n_quick_ends)


def await_server(directory: ServiceDirectory, port: int) -> None:
    """Wait until the server answers; raise a `ServiceError` if it ended or needs more than `SERVER_START_S`."""
    wait_until(
        lambda: server_answers(directory, port) or running_service(directory, SERVER) is None, within_s=SERVER_START_S
    )
    if server_answers(directory, port):
        return
    state = "does not answer" if running_service(directory, SERVER) else "ended"
    log = directory.log_file(SERVER)
    raise ServiceError(f"Prefect's server {state} on {api_url(port)}; its log {log} ends with: {last_lines(log)}")


def stop_service(directory: ServiceDirectory, service: str) -> None:
    process = running_service(directory, service)
    if process is not None:
        stop_processes([process], timeout_s=15.0)
    if service != SERVER:
        # the server's record stays for its port: addresses remain the same
        directory.record_file(service).unlink(missing_ok=True)
