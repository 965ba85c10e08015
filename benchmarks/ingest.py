"""Cost of an ingest: speed against a script and against the limit, request rate, growth of an append, memory.

The survey is a folder of simulated JPEGs (or of real ones, each served many times with a different comment) behind the
emulator, a process on loopback. Emulator, scheduler and committer share the cores with the two workers, and the speed
includes all of them. Every ratio comes from one run; absolute figures depend on the machine.

    python benchmarks/ingest.py
    python benchmarks/ingest.py --only speed,append --cutouts FOLDER_OF_JPEGS --repeats 5
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import distributed
import numpy as np
import pandas as pd
import psutil
import requests
from PIL import Image
from simulated import (
    SimulatedSurvey,
    busiest_second,
    draw_bodies,
    emulator_over,
    grown_cube,
    make_survey,
    new_cube,
    prepared,
    read_bodies,
)
from tables import Table, machine, ms, section_parser

from flows.runtime import dask_client
from galstore.cube.blocks import Block
from galstore.cube.reader import open_cube
from galstore.executor import DaskExecutor
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from galstore.ingest.fetch import BlockTask, CutoutSource, FetchedBlock
from galstore.ingest.fill import fill_cube, plan_block_tasks
from galstore.ingest.write import commit_blocks, write_block
from galstore.survey.responses import CutoutResponse
from galstore.survey.retry import RequestLimits
from galstore.survey.skyserver import SkyServer
from schemas.cube import BLOCK_ROWS
from schemas.cutouts import Reason
from schemas.recipes import DaskSection

N_WORKERS = 2
UNLIMITED_PER_SECOND = 50_000.0
N_SEQUENTIAL = 200
PAUSE_S = 0.5
"""Pause of the paper's script after each request."""

# the last chunk of the columns (16 blocks) is equally full in each cube
GROWN = {"10 k": 10_240, "100 k": 108_544, "1 M": 1_058_816}


def request_limits(requests_per_second: float, *, concurrency: int = 16) -> RequestLimits:
    return RequestLimits(
        requests_per_second=requests_per_second,
        concurrency=concurrency,
        connect_timeout_s=10,
        read_timeout_s=30,
        attempts=3,
        retry_budget_s=60,
        breaker_failures=20,
    )


def source_of(service: SkyServer, path: str, requests_per_second: float = UNLIMITED_PER_SECOND) -> CutoutSource:
    return CutoutSource(
        service=service, scale=open_cube(path).scale, request_limits=request_limits(requests_per_second)
    )


def register(path: str, objects: pd.DataFrame) -> None:
    register_page(path, CatalogUpdate(catalog="simulated"), prepared(objects))


def fill(
    path: str,
    service: SkyServer,
    client: distributed.Client,
    requests_per_second: float = UNLIMITED_PER_SECOND,
) -> int:
    """Fetch pending cutouts; each object must be requested once and stored."""
    jobs = plan_block_tasks(open_cube(path))
    n_open = sum(job.block.n_objects for job in jobs)
    filled = fill_cube(
        path, jobs, source_of(service, path, requests_per_second), DaskExecutor(client), blocks_per_commit=4
    )
    if (filled.n_stored, filled.n_requests) != (n_open, n_open):
        raise RuntimeError(f"{n_open} objects, {filled.n_stored} stored in {filled.n_requests} requests")
    return n_open


