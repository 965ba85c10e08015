"""Processes of a service: started so that they outlive the command, recognised for certain, ended for certain."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from flows.service.directory import MARK, Home

FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""What a worker tells the process of a flow run, and all that this starts."""

LOG_BYTES = 50_000_000
"""A log that is longer is set aside when its service starts again, and the one set aside before is dropped."""


def start_process(command: Sequence[str], *, log: Path, folder: Path, environment: dict[str, str]) -> psutil.Process:
    """Start a program in a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it."""
    # a worker cannot be interrupted where a script that ignores these signals starts it
    for name in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(name) is signal.SIG_IGN:
            signal.signal(name, signal.SIG_DFL)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=environment,
            start_new_session=True,
        )  # fmt: skip
    return psutil.Process(process.pid)


def marked_processes(home: Home) -> Iterator[tuple[psutil.Process, str]]:
    """Every living process of this service and what these started, with the id of its flow run or nothing."""
    for process in psutil.process_iter():
        environment = marked_environment(process, home)
        if environment is not None:
            yield process, environment.get(FLOW_RUN, "")


def marked_environment(process: psutil.Process, home: Home) -> dict[str, str] | None:
    """What a living process of this service was told; None for any other process."""
    try:
        environment = process.environ()
        is_ours = environment.get(MARK) == str(home.folder) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return None
    return environment if is_ours else None


def living_flow_runs(home: Home) -> frozenset[str]:
    """Ids of the flow runs whose own process lives on this machine."""
    return frozenset(run for process, run in marked_processes(home) if run and _runs_a_flow(process))


def end_orphans(home: Home) -> int:
    """End what flow runs left behind when they were killed, such as a survey's emulator; how many there were."""
    alive = living_flow_runs(home)
    return end_processes(process for process, run in marked_processes(home) if run and run not in alive)


def _runs_a_flow(process: psutil.Process) -> bool:
    try:
        return any("prefect" in word for word in process.cmdline())
    except psutil.Error:
        return False


def end_processes(processes: Iterable[psutil.Process], *, patience_s: float = 10.0) -> int:
    """Ask some processes to end, and kill those that do not; how many there were."""
    asked = []
    for process in processes:
        try:
            process.terminate()
            asked.append(process)
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(asked, timeout=patience_s)
    for process in stubborn:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(stubborn, timeout=patience_s)
    return len(asked)


def last_lines(log: Path, n: int = 5) -> str:
    """The end of a log, for an error message."""
    if not log.exists():
        return "(it wrote nothing)"
    return " | ".join(line for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-n:] if line)


def wait_until(is_so: Callable[[], bool], *, within_s: float, every_s: float = 0.5) -> bool:
    """Whether a condition comes true in time."""
    deadline_s = time.monotonic() + within_s
    while True:
        if is_so():
            return True
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(every_s)
