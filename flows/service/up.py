"""Starting and stopping: all services of a home, in order, as often as one likes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.service.deploy import (
    Choice,
    await_schedules,
    deploy,
    ensure_automations,
    ensure_pool,
    fill_in,
    find_deployment_file,
    pause_pool,
)
from flows.service.directory import Home, ServiceRecord, choose_port, is_free
from flows.service.prefect_settings import SETTINGS_FILE, remove_settings, settings_text, write_settings
from flows.service.processes import end_processes, marked_processes
from flows.service.services import (
    KEEPER,
    SERVER,
    WORKER,
    await_server,
    changing,
    end_service,
    ensure_service,
    living_service,
    port_of,
    server_answers,
)
from schemas.errors import ServiceError

Tell = Callable[[str], None]

N_PORTS = 3
"""Ports that are tried: between its choice and the moment when a server listens on it, a port can be taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What is up.

    Attributes
    ----------
    shell_is_set
        Whether `prefect` finds the server in this folder by itself.
    inbox
        Folder whose catalogs are scored.
    """

    ui_url: str
    shell_is_set: bool
    inbox: Path


def start_services(home: Home, folder: Path, choice: Choice, *, port: int | None, tell: Tell) -> Started:
    """Start what does not run, deploy, and see that runs are scheduled.

    Parameters
    ----------
    folder
        Where runs work, and where `prefect.toml` is written.
    port
        Of the server; None = the last one, the usual one, or any free one.

    Raises
    ------
    ServiceError
        The port is taken, the server does not start, Prefect refuses the deployments, or nothing gets scheduled.
    """
    described = fill_in(find_deployment_file(folder).read_text(encoding="utf-8"), choice, folder)
    choice.remember(home)
    with changing(home):
        chosen = _start_server(home, port, tell)
        os.environ.update(home.environment(chosen))
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            ensure_pool(client)
            deploy(home, described, chosen)
            ensure_automations()
            for service in (WORKER, KEEPER):
                tell(f"{service}: {'started' if ensure_service(home, service, chosen) else 'runs already'}")
            counts = await_schedules(client)
        tell(f"deployed: {', '.join(one['name'] for one in described['deployments'])}")
        tell(f"scheduled: {', '.join(f'{name} ({n})' for name, n in sorted(counts.items())) or 'nothing'}")
        shell_is_set = write_settings(folder, chosen)
    if not shell_is_set:
        tell(f"{SETTINGS_FILE} of this folder is your own and was left alone; for it:\n{settings_text(chosen)}")
    return Started(ui_url=f"http://127.0.0.1:{chosen}", shell_is_set=shell_is_set, inbox=_inbox(described, folder))


def _start_server(home: Home, port: int | None, tell: Tell) -> int:
    alive = living_service(home, SERVER)
    record = ServiceRecord.read(home.record_file(SERVER))
    if record is not None and alive is not None:
        if port not in (None, 0, record.port):
            raise ServiceError(
                f"the server of {home.folder} runs on port {record.port}, not {port}: `galstore down` first, or leave "
                "--port out"
            )
        await_server(home, record.port)
        tell("server: runs already")
        return record.port
    for n_left in reversed(range(N_PORTS)):
        chosen = choose_port(port, None if record is None else record.port)
        if record is not None and record.port != chosen:
            # what still lives was told the old address
            for service in (KEEPER, WORKER):
                end_service(home, service)
        ensure_service(home, SERVER, chosen)
        tell(f"server: starting on port {chosen}")
        try:
            await_server(home, chosen)
            break
        except ServiceError:
            # another program, perhaps the server of another home, may have taken the port since it was chosen
            if port or is_free(chosen) or n_left == 0:
                raise
            end_service(home, SERVER)
            record = ServiceRecord.read(home.record_file(SERVER))
    return chosen


def _inbox(described: dict[str, object], folder: Path) -> Path:
    from flows.service.inbox import inbox_folder

    for deployment in described["deployments"]:  # type: ignore[attr-defined]
        if deployment["name"] == "inbox":
            parameters = deployment["parameters"]
            found = inbox_folder(
                parameters.get("recipe", "demo"), parameters.get("overrides"), parameters.get("folder")
            )
            (folder / found).mkdir(parents=True, exist_ok=True)
            return folder / found
    return folder


def stop_services(home: Home, folder: Path, *, wait_s: float, tell: Tell) -> int:
    """End every process of a home; how many there were.

    Parameters
    ----------
    wait_s
        Seconds that runs under way get to finish.
    """
    if not home.folder.is_dir():
        return 0
    with changing(home):
        n = sum(1 for _ in marked_processes(home))
        end_service(home, KEEPER)
        port = port_of(home)
        if port is not None and server_answers(home, port):
            _end_runs(home, port, wait_s, tell)
        end_service(home, WORKER)
        end_processes(process for process, run in marked_processes(home) if run)
        end_service(home, SERVER)
        end_processes(process for process, _ in marked_processes(home))
        remove_settings(folder)
    return n


def _end_runs(home: Home, port: int, wait_s: float, tell: Tell) -> None:
    os.environ.update(home.environment(port))
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    from flows.service.flow_runs import end_runs

    try:
        with get_client(sync_client=True) as client:
            pause_pool(client)
            end_runs(client, wait_s=wait_s, tell=tell)
    except (httpx.HTTPError, PrefectException) as error:
        # whatever the server does, its processes end; the next `up` settles the runs
        tell(f"the server could not be told of the runs that end now ({error}); `galstore up` will tell it")