def measure_speed(survey: SimulatedSurvey, folder: Path, table: Table, n_objects: int, repeats: int) -> None:
    objects = survey.objects[:n_objects]
    fills, limits, cpu = [], [], Counter[str]()
    with emulator_over(survey) as (service, emulator):
        sequential_s = sequential_script(service, objects[:N_SEQUENTIAL], folder / "script")
        path = new_cube(str(folder / "first"))
        register(path, objects)
        started = time.perf_counter()
        with dask_client(DaskSection(workers=N_WORKERS), n_tasks=N_WORKERS) as client:
            fill(path, service, client)
            everything_s = time.perf_counter() - started
            for n in range(repeats):
                path = new_cube(str(folder / f"warm-{n}"))
                register(path, objects)
                with cpu_seconds(emulator, cpu):
                    started = time.perf_counter()
                    fill(path, service, client)
                    fills.append(time.perf_counter() - started)
                shutil.rmtree(path)
                limits.append(limit_s(survey, n_objects, folder / f"limit-{n}"))
    speed, limit = n_objects / median(fills), n_objects / median(limits)
    script = N_SEQUENTIAL / sequential_s
    paused = 1 / (sequential_s / N_SEQUENTIAL + PAUSE_S)
    cpu_text = ", ".join(f"{role} {1e6 * spent / repeats / n_objects:.0f}" for role, spent in cpu.items())
    table.add(
        f"ingest of {n_objects:,} galaxies, {N_WORKERS} workers that are warm",
        f"{speed:,.0f} galaxies/s",
        "the limit: decoding, pyramid and writing without network and Dask, "
        f"{N_WORKERS} processes, {limit:,.0f} galaxies/s",
        speed / limit,
        ">= 0.5",
        met=speed >= 0.5 * limit,
    )
    table.add("the same", f"{speed:,.0f} galaxies/s", "", None, ">= 2,000 galaxies/s", met=speed >= 2000)
    table.add(
        "the same, with the start of Dask and its workers' imports",
        f"{n_objects / everything_s:,.0f} galaxies/s",
        f"the limit, {limit:,.0f} galaxies/s",
        n_objects / everything_s / limit,
    )
    table.add(
        "the same, warm",
        f"{speed:,.0f} galaxies/s",
        f"a script, one request at a time, {script:,.0f} galaxies/s without its pause",
        speed / script,
    )
    table.add(
        "the same, warm",
        f"{speed:,.0f} galaxies/s",
        f"the script with its pause of {PAUSE_S} s, by arithmetic {paused:.2f} galaxies/s",
        speed / paused,
    )
    table.add("CPU time of it, µs a galaxy", cpu_text)


def sequential_script(service: SkyServer, objects: pd.DataFrame, folder: Path) -> float:
    """Time the paper's method without its pause: request an image, save it, request the next; return seconds."""
    folder.mkdir()
    started = time.perf_counter()
    for row in objects.itertuples():
        params = service.cutout_params(ra_deg=row.ra, dec_deg=row.dec, scale_arcsec=0.296)
        response = requests.get(service.cutout_url, params=params, timeout=30)
        Image.open(io.BytesIO(response.content)).save(folder / f"{row.object_id}.jpg")
    return time.perf_counter() - started


def limit_s(survey: SimulatedSurvey, n_objects: int, folder: Path) -> float:
    """Time decoding, averaging and writing of the same bytes in separate processes, without commits; return seconds."""
    path = new_cube(str(folder / "cube"))
    register(path, survey.objects[:n_objects])
    blocks = [Block(start, min(start + BLOCK_ROWS, n_objects)) for start in range(0, n_objects, BLOCK_ROWS)]
    spawning = multiprocessing.get_context("spawn")
    ready = spawning.Barrier(N_WORKERS + 1)
    shares = [
        spawning.Process(target=write_share, args=(survey, path, blocks[n::N_WORKERS], ready)) for n in range(N_WORKERS)
    ]
    for share in shares:
        share.start()
    ready.wait()
    started = time.perf_counter()
    ready.wait()
    seconds = time.perf_counter() - started
    for share in shares:
        share.join()
    shutil.rmtree(folder)
    return seconds


def write_share(survey: SimulatedSurvey, path: str, blocks: Sequence[Block], ready: Barrier) -> None:
    """Write blocks whose bytes are in memory; the first is written once before as a warm-up."""
    fetched = [fetched_block(survey, block, block.rows) for block in blocks]
    write_block(path, fetched[0])
    ready.wait()
    for block in fetched:
        write_block(path, block)
    ready.wait()


def fetched_block(survey: SimulatedSurvey, block: Block, objects: slice) -> FetchedBlock:
    """Build a block as if it had been fetched; its pixels are decoded when it is written."""
    responses = tuple(
        CutoutResponse(
            row=row, reason=Reason.NONE, http_status=200, attempts=1, body=body, digest=hashlib.sha256(body).digest()
        )
        for row, body in enumerate(survey.bodies(objects), start=block.start)
    )
    return FetchedBlock(
        task=BlockTask(block=block),
        rows=np.arange(block.start, block.stop),
        responses=responses,
        scales_arcsec=np.full(block.n_objects, 0.296),
    )


@contextmanager
def cpu_seconds(emulator: subprocess.Popen[str], spent: Counter[str]) -> Iterator[None]:
    """Add the CPU time of each kind of process during the block."""
    main = psutil.Process()
    processes = {main: "scheduler and committer", psutil.Process(emulator.pid): "emulator"}
    processes |= {child: "workers" for child in main.children(recursive=True) if child.pid != emulator.pid}
    before = {process: sum(process.cpu_times()[:2]) for process in processes}
    yield
    for process, role in processes.items():
        spent[role] += sum(process.cpu_times()[:2]) - before[process]


