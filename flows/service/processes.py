"""Processes of a service: start them detached, find them by their environment, and stop them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from flows.service.directory import DIRECTORY_VARIABLE, ServiceDirectory

FLOW_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
"""Environment variable that a worker sets for the process of a flow run; its children inherit it."""

LOG_BYTES = 50_000_000
"""Size at which a log is rotated when its service starts; one old log is kept."""


def start_process(command: Sequence[str], *, log: Path, folder: Path, environment: dict[str, str]) -> psutil.Process:
    """Start a program in a new session, out of reach of Ctrl-C and of the end of the terminal."""
    # a script may have set these signals to be ignored, and children would inherit that
    for name in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(name) is signal.SIG_IGN:
            signal.signal(name, signal.SIG_DFL)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    return psutil.Process(process.pid)


def service_processes(directory: ServiceDirectory) -> Iterator[tuple[psutil.Process, str]]:
    """Yield each living process of the service and its children, with the id of its flow run or an empty string."""
    for process in psutil.process_iter():
        environment = service_environment(process, directory)
        if environment is not None:
            yield process, environment.get(FLOW_RUN_VARIABLE, "")


def service_environment(process: psutil.Process, directory: ServiceDirectory) -> dict[str, str] | None:
    """Return the environment of a living process of this service; None for any other process."""
    try:
        environment = process.environ()
        is_member = environment.get(DIRECTORY_VARIABLE) == str(directory.folder)
        is_alive = process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return None
    return environment if is_member and is_alive else None


def running_flow_runs(directory: ServiceDirectory) -> frozenset[str]:
    """Return the ids of the flow runs with a living process on this machine."""
    return frozenset(run for process, run in service_processes(directory) if run and _runs_a_flow(process))


def stop_orphans(directory: ServiceDirectory) -> int:
    """Stop processes that killed flow runs left behind, such as an emulator; return their number."""
    running = running_flow_runs(directory)
    return stop_processes(process for process, run in service_processes(directory) if run and run not in running)


def _runs_a_flow(process: psutil.Process) -> bool:
    try:
        return any("prefect" in word for word in process.cmdline())
    except psutil.Error:
        return False


def stop_processes(processes: Iterable[psutil.Process], *, timeout_s: float = 10.0) -> int:
    """Terminate processes, kill those still alive after the timeout, and return their number."""
    terminated = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
            terminated.append(process)
    _, alive = psutil.wait_procs(terminated, timeout=timeout_s)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=timeout_s)
    return len(terminated)


def last_lines(log: Path, n: int = 5) -> str:
    """Return the end of a log on one line, for an error message."""
    if not log.exists():
        return "(empty)"
    return " | ".join(line for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-n:] if line)


def wait_until(condition: Callable[[], bool], *, within_s: float, every_s: float = 0.5) -> bool:
    """Poll a condition and return its last value."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(every_s)
    return True
