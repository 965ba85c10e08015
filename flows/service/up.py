"""Start and stop all services of a folder; repeated calls are harmless."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.service.deploy import (
    DeployedRecipe,
    await_schedules,
    deploy,
    ensure_automations,
    ensure_pool,
    fill_deployments,
    find_deployment_file,
    pause_pool,
)
from flows.service.directory import ServiceDirectory, ServiceRecord, choose_port, is_free
from flows.service.prefect_settings import SETTINGS_FILE, remove_settings, settings_text, write_settings
from flows.service.processes import service_processes, stop_processes
from flows.service.services import (
    SERVER,
    SUPERVISOR,
    WORKER,
    await_server,
    ensure_service,
    running_service,
    server_answers,
    server_port,
    service_lock,
    stop_service,
)
from schemas.errors import ServiceError

N_PORTS = 3
"""Number of ports to try: another program may take a port before the server listens on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningService:
    """Addresses of a service that was started."""

    ui_url: str
    prefect_is_configured: bool  # `prefect` finds the server when it is called in this folder
    inbox: Path


def start_services(
    directory: ServiceDirectory,
    folder: Path,
    deployed: DeployedRecipe,
    *,
    port: int | None,
    report: Callable[[str], None],
) -> RunningService:
    """Start the services that do not run, deploy, and wait until runs are scheduled.

    Parameters
    ----------
    folder
        Working folder of the runs; `prefect.toml` is written there.
    port
        Port of the server; None = the previous one, the default one, or any free one.

    Raises
    ------
    ServiceError
        The port is in use, the server does not start, Prefect refuses the deployments, or runs are not scheduled.
    """
    content = fill_deployments(find_deployment_file(folder).read_text(encoding="utf-8"), deployed, folder)
    deployed.save(directory)
    with service_lock(directory):
        port = _start_server(directory, port, report)
        os.environ.update(directory.environment(port))
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            ensure_pool(client)
            deploy(directory, content, port)
            ensure_automations()
            for service in (WORKER, SUPERVISOR):
                report(f"{service}: {'started' if ensure_service(directory, service, port) else 'already running'}")
            counts = await_schedules(client)
        report(f"deployed: {', '.join(deployment['name'] for deployment in content['deployments'])}")
        report(f"scheduled: {', '.join(f'{name} ({n})' for name, n in sorted(counts.items())) or 'nothing'}")
        is_configured = write_settings(folder, port)
    if not is_configured:
        report(f"{SETTINGS_FILE} of this folder is your own and was not changed; add to it:\n{settings_text(port)}")
    inbox = _create_inbox(content, folder)
    return RunningService(ui_url=f"http://127.0.0.1:{port}", prefect_is_configured=is_configured, inbox=inbox)


def _start_server(directory: ServiceDirectory, port: int | None, report: Callable[[str], None]) -> int:
    record = ServiceRecord.read(directory.record_file(SERVER))
    if record is not None and running_service(directory, SERVER) is not None:
        if port not in (None, 0, record.port):
            raise ServiceError(
                f"the server of {directory.folder} runs on port {record.port}, not {port}: run `galstore down` first, "
                "or leave --port out"
            )
        await_server(directory, record.port)
        report("server: already running")
        return record.port
    for n_left in reversed(range(N_PORTS)):
        chosen = choose_port(port, None if record is None else record.port)
        if record is not None and record.port != chosen:
            # running services have the old address
            for service in (SUPERVISOR, WORKER):
                stop_service(directory, service)
        ensure_service(directory, SERVER, chosen)
        report(f"server: starting on port {chosen}")
        try:
            await_server(directory, chosen)
            break
        except ServiceError:
            # another program, perhaps the server of another folder, may have taken the port since it was chosen
            if port or is_free(chosen) or n_left == 0:
                raise
            stop_service(directory, SERVER)
            record = ServiceRecord.read(directory.record_file(SERVER))
    return chosen


def _create_inbox(content: dict[str, Any], folder: Path) -> Path:
    from flows.service.inbox import inbox_folder

    for deployment in content["deployments"]:
        if deployment["name"] == "inbox":
            given = deployment["parameters"]
            watched = inbox_folder(given.get("recipe", "demo"), given.get("overrides"), given.get("folder"))
            inbox = folder / watched
            inbox.mkdir(parents=True, exist_ok=True)
            return inbox
    return folder


def stop_services(directory: ServiceDirectory, folder: Path, *, wait_s: float, report: Callable[[str], None]) -> int:
    """Stop all processes of a service and return their number; active runs get `wait_s` seconds to finish."""
    if not directory.folder.is_dir():
        return 0
    with service_lock(directory):
        n = sum(1 for _ in service_processes(directory))
        stop_service(directory, SUPERVISOR)
        port = server_port(directory)
        if port is not None and server_answers(directory, port):
            _stop_runs(directory, port, wait_s, report)
        stop_service(directory, WORKER)
        stop_processes(process for process, run in service_processes(directory) if run)
        stop_service(directory, SERVER)
        stop_processes(process for process, _ in service_processes(directory))
        remove_settings(folder)
    return n


def _stop_runs(directory: ServiceDirectory, port: int, wait_s: float, report: Callable[[str], None]) -> None:
    os.environ.update(directory.environment(port))
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    from flows.service.flow_runs import stop_runs

    try:
        with get_client(sync_client=True) as client:
            pause_pool(client)
            stop_runs(client, wait_s=wait_s, report=report)
    except (httpx.HTTPError, PrefectException) as error:
        # the processes are stopped in any case; the next `up` corrects the states of their runs
        report(f"the states of active runs could not be set ({error}); `galstore up` corrects them")