def measure_rate(survey: SimulatedSurvey, folder: Path, table: Table, rates: Sequence[tuple[float, int]]) -> None:
    with dask_client(DaskSection(workers=N_WORKERS), n_tasks=N_WORKERS) as client:
        for per_second, n_objects in rates:
            path = new_cube(str(folder / f"rate-{per_second:.0f}"))
            register(path, survey.objects[:n_objects])
            with emulator_over(survey) as (service, _):
                started = time.perf_counter()
                fill(path, service, client, requests_per_second=per_second)
                seconds = time.perf_counter() - started
                busiest = busiest_second(service)
            shutil.rmtree(path)
            table.add(
                f"requests that arrive in any one second, {N_WORKERS} workers, {n_objects:,} galaxies",
                f"at most {busiest}, on average {n_objects / seconds:.0f}",
                f"the rate set, {per_second:.0f}/s",
                busiest / per_second,
                "never more",
                met=busiest <= per_second,
            )


class CommitTimes(logging.Handler):
    """Duration of Icechunk's commit, from the debug messages around it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._changed_s = 0.0
        self.last_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("step changed"):
            self._changed_s = time.perf_counter()
        if record.msg.startswith("step committed"):
            self.last_s = time.perf_counter() - self._changed_s

    @contextmanager
    def listening(self) -> Iterator[CommitTimes]:
        log = logging.getLogger("galstore.cube.commits")
        log.setLevel(logging.DEBUG)
        log.addHandler(self)
        try:
            yield self
        finally:
            log.removeHandler(self)
            log.setLevel(logging.NOTSET)


def measure_append(survey: SimulatedSurvey, folder: Path, table: Table, repeats: int) -> None:
    paths = {}
    for size, n_rows in GROWN.items():
        started = time.perf_counter()
        paths[size] = grown_cube(str(folder / f"grown-{n_rows}"), n_rows)
        print(f"  cube of {n_rows:,} objects made in {time.perf_counter() - started:.0f} s", flush=True)
    seconds: dict[tuple[str, str], list[float]] = {(size, step): [] for size in GROWN for step in APPEND_STEPS}
    # the first round is a warm-up
    with (
        emulator_over(survey) as (service, _),
        dask_client(DaskSection(workers=1), n_tasks=1) as client,
        CommitTimes().listening() as commits,
    ):
        for n in range(repeats + 1):
            for size, path in paths.items():
                times = append_prepared(survey, path, 2 * n, commits) | append_fetched(
                    survey, path, 2 * n + 1, lambda path: fill(path, service, client)
                )
                for step, duration in times.items() if n else ():
                    seconds[size, step].append(duration)
    for step, (base, aim, title) in APPEND_STEPS.items():
        ratio = median(seconds["1 M", step]) / median(seconds[base, step])
        table.add(
            f"{title}, 1 M objects in the cube",
            ms(seconds["1 M", step]),
            f"{base}: {ms(seconds[base, step])}",
            ratio,
            f"<= {aim}" if aim else "",
            met=not aim or ratio <= aim,
        )


APPEND_STEPS: dict[str, tuple[str, float, str]] = {
    "register": ("10 k", 0, "registering a page of 1,024 objects"),
    "write": ("10 k", 0, "writing their block, images at hand"),
    "commit step": ("10 k", 0, "committing the block, with merge and state"),
    "append": ("10 k", 1.2, "append: these three together"),
    "fetched": ("10 k", 1.2, "append with the network: registering, fetching, writing, committing"),
    "register commit": ("100 k", 1.5, "Icechunk's own part of the page's commit"),
    "block commit": ("100 k", 1.5, "Icechunk's own part of the block's commit"),
}
"""By step: size of the cube to compare with, largest ratio (0 = no limit), title."""


def append_prepared(survey: SimulatedSurvey, path: str, turn: int, commits: CommitTimes) -> dict[str, float]:
    """Append the survey's `turn`-th block from bytes in memory; return the seconds of each step."""
    objects = slice(turn * BLOCK_ROWS, (turn + 1) * BLOCK_ROWS)
    start = open_cube(path).n_objects
    fetched = fetched_block(survey, Block(start, start + BLOCK_ROWS), objects)
    times = [time.perf_counter()]
    register(path, survey.objects[objects])
    register_commit_s = commits.last_s
    times.append(time.perf_counter())
    written = write_block(path, fetched)
    times.append(time.perf_counter())
    commit_blocks(path, [written])
    times.append(time.perf_counter())
    registering, writing, committing = np.diff(times)
    return {
        "register": registering,
        "write": writing,
        "commit step": committing,
        "append": times[-1] - times[0],
        "register commit": register_commit_s,
        "block commit": commits.last_s,
    }


