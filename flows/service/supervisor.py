"""Supervisor: restarts the server and the worker, and corrects the states of runs without a process.

`galstore up` starts it as `python -m flows.service.supervisor FOLDER`, and restarts it if it was killed.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows.service.directory import ServiceDirectory
from flows.service.services import (
    SERVER,
    WORKER,
    ensure_service,
    may_restart,
    running_service,
    server_answers,
    server_port,
    service_lock,
)

if TYPE_CHECKING:
    from flows.service.flow_runs import DeadRuns

CHECK_EVERY_S = 3.0
SILENT_S = 180.0
"""A living server that has not answered for this long is restarted."""

_log = logging.getLogger("galstore.supervisor")


def supervise(directory: ServiceDirectory) -> None:
    port = server_port(directory)
    if port is None:
        raise SystemExit(f"{directory.folder} has no record of a server: `galstore up` starts one")
    os.environ.update(directory.environment(port))
    from flows.service.flow_runs import DeadRuns

    dead_runs = DeadRuns(directory)
    answered_s = time.monotonic()
    while True:
        _restart_services(directory, port)
        if server_answers(directory, port):
            answered_s = time.monotonic()
            _correct_states(dead_runs)
        elif time.monotonic() - answered_s > SILENT_S:
            _log.warning("the server has not answered for %.0f s and is restarted", SILENT_S)
            server = running_service(directory, SERVER)
            if server is not None:
                server.kill()
            answered_s = time.monotonic()
        time.sleep(CHECK_EVERY_S)


def _restart_services(directory: ServiceDirectory, port: int) -> None:
    try:
        with service_lock(directory):
            for service in (SERVER, WORKER):
                if running_service(directory, service) is None and may_restart(directory, service):
                    ensure_service(directory, service, port)
                    _log.warning("the %s had ended and was restarted", service)
    except OSError as error:
        # a full disk, or a slow `galstore up`: the next check tries again
        _log.warning("the services could not be checked: %s", error)


def _correct_states(dead_runs: DeadRuns) -> None:
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    try:
        with get_client(sync_client=True) as client:
            n = dead_runs.correct(client)
    except (httpx.HTTPError, PrefectException) as error:
        # the server may end at any moment; the next check tries again
        _log.warning("the server did not answer: %s", error)
        return
    if n:
        _log.warning("corrected the states of %d run(s) without a process", n)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    supervise(ServiceDirectory(folder=Path(sys.argv[1])))
