"""What an ingest costs: its speed against a script's and against the limit, its rate, an append's growth, its memory.

The survey is a made-up folder of JPEGs (or a folder of real ones, each served many times under a comment of its own)
behind the emulator, a process on loopback. Emulator, scheduler and committer share the cores with the two workers, so
that the speed is that of all of them together. Every ratio comes from one run; absolute figures do not travel.

    python benchmarks/ingest.py
    python benchmarks/ingest.py --only speed,append --cutouts FOLDER_OF_JPEGS --repeats 5
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import psutil
import requests
from made_up import (
    MadeUpSurvey,
    draw_bodies,
    emulator_over,
    grown_cube,
    log_of,
    make_survey,
    new_cube,
    prepared,
    read_bodies,
)
from PIL import Image
from tables import Table, ms

from flows.runtime import dask_client
from galstore.cube.blocks import Block
from galstore.cube.reader import open_cube
from galstore.ingest.fetch import CutoutSource, Job, Settled
from galstore.ingest.fill import commit_blocks, fill_cube, plan_jobs, write_block
from galstore.ingest.register import Delivery as CatalogDelivery
from galstore.ingest.register import register_page
from galstore.survey.responses import Delivery
from galstore.survey.retry import Politeness
from galstore.survey.skyserver import SkyServer
from schemas.cube import BLOCK_ROWS
from schemas.cutouts import Reason
from schemas.recipes import DaskSection

N_WORKERS = 2
UNLIMITED_PER_SECOND = 50_000.0
N_SEQUENTIAL = 200
PAUSE_S = 0.5
"""Of the paper's script, after each request."""

# so many blocks are filled that the next chunk of the columns (16 blocks) is as full in each cube
GROWN = {"10 k": 10_240, "100 k": 108_544, "1 M": 1_058_816}


