"""Fills from an emulator with all faults at once; each object must end with the right state."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pytest
import simplejpeg

from galstore.cube.reader import Counts, Cube, open_cube
from galstore.emulator.faults import PERMANENT_FAULTS, Fault
from galstore.executor import DaskExecutor
from galstore.ingest.fetch import CutoutSource
from galstore.ingest.fill import fill_cube, plan_block_tasks
from galstore.ingest.refused_responses import read_refused
from galstore.survey.retry import RequestLimits
from galstore.survey.skyserver import SkyServer
from schemas.cube import LEVEL
from schemas.cutouts import Reason, Status
from schemas.errors import ServiceDownError
from schemas.recipes import EmulatorSection, FaultSection
from tests.conftest import ROOT, draw_blobs, encode
from tests.galstore.conftest import REQUEST_LIMITS, SCALE, registered_cube

N_OBJECTS = 2200
FAULTY_SHARE = 0.3
FIRST_ID = 1237648702973411443

REASON_OF = {
    Fault.TOO_MANY_REQUESTS: Reason.TOO_MANY_REQUESTS,
    Fault.SERVER_ERROR: Reason.SERVICE_ERROR,
    Fault.OUTAGE_PAGE: Reason.SERVICE_ERROR,
    Fault.TRUNCATED: Reason.TRUNCATED,
    Fault.OUT_OF_FOOTPRINT: Reason.OUT_OF_FOOTPRINT,
    Fault.BLACK_TILE: Reason.OUT_OF_FOOTPRINT,
    Fault.FLAT_TILE: Reason.FLAT,
    Fault.HTML_PAGE: Reason.HTML_PAGE,
    Fault.ERROR_MESSAGE: Reason.ERROR_MESSAGE,
    Fault.WRONG_SIZE: Reason.WRONG_SIZE,
    Fault.NOT_A_JPEG: Reason.NOT_A_JPEG,
    Fault.BOMB: Reason.DECOMPRESSION_BOMB,
    Fault.READ_TIMEOUT: Reason.READ_TIMEOUT,
    Fault.CONNECT_TIMEOUT: Reason.CONNECT_TIMEOUT,
    Fault.CONNECTION_RESET: Reason.CONNECTION_LOST,
    Fault.TRAILING_BYTES: Reason.TRAILING_BYTES,
    Fault.STUCK_CACHE: Reason.REPEATED_BODY,
    Fault.CLIENT_ERROR: Reason.CLIENT_ERROR,
    Fault.REDIRECT_LOOP: Reason.SERVICE_ERROR,
}
"""Reason of quarantine for each fault."""

AT_ONCE = PERMANENT_FAULTS | {Fault.WRONG_SIZE, Fault.BOMB}
"""Faults without a retry: the first response quarantines the object."""

PATIENT = replace(
    REQUEST_LIMITS, concurrency=32, connect_timeout_s=0.5, read_timeout_s=1.0, attempts=4, breaker_failures=200
)

PROGRAM = """
import sys
from galstore.emulator.server import emulate
from schemas.recipes import EmulatorSection
emulate(EmulatorSection.model_validate_json(sys.argv[1]), port=int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def survey_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,200 objects with different images."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "cutouts").mkdir()
    ids = FIRST_ID + 7919 * np.arange(N_OBJECTS, dtype=np.int64)
    blobs = draw_blobs(100)
    for n, object_id in enumerate(ids):
        shift, which = divmod(n, len(blobs))
        body = encode(np.roll(blobs[which], shift, axis=1))
        (folder / "cutouts" / f"{object_id}.jpg").write_bytes(body)
    table = {
        "objID": ids,
        "ra": np.linspace(100, 260, N_OBJECTS).round(6),
        "dec": np.random.default_rng(1).uniform(-5, 60, N_OBJECTS).round(6),
        "oh_p50": 8.9,
    }
    pd.DataFrame(table).to_csv(folder / "catalog.csv", index=False)
    return folder


@contextmanager
def emulator(folder: Path, *, port: int = 0, seed: int = 11, **faults: float) -> Iterator[SkyServer]:
    """Serve the survey of a folder in a new process."""
    section = EmulatorSection(
        catalog=folder / "catalog.csv", cutouts=folder / "cutouts", seed=seed, faults=FaultSection(**faults)
    )
    command = [sys.executable, "-c", PROGRAM, section.model_dump_json(), str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        try:
            yield SkyServer(base_url=process.stdout.readline().strip())
        finally:
            process.terminate()


def log_of(service: SkyServer) -> dict[str, Any]:
    with urllib.request.urlopen(f"{service.base_url}/emulator/log", timeout=10) as response:
        return json.load(response)


def source(service: SkyServer, request_limits: RequestLimits = PATIENT) -> CutoutSource:
    return CutoutSource(service=service, scale=SCALE, request_limits=request_limits)


def state_of(cube: Cube) -> pd.DataFrame:
    """Return the state columns, indexed by object id."""
    ids = cube.read_catalog(["object_id"])["object_id"].tolist()
    columns = {name: cube.read_state(name) for name in ("status", "reason", "attempts", "http_status", "body_length")}
    return pd.DataFrame(columns, index=ids)


def lasting_faults(log: dict[str, Any]) -> dict[int, Fault]:
    """Return the fault of each object that no request could bring."""
    return {
        int(event["object_id"]): Fault(event["fault"])
        for event in log["spoiled"]
        if event["lasts"] or Fault(event["fault"]) in AT_ONCE
    }


@pytest.mark.slow
def test_a_mixture_of_all_faults_leaves_each_object_stored_or_quarantined_for_the_right_reason(
    survey_folder: Path, tmp_path: Path, dask_workers: distributed.Client
) -> None:
    # Retry-After delays all requests; an equal share would dominate the duration of this test
    weights = {str(fault): 0.25 if fault is Fault.TOO_MANY_REQUESTS else 1.0 for fault in Fault}
    shares = {fault: FAULTY_SHARE * weight / sum(weights.values()) for fault, weight in weights.items()}
    path = str(tmp_path / "cube")
    with emulator(survey_folder, lasting=0.3, retry_after_s=1, **shares) as service:
        registered_cube(path, service)
        started = time.monotonic()
        filled = fill_cube(path, plan_block_tasks(open_cube(path)), source(service), DaskExecutor(dask_workers))
        seconds = time.monotonic() - started
        log = log_of(service)
    cube = open_cube(path)
    state = state_of(cube)
    _print_tally(log, state, seconds)

    assert set(log["faults"]) == {str(fault) for fault in Fault}
    _check_refused(cube)
    assert cube.counts() == Counts(
        registered=N_OBJECTS, stored=filled.n_stored, quarantined=filled.n_quarantined, pending=0
    )
    assert filled.n_stored + filled.n_quarantined == N_OBJECTS
    _check_reasons(state, log)
    requested = pd.Series({int(object_id): n for object_id, n in log["attempts"].items()})
    extra = requested.reindex(state.index) - state["attempts"]
    # some stored objects were requested once more, between the rechecked ones
    assert (extra[state["status"] != Status.STORED] == 0).all()
    assert (extra >= 0).all()
    assert filled.n_requests == log["requests"]
    _check_images(cube, state, survey_folder)


@pytest.mark.slow
def test_a_cache_that_repeats_itself_again_and_again_gives_nobody_the_image_of_another(
    survey_folder: Path, tmp_path: Path, dask_workers: distributed.Client, long_run: bool
) -> None:
    for seed in range(20 if long_run else 1):
        path = str(tmp_path / f"cube-{seed}")
        with emulator(survey_folder, seed=seed, lasting=0.3, stuck_cache=0.1) as service:
            registered_cube(path, service)
            fill_cube(path, plan_block_tasks(open_cube(path)), source(service), DaskExecutor(dask_workers))
            log = log_of(service)
        state = state_of(open_cube(path))
        _check_reasons(state, log)
        _check_images(open_cube(path), state, survey_folder)


def _check_reasons(state: pd.DataFrame, log: dict[str, Any]) -> None:
    """Check that each object is stored if possible, and otherwise quarantined with the reason of its fault."""
    hopeless = lasting_faults(log)
    expected = pd.Series(
        [REASON_OF[hopeless[object_id]] if object_id in hopeless else Reason.NONE for object_id in state.index],
        index=state.index,
    )
    wrong = state[state["reason"] != expected]
    assert wrong.empty, wrong.assign(expected=expected, fault=pd.Series(hopeless))
    assert (state["status"] == np.where(expected == Reason.NONE, Status.STORED, Status.QUARANTINED)).all()


def _check_refused(cube: Cube) -> None:
    """Check that the cube stores some refused bodies for each reason with a body."""
    refused = read_refused(cube)
    reasons, status = cube.read_state("reason"), cube.read_state("status")
    assert (status[refused["row"]] == Status.QUARANTINED).all()
    assert (reasons[refused["row"]] == refused["reason"]).all()
    without_body = {
        Reason.NONE,
        Reason.CONNECT_TIMEOUT,
        Reason.READ_TIMEOUT,
        Reason.CONNECTION_LOST,
        Reason.SERVICE_ERROR,
        Reason.TOO_MANY_REQUESTS,
    }
    assert set(np.unique(reasons)) - without_body <= set(refused["reason"])
    bodies = refused.groupby("reason")["body"].first()
    for reason in (Reason.TRUNCATED, Reason.WRONG_SIZE, Reason.REPEATED_BODY, Reason.TRAILING_BYTES):
        assert bodies[reason][:2] == b"\xff\xd8", reason
    assert b"<" in bodies[Reason.HTML_PAGE][:200]


def _check_images(cube: Cube, state: pd.DataFrame, folder: Path) -> None:
    """Check that bodies, digests and pixels of stored objects equal the files, and that other objects have none."""
    pixels = np.asarray(cube.array(LEVEL[128].path)[:])
    digests = cube.read_state("body_sha256")
    for row, (object_id, known) in enumerate(state.iterrows()):
        if known["status"] != Status.STORED:
            assert known["body_length"] == 0
            assert not digests[row].any()
            assert not pixels[row].any()
            continue
        body = (folder / "cutouts" / f"{object_id}.jpg").read_bytes()
        assert digests[row].tobytes() == hashlib.sha256(body).digest(), object_id
        assert np.array_equal(pixels[row], simplejpeg.decode_jpeg(body)), object_id
        if row % 10 == 0:
            assert cube.read_body(row) == body


def _print_tally(log: dict[str, Any], state: pd.DataFrame, seconds: float) -> None:
    last: dict[str, dict[str, Any]] = {event["object_id"]: event for event in log["spoiled"]}
    met = Counter(event["fault"] for event in last.values())
    lasted = Counter(str(fault) for fault in lasting_faults(log).values())
    print(
        f"\n{len(state)} objects, {log['requests']} requests in {seconds:.1f} s, {len(last)} objects met a fault; "
        f"stored {(state['status'] == Status.STORED).sum()}, "
        f"quarantined {(state['status'] == Status.QUARANTINED).sum()}"
    )
    for fault in Fault:
        print(
            f"  {fault:18} {log['faults'].get(fault, 0):4} answers, {met[fault]:3} objects, lasting {lasted[fault]:3}"
        )
    print({Reason(reason).name: n for reason, n in sorted(Counter(state["reason"]).items())})


def test_a_service_that_is_down_quarantines_nobody(
    survey_folder: Path, tmp_path: Path, dask_workers: distributed.Client
) -> None:
    path = str(tmp_path / "cube")
    hasty = replace(PATIENT, attempts=2, breaker_failures=20)
    with emulator(survey_folder, outage_page=1.0, lasting=1.0) as service:
        registered_cube(path, service, limit=1500)
        with pytest.raises(ServiceDownError, match="SERVICE_ERROR"):
            fill_cube(path, plan_block_tasks(open_cube(path)), source(service, hasty), DaskExecutor(dask_workers))
        # two workers, each with the objects that open its breaker and those in progress
        assert log_of(service)["requests"] <= 2 * 2 * (20 + 32)
    cube = open_cube(path)
    assert cube.counts() == Counts(registered=1500, stored=0, quarantined=0, pending=1500)
    assert not state_of(cube)["attempts"].any()


def test_a_service_that_dies_half_way_keeps_what_was_settled(
    survey_folder: Path, tmp_path: Path, dask_workers: distributed.Client
) -> None:
    path = str(tmp_path / "cube")
    slow = replace(PATIENT, requests_per_second=300, attempts=2, breaker_failures=20)
    with ThreadPoolExecutor(1) as pool:
        with emulator(survey_folder) as service:
            registered_cube(path, service, limit=1000)
            run = pool.submit(
                fill_cube, path, plan_block_tasks(open_cube(path)), source(service, slow), DaskExecutor(dask_workers)
            )
            while log_of(service)["requests"] < 300:
                time.sleep(0.02)
        # the emulator has ended: connections are refused
        with pytest.raises(ServiceDownError, match="CONNECTION_LOST"):
            run.result()
    cube = open_cube(path)
    n_stored = cube.counts().stored
    assert 250 < n_stored < 1000
    assert cube.counts() == Counts(registered=1000, stored=n_stored, quarantined=0, pending=1000 - n_stored)
    _check_images(cube, state_of(cube), survey_folder)
    with emulator(survey_folder) as service:
        filled = fill_cube(path, plan_block_tasks(cube), source(service), DaskExecutor(dask_workers))
    assert filled.n_stored == 1000 - n_stored
    assert open_cube(path).counts() == Counts(registered=1000, stored=1000, quarantined=0, pending=0)


def test_what_was_quarantined_is_fetched_in_place_once_the_fault_is_gone(
    survey_folder: Path, tmp_path: Path, dask_workers: distributed.Client
) -> None:
    path = str(tmp_path / "cube")
    hasty = replace(PATIENT, attempts=2)
    with emulator(survey_folder, lasting=1.0, truncated=0.2, html_page=0.2, out_of_footprint=0.1) as service:
        registered_cube(path, service, limit=400)
        first = fill_cube(path, plan_block_tasks(open_cube(path)), source(service, hasty), DaskExecutor(dask_workers))
    assert set(first.quarantined) == {"truncated", "html_page", "out_of_footprint"}
    before = state_of(open_cube(path))
    assert plan_block_tasks(open_cube(path)) == ()
    retried = frozenset({Reason.TRUNCATED, Reason.HTML_PAGE})
    with emulator(survey_folder) as service:
        tasks = plan_block_tasks(open_cube(path), retried=retried)
        second = fill_cube(path, tasks, source(service, hasty), DaskExecutor(dask_workers))
        log = log_of(service)
    after, is_retried = state_of(open_cube(path)), before["reason"].isin(retried)
    assert (second.n_stored, second.n_quarantined) == (is_retried.sum(), 0)
    assert log["requests"] == is_retried.sum()
    assert (after[is_retried]["status"] == Status.STORED).all()
    assert (after[is_retried]["attempts"] == 2 + 1).all()
    assert after[~is_retried].equals(before[~is_retried])
    assert set(after[after["status"] == Status.QUARANTINED]["reason"]) == {Reason.OUT_OF_FOOTPRINT}
    _check_images(open_cube(path), after, survey_folder)


@pytest.mark.slow
def test_two_workers_together_keep_the_rate_of_the_run(
    survey_folder: Path, tmp_path: Path, dask_workers: distributed.Client
) -> None:
    path = str(tmp_path / "cube")
    paced = replace(PATIENT, requests_per_second=200)
    with emulator(survey_folder, server_error=0.1) as service:
        registered_cube(path, service, limit=1500)
        started = time.monotonic()
        filled = fill_cube(path, plan_block_tasks(open_cube(path)), source(service, paced), DaskExecutor(dask_workers))
        seconds = time.monotonic() - started
        log = log_of(service)
    print(f"\n{log['requests']} requests in {seconds:.1f} s, by second {log['arrivals']}, most {log['busiest_second']}")
    assert filled.n_stored == 1500
    # requests that a busy machine delays arrive together
    assert log["busiest_second"] <= 200 * (1 + log["longest_stall_s"])
    assert log["requests"] / seconds > 120
