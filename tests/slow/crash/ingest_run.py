"""A run that registers and fills a cube, records acknowledged commits in a ledger, and may kill itself at a step."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flows.runtime import dask_client
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from galstore.executor import DaskExecutor
from galstore.ingest.fetch import CutoutSource
from galstore.ingest.fill import fill_cube, plan_block_tasks
from galstore.ingest.register import register_survey
from galstore.ingest.write import FillResult
from galstore.survey.skyserver import SkyServer
from schemas.cutouts import Status
from schemas.recipes import DaskSection
from schemas.selection import SELECTIONS
from tests.galstore.conftest import REQUEST_LIMITS, SCALE

PAGE_ROWS = 1000
"""Several commits register the catalog."""


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    if options.die_at:
        log = logging.getLogger("galstore.cube.commits")
        log.setLevel(logging.DEBUG)
        log.addHandler(_Killer(*options.die_at.split(":")))
    ledger = _Ledger(options.ledger)
    ensure_cube(options.path, survey="simulated", scale=SCALE)
    ledger.write(event="created")
    service = SkyServer(base_url=options.service)
    registration = register_survey(
        options.path,
        service,
        SELECTIONS["labelled"],
        survey="simulated",
        columns=["ra", "dec", "oh_p50"],
        page_rows=PAGE_ROWS,
    )
    n_rejected = len(open_cube(options.path).read_rejected())
    ledger.write(event="registered", n_objects=registration.n_new + registration.n_known, n_rejected=n_rejected)
    tasks = plan_block_tasks(open_cube(options.path))
    request_limits = replace(REQUEST_LIMITS, requests_per_second=options.rate, concurrency=12)
    source = CutoutSource(service=service, scale=SCALE, request_limits=request_limits)
    section = DaskSection(scheduler=options.scheduler, workers=options.workers)

    def acknowledge(filled: FillResult) -> None:
        ledger.write(
            event="filled", n_stored=filled.n_stored, n_settled=filled.n_settled, **_settled_rows(options.path)
        )

    with dask_client(section, n_tasks=max(1, len(tasks))) as client:
        filled = fill_cube(
            options.path, tasks, source, DaskExecutor(client), blocks_per_commit=1, on_commit=acknowledge
        )
    ledger.write(event="done", n_stored=filled.n_stored, n_requests=filled.n_requests)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--scheduler", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5000)
    parser.add_argument("--die-at", default="", help="STEP:OPERATION:N, as in committed:fill:2")
    return parser.parse_args(arguments)


class _Ledger:
    """File of acknowledged steps, one JSON per line, each flushed to disk before the run continues."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, **line: Any) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _settled_rows(path: str) -> dict[str, str]:
    """Return the rows that are stored or quarantined, and the snapshot."""
    cube = open_cube(path)
    bits = np.packbits(cube.read_state("status") != Status.PENDING)
    return {"snapshot": cube.snapshot_id, "rows": bits.tobytes().hex()}


class _Killer(logging.Handler):
    """Handler that kills this process when a commit of one kind reaches a step for the n-th time."""

    def __init__(self, step: str, operation: str, n: str) -> None:
        super().__init__()
        self._step, self._operation = step, operation
        self._n_left = int(n)

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith(f"step {self._step}") and re.search(rf"\b{self._operation}", record.getMessage()):
            self._n_left -= 1
            if self._n_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