def median_of(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def politeness(requests_per_second: float, *, concurrency: int = 16) -> Politeness:
    return Politeness(
        requests_per_second=requests_per_second, concurrency=concurrency, connect_timeout_s=10, read_timeout_s=30,
        attempts=3, retry_budget_s=60, breaker_failures=20,
    )  # fmt: skip


def source_of(service: SkyServer, path: str, requests_per_second: float = UNLIMITED_PER_SECOND) -> CutoutSource:
    return CutoutSource(service=service, scale=open_cube(path).scale, politeness=politeness(requests_per_second))


def register(path: str, objects: pd.DataFrame) -> None:
    register_page(path, CatalogDelivery(catalog="made-up"), prepared(objects))


def fill(path: str, service: SkyServer, client: distributed.Client, **options: Any) -> int:
    """Fill what is pending; every object must have been asked for once and stored."""
    jobs = plan_jobs(open_cube(path))
    n_open = sum(job.block.n_objects for job in jobs)
    filled = fill_cube(path, jobs, source_of(service, path, **options), client, blocks_per_commit=4)
    if (filled.n_stored, filled.n_requests) != (n_open, n_open):
        raise RuntimeError(f"{n_open} objects, {filled.n_stored} stored in {filled.n_requests} requests")
    return n_open


# ---------------------------------------------------------------------------------------------------------- speed


def measure_speed(survey: MadeUpSurvey, folder: Path, table: Table, n_objects: int, repeats: int) -> None:
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
    speed, limit = n_objects / median_of(fills), n_objects / median_of(limits)
    script = N_SEQUENTIAL / sequential_s
    paused = 1 / (sequential_s / N_SEQUENTIAL + PAUSE_S)
    share = ", ".join(f"{who} {1e6 * spent / repeats / n_objects:.0f}" for who, spent in cpu.items())
    table.add(
        f"ingest of {n_objects:,} galaxies, {N_WORKERS} workers that are warm", f"{speed:,.0f} galaxies/s",
        "the limit: decoding, pyramid and writing without network and Dask, "
        f"{N_WORKERS} processes, {limit:,.0f} galaxies/s", speed / limit, ">= 0.5", met=speed >= 0.5 * limit,
    )  # fmt: skip
    table.add("the same", f"{speed:,.0f} galaxies/s", "", None, ">= 2,000 galaxies/s", met=speed >= 2000)
    table.add(
        "the same, with the start of Dask and its workers' imports", f"{n_objects / everything_s:,.0f} galaxies/s",
        f"the limit, {limit:,.0f} galaxies/s", n_objects / everything_s / limit,
    )  # fmt: skip
    table.add(
        "the same, warm", f"{speed:,.0f} galaxies/s",
        f"a script, one request at a time, {script:,.0f} galaxies/s without its pause", speed / script,
    )  # fmt: skip
    table.add(
        "the same, warm", f"{speed:,.0f} galaxies/s",
        f"the script with its pause of {PAUSE_S} s, by arithmetic {paused:.2f} galaxies/s", speed / paused,
    )  # fmt: skip
    table.add("CPU time of it, µs a galaxy", share)


def sequential_script(service: SkyServer, objects: pd.DataFrame, folder: Path) -> float:
    """Seconds of the paper's way: ask for one image, save it, ask for the next; without its pause."""
    folder.mkdir()
    started = time.perf_counter()
    for one in objects.itertuples():
        params = service.cutout_params(ra_deg=one.ra, dec_deg=one.dec, scale_arcsec=0.296)
        answer = requests.get(service.cutout_url, params=params, timeout=30)
        Image.open(io.BytesIO(answer.content)).save(folder / f"{one.object_id}.jpg")
    return time.perf_counter() - started


def limit_s(survey: MadeUpSurvey, n_objects: int, folder: Path) -> float:
    """Seconds of decoding, averaging and writing the same bytes in processes of their own; commits are left out."""
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


def write_share(survey: MadeUpSurvey, path: str, blocks: Sequence[Block], ready: Any) -> None:
    """Write blocks whose bytes are in memory; the first is written once before, so that everything is loaded."""
    delivered = [delivered_block(survey, block, block.rows) for block in blocks]
    write_block(path, delivered[0])
    ready.wait()
    for one in delivered:
        write_block(path, one)
    ready.wait()


def delivered_block(survey: MadeUpSurvey, block: Block, objects: slice) -> Settled:
    """A block as if it had been fetched; pixels are decoded where it is written."""
    deliveries = tuple(
        Delivery(
            row=row, reason=Reason.NONE, http_status=200, attempts=1, body=body, digest=hashlib.sha256(body).digest()
        )
        for row, body in enumerate(survey.bodies(objects), start=block.start)
    )
    return Settled(
        job=Job(block=block),
        rows=np.arange(block.start, block.stop),
        deliveries=deliveries,
        scales_arcsec=np.full(block.n_objects, 0.296),
    )


@contextmanager
def cpu_seconds(emulator: subprocess.Popen[str], spent: Counter[str]) -> Iterator[None]:
    """Add the CPU time that each kind of process spends meanwhile."""
    main = psutil.Process()
    processes = {main: "scheduler and committer", psutil.Process(emulator.pid): "emulator"}
    processes |= {one: "workers" for one in main.children(recursive=True) if one.pid != emulator.pid}
    before = {one: sum(one.cpu_times()[:2]) for one in processes}
    yield
    for one, who in processes.items():
        spent[who] += sum(one.cpu_times()[:2]) - before[one]


# ----------------------------------------------------------------------------------------------------------- rate


def measure_rate(survey: MadeUpSurvey, folder: Path, table: Table, rates: Sequence[tuple[float, int]]) -> None:
    with dask_client(DaskSection(workers=N_WORKERS), n_tasks=N_WORKERS) as client:
        for per_second, n_objects in rates:
            path = new_cube(str(folder / f"rate-{per_second:.0f}"))
            register(path, survey.objects[:n_objects])
            with emulator_over(survey) as (service, _):
                started = time.perf_counter()
                fill(path, service, client, requests_per_second=per_second)
                seconds = time.perf_counter() - started
                busiest = log_of(service)["busiest_second"]
            shutil.rmtree(path)
            table.add(
                f"requests that arrive in any one second, {N_WORKERS} workers, {n_objects:,} galaxies",
                f"at most {busiest}, on average {n_objects / seconds:.0f}", f"the rate set, {per_second:.0f}/s",
                busiest / per_second, "never more", met=busiest <= per_second,
            )  # fmt: skip


# --------------------------------------------------------------------------------------------------------- append


class CommitTimes(logging.Handler):
    """Seconds that Icechunk's own commit takes, by the debug messages around it."""

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


Seconds = dict[tuple[str, str], list[float]]
"""By size of the cube and step."""


def measure_append(survey: MadeUpSurvey, folder: Path, table: Table, repeats: int) -> None:
    paths = {}
    for size, n_rows in GROWN.items():
        started = time.perf_counter()
        paths[size] = grown_cube(str(folder / f"grown-{n_rows}"), n_rows)
        print(f"  cube of {n_rows:,} objects made in {time.perf_counter() - started:.0f} s", flush=True)
    took: Seconds = {(size, step): [] for size in GROWN for step in APPEND_STEPS}
    # the first of each is not counted: it loads what a process loads once
    with (
        emulator_over(survey) as (service, _),
        dask_client(DaskSection(workers=1), n_tasks=1) as client,
        CommitTimes().listening() as commits,
    ):
        for n in range(repeats + 1):
            for size, path in paths.items():
                once = append_prepared(survey, path, 2 * n, commits) | append_fetched(
                    survey, path, 2 * n + 1, lambda path: fill(path, service, client)
                )
                for step, seconds in once.items() if n else ():
                    took[size, step].append(seconds)
    for step, (base, aim, told) in APPEND_STEPS.items():
        ratio = median_of(took["1 M", step]) / median_of(took[base, step])
        table.add(
            f"{told}, 1 M objects in the cube", ms(took["1 M", step]), f"{base}: {ms(took[base, step])}", ratio,
            f"<= {aim}" if aim else "", met=not aim or ratio <= aim,
        )  # fmt: skip


APPEND_STEPS: dict[str, tuple[str, float, str]] = {
    "register": ("10 k", 0, "registering a page of 1,024 objects"),
    "write": ("10 k", 0, "writing their block, images at hand"),
    "commit step": ("10 k", 0, "committing the block, with merge and state"),
    "append": ("10 k", 1.2, "append: these three together"),
    "fetched": ("10 k", 1.2, "append with the network: registering, fetching, writing, committing"),
    "register commit": ("100 k", 1.5, "Icechunk's own part of the page's commit"),
    "block commit": ("100 k", 1.5, "Icechunk's own part of the block's commit"),
}
"""What is compared with which cube, up to which ratio, and how it is called."""


def append_prepared(survey: MadeUpSurvey, path: str, turn: int, commits: CommitTimes) -> dict[str, float]:
    """Append the survey's `turn`-th block with its bytes at hand; returns the seconds of each step."""
    objects = slice(turn * BLOCK_ROWS, (turn + 1) * BLOCK_ROWS)
    start = open_cube(path).n_objects
    settled = delivered_block(survey, Block(start, start + BLOCK_ROWS), objects)
    times = [time.perf_counter()]
    register(path, survey.objects[objects])
    register_commit_s = commits.last_s
    times.append(time.perf_counter())
    written = write_block(path, settled)
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


def append_fetched(survey: MadeUpSurvey, path: str, turn: int, fill_block_of: Callable[[str], int]) -> dict[str, float]:
    """Append the survey's `turn`-th block, asking for its images."""
    started = time.perf_counter()
    register(path, survey.objects[turn * BLOCK_ROWS : (turn + 1) * BLOCK_ROWS])
    fill_block_of(path)
    return {"fetched": time.perf_counter() - started}


# --------------------------------------------------------------------------------------------------------- memory


def measure_memory(survey: MadeUpSurvey, folder: Path, table: Table, few: int, many: int) -> None:
    with emulator_over(survey) as (service, _):
        peaks = {n: peak_memory(survey, service, n, folder / f"memory-{n}") for n in (few, many)}
    for kind, who in enumerate(("main process and workers together", "main process alone")):
        ratio = peaks[many][kind] / peaks[few][kind]
        table.add(
            f"peak memory of filling {many:,} galaxies, {who}", f"{peaks[many][kind] / 1e6:,.0f} MB",
            f"{few:,} galaxies: {peaks[few][kind] / 1e6:,.0f} MB", ratio, "<= 1.2", met=ratio <= 1.2,
        )  # fmt: skip


def peak_memory(survey: MadeUpSurvey, service: SkyServer, n_objects: int, folder: Path) -> tuple[int, int]:
    """Peak resident bytes of a fill in processes of its own: of all of them together, and of the main one."""
    folder.mkdir()
    filling = multiprocessing.get_context("spawn").Process(target=fill_alone, args=(survey, service, n_objects, folder))
    filling.start()
    main = psutil.Process(filling.pid)
    together = alone = 0
    while filling.is_alive():
        try:
            of_main = main.memory_info().rss
            of_all = of_main + sum(one.memory_info().rss for one in main.children(recursive=True))
        except psutil.NoSuchProcess:
            # one ended between listing and looking
            continue
        together, alone = max(together, of_all), max(alone, of_main)
        filling.join(0.02)
    if filling.exitcode:
        raise RuntimeError(f"the fill of {n_objects} objects failed with exit code {filling.exitcode}")
    shutil.rmtree(folder)
    return together, alone


def fill_alone(survey: MadeUpSurvey, service: SkyServer, n_objects: int, folder: Path) -> None:
    path = new_cube(str(folder / "cube"))
    register(path, survey.objects[:n_objects])
    with dask_client(DaskSection(workers=N_WORKERS), n_tasks=N_WORKERS) as client:
        fill(path, service, client)


# ------------------------------------------------------------------------------------------------------------ all

SECTIONS = ("speed", "rate", "append", "memory")


def sections(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = sorted(set(chosen) - set(SECTIONS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no such section: {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    return chosen


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=sections, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--cutouts", type=Path, help="folder of JPEGs of 128 px; by default blobs are drawn")
    parser.add_argument("--objects", type=int, default=16_384, help="galaxies of the speed section")
    parser.add_argument("--repeats", type=int, default=5, help="of which medians are taken (append: at most 9)")
    return parser.parse_args()


def machine() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("icechunk", "zarr", "distributed", "aiohttp", "numba"))
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {libraries}"


def main() -> None:
    chosen = arguments()
    few, many = 4 * BLOCK_ROWS, 20 * BLOCK_ROWS
    repeats = min(chosen.repeats, many // BLOCK_ROWS // 2 - 1)
    table = Table()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bodies = read_bodies(chosen.cutouts) if chosen.cutouts else draw_bodies()
        n_bytes = sum(map(len, bodies)) / len(bodies)
        print(f"{len(bodies)} {'real' if chosen.cutouts else 'made-up'} images, {n_bytes:,.0f} B delivered each")
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
