"""Keeper: starts the server or the worker again when it ended, and tells the server of runs whose process is gone.

`galstore up` starts it, as `python -m flows.service.supervisor HOME`, and again if it was killed.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows.service.directory import Home
from flows.service.services import (
    SERVER,
    WORKER,
    changing,
    ensure_service,
    living_service,
    may_start_again,
    port_of,
    server_answers,
)

if TYPE_CHECKING:
    from flows.service.flow_runs import DeadRuns

LOOK_EVERY_S = 3.0
SILENT_S = 180.0
"""A server that lives and has not answered for so long is started anew."""

_log = logging.getLogger("galstore.keeper")


def keep(home: Home) -> None:
    """Look after the services of a home, for ever."""
    port = port_of(home)
    if port is None:
        raise SystemExit(f"{home.folder} has no record of a server: `galstore up` starts one")
    os.environ.update(home.environment(port))
    from flows.service.flow_runs import DeadRuns

    dead_runs = DeadRuns(home)
    answered_s = time.monotonic()
    while True:
        _start_what_ended(home, port)
        if server_answers(home, port):
            answered_s = time.monotonic()
            _settle(dead_runs)
        elif time.monotonic() - answered_s > SILENT_S:
            _log.warning("the server has not answered for %.0f s and is started anew", SILENT_S)
            server = living_service(home, SERVER)
            if server is not None:
                server.kill()
            answered_s = time.monotonic()
        time.sleep(LOOK_EVERY_S)


def _start_what_ended(home: Home, port: int) -> None:
    try:
        with changing(home):
            for service in (SERVER, WORKER):
                if living_service(home, service) is None and may_start_again(home, service):
                    ensure_service(home, service, port)
                    _log.warning("the %s had ended and was started again", service)
    except OSError as error:
        # a full disk, or an `up` that takes its time: the next look tries again
        _log.warning("the services could not be looked after: %s", error)


def _settle(dead_runs: DeadRuns) -> None:
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    try:
        with get_client(sync_client=True) as client:
            n = dead_runs.settle(client)
    except (httpx.HTTPError, PrefectException) as error:
        # the server may end at any moment; the next look tells
        _log.warning("the server could not be asked: %s", error)
        return
    if n:
        _log.warning("%d run(s) whose process is gone were settled", n)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    keep(Home(folder=Path(sys.argv[1])))