def append_fetched(
    survey: SimulatedSurvey, path: str, turn: int, fill_block_of: Callable[[str], int]
) -> dict[str, float]:
    """Append the survey's `turn`-th block with requests for its images; return the seconds."""
    started = time.perf_counter()
    register(path, survey.objects[turn * BLOCK_ROWS : (turn + 1) * BLOCK_ROWS])
    fill_block_of(path)
    return {"fetched": time.perf_counter() - started}


def measure_memory(survey: SimulatedSurvey, folder: Path, table: Table, few: int, many: int) -> None:
    with emulator_over(survey) as (service, _):
        peaks = {n: peak_memory(survey, service, n, folder / f"memory-{n}") for n in (few, many)}
    for kind, processes in enumerate(("main process and workers together", "main process alone")):
        ratio = peaks[many][kind] / peaks[few][kind]
        table.add(
            f"peak memory of filling {many:,} galaxies, {processes}",
            f"{peaks[many][kind] / 1e6:,.0f} MB",
            f"{few:,} galaxies: {peaks[few][kind] / 1e6:,.0f} MB",
            ratio,
            "<= 1.2",
            met=ratio <= 1.2,
        )


def peak_memory(survey: SimulatedSurvey, service: SkyServer, n_objects: int, folder: Path) -> tuple[int, int]:
    """Run a fill in separate processes; return the peak resident bytes of all of them and of the main one."""
    folder.mkdir()
    filling = multiprocessing.get_context("spawn").Process(target=fill_alone, args=(survey, service, n_objects, folder))
    filling.start()
    main = psutil.Process(filling.pid)
    together = alone = 0
    while filling.is_alive():
        try:
            of_main = main.memory_info().rss
            of_all = of_main + sum(child.memory_info().rss for child in main.children(recursive=True))
        except psutil.NoSuchProcess:
            # a process ended since it was listed
            continue
        together, alone = max(together, of_all), max(alone, of_main)
        filling.join(0.02)
    if filling.exitcode:
        raise RuntimeError(f"the fill of {n_objects} objects failed with exit code {filling.exitcode}")
    shutil.rmtree(folder)
    return together, alone


def fill_alone(survey: SimulatedSurvey, service: SkyServer, n_objects: int, folder: Path) -> None:
    path = new_cube(str(folder / "cube"))
    register(path, survey.objects[:n_objects])
    with dask_client(DaskSection(workers=N_WORKERS), n_tasks=N_WORKERS) as client:
        fill(path, service, client)


SECTIONS = ("speed", "rate", "append", "memory")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=section_parser(SECTIONS), default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}"
    )
    parser.add_argument("--cutouts", type=Path, help="folder of JPEGs of 128 px; by default blobs are drawn")
    parser.add_argument("--objects", type=int, default=16_384, help="galaxies of the speed section")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats, for medians (append: at most 9)")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    few, many = 4 * BLOCK_ROWS, 20 * BLOCK_ROWS
    repeats = min(chosen.repeats, many // BLOCK_ROWS // 2 - 1)
    table = Table()
    print(machine("icechunk", "zarr", "distributed", "aiohttp", "numba"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bodies = read_bodies(chosen.cutouts) if chosen.cutouts else draw_bodies()
        n_bytes = sum(map(len, bodies)) / len(bodies)
        print(f"{len(bodies)} {'real' if chosen.cutouts else 'simulated'} images, {n_bytes:,.0f} B delivered each")
        survey = make_survey(folder / "survey", max(many, chosen.objects), bodies)
        measures: dict[str, Callable[[], None]] = {
            "speed": lambda: measure_speed(survey, folder, table, chosen.objects, repeats),
            "rate": lambda: measure_rate(survey, folder, table, [(500, 3000), (100, 1500)]),
            "append": lambda: measure_append(survey, folder, table, repeats),
            "memory": lambda: measure_memory(survey, folder, table, few, many),
        }
        for name in chosen.only:
            print(f"{name}:", flush=True)
            measures[name]()
    table.show()
    raise SystemExit(1 if table.n_failed else 0)


if __name__ == "__main__":
    main()
