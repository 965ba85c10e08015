"""Speed of scoring a cube against the bare network, and growth of memory with the number of objects.

*speed*: the same images scored from the cube (read, decoded, normalised, rotated, predicted, described and committed)
and by the network alone, on normalised batches of the same size in memory, one forward pass for each view. Both are
timed alternately, so that load on the machine affects both; the first round is a warm-up.

*memory*: peak resident memory of a process that scores a number of objects at 32 px, for two numbers.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --only speed --images 4096 --views 8 --repeats 5

On a shared machine set OMP_WAIT_POLICY=PASSIVE: by default torch's threads wait for each other in a loop.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import icechunk
import numpy as np
import torch
import zarr
from simulated import SCALE, new_cube, prepared, simulated_objects
from tables import Table, images_per_s, machine, section_parser

from flows.engine.scoring import prediction_attributes, score_blocks, score_here
from flows.runtime import progress_bar
from galstore.cube.arrays import require_array
from galstore.cube.commits import commit
from galstore.cube.reader import open_cube
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from modeling.loading.batches import FloatBuffer
from modeling.loading.normalisation import LabelScale, Normalisation
from modeling.loading.pixels import measure_normalisation, place_pixels
from modeling.models.model import Model
from modeling.models.networks import build_network
from modeling.outliers.ood_score import DetectorExamples
from modeling.scoring.predict import predict
from modeling.scoring.scorer import Scorer
from modeling.training.finish import build_model, fit_ood_detector
from modeling.training.train import TrainedNetwork
from schemas.cube import BLOCK_ROWS, LEVEL
from schemas.cutouts import Status
from schemas.recipes import NetworkSection, TrainSection

CPU = torch.device("cpu")
BLOCKS_PER_COMMIT = 16
"""Default of recipes."""
MEMORY_LEVEL = 32

SPEED_AIM, MEMORY_LIMIT = 0.9, 1.2


def make_cube(path: str, n_objects: int, level: int) -> str:
    """Create a cube of stored objects with noisy blobs of different brightness at one level."""
    new_cube(path)
    register_page(path, CatalogUpdate(catalog="simulated"), prepared(simulated_objects(n_objects)))
    for first in range(0, n_objects, BLOCK_ROWS * BLOCKS_PER_COMMIT):
        rows = slice(first, min(first + BLOCK_ROWS * BLOCKS_PER_COMMIT, n_objects))
        commit(path, partial(put_images, rows=rows, level=level), message="put", metadata={"operation": "put"})
    return path


def put_images(session: icechunk.Session, *, rows: slice, level: int) -> None:
    root = zarr.open_group(session.store, mode="a")
    rng = np.random.default_rng(rows.start)
    y, x = np.mgrid[:level, :level] - (level - 1) / 2
    blob = np.exp(-np.hypot(x, y) * 8 / level)[None, :, :, None]
    status = require_array(root, "state/status")
    status[rows] = np.full(rows.stop - rows.start, Status.STORED, dtype=status.dtype)
    pixels = require_array(root, LEVEL[level].path)
    for first in range(rows.start, rows.stop, BLOCK_ROWS):
        n = min(BLOCK_ROWS, rows.stop - first)
        light = rng.uniform(80, 220, (n, 1, 1, 3)) * blob + rng.normal(8, 2.5, (n, level, level, 3))
        pixels[first : first + n] = light.clip(0, 255).astype(np.uint8)


def random_model(path: str, level: int) -> Model:
    """Build an untrained network with an OOD detector; it takes as long as a trained one."""
    network = NetworkSection(arch="resnet10w32", level=level)
    cube = open_cube(path)
    images = cube.read_pixels(level, np.arange(min(BLOCK_ROWS, cube.n_objects)))
    trained = TrainedNetwork(
        network=build_network(network).eval(),
        normalisation=measure_normalisation(place_pixels(images, CPU)),
        label_scales=(LabelScale(mean=8.9, std=0.2),),
        log=(),
        best_epoch=1,
    )
    model = build_model(
        trained,
        model_id="benchmark",
        network=network,
        train=TrainSection(),
        scale=SCALE,
        training_set="none",
        snapshot="none",
    )
    embedding = predict(model, images, views=1, device="cpu").embedding
    half = len(images) // 2
    fitted, calibrated = (
        DetectorExamples(embedding=embedding[part], pixels=images[part]) for part in (slice(half), slice(half, None))
    )
    # flags are part of scoring
    return fit_ood_detector(model, fitted, calibrated, np.full(half, 8.9))


def score_all(path: str, scorer: Scorer, predictions_id: str) -> int:
    """Score all objects, as `galstore score` does."""
    n_objects = open_cube(path).n_objects
    with progress_bar("scoring", n_objects) as progress:
        return score_blocks(
            path,
            predictions_id,
            np.arange(n_objects),
            partial(score_here, scorer),
            attributes=prediction_attributes(scorer),
            blocks_per_commit=BLOCKS_PER_COMMIT,
            progress=progress,
        )


def measure_speed(folder: Path, table: Table, chosen: argparse.Namespace) -> None:
    path = make_cube(str(folder / "cube"), chosen.images, chosen.level)
    model = random_model(path, chosen.level)
    for views in chosen.views:
        scorer = Scorer(
            predictions_id="benchmark", members=(model,), views=views, batch_size=chosen.batch, device="cpu"
        )
        n = chosen.images
        batches = normalised_batches(path, model.config.normalisation, chosen.level, chosen.batch)
        whole, bare = [], []
        for number in range(chosen.repeats + 1):
            whole.append(n / seconds_of(partial(score_all, path, scorer, f"run-{views}-{number}")))
            bare.append(n / seconds_of(partial(run_bare, model, batches, views)))
            print(f"  round {number}: {whole[-1]:,.0f} and {bare[-1]:,.0f} images/s", flush=True)
        ratio = statistics.median(a / b for a, b in zip(whole[1:], bare[1:], strict=True))
        table.add(
            f"scoring from the cube, resnet10w32, {chosen.level} px, {views} views, batches of {chosen.batch}",
            images_per_s(whole[1:]),
            f"the bare network: {images_per_s(bare[1:])}",
            ratio,
            f">= {SPEED_AIM}",
            met=ratio >= SPEED_AIM,
        )


def normalised_batches(path: str, normalisation: Normalisation, level: int, batch: int) -> list[torch.Tensor]:
    """Return all images as the input of the network: float32, channels last."""
    cube = open_cube(path)
    batches = []
    for first in range(0, cube.n_objects, batch):
        counts = torch.from_numpy(cube.read_pixels(level, np.arange(first, min(first + batch, cube.n_objects))))
        # a separate buffer for each batch, because all of them are used
        floats = FloatBuffer(normalisation, (len(counts), level, level, counts.shape[3]), CPU)
        batches.append(floats.write(counts, np.zeros(len(counts), dtype=np.int64)))
    return batches


@torch.inference_mode()
def run_bare(model: Model, batches: list[torch.Tensor], views: int) -> None:
    network = model.network.to(memory_format=torch.channels_last)
    for images in batches:
        for _ in range(views):
            network(images)


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_memory(folder: Path, table: Table, chosen: argparse.Namespace) -> None:
    peaks = []
    for n_objects in (chosen.few, chosen.many):
        path = make_cube(str(folder / f"of-{n_objects}"), n_objects, MEMORY_LEVEL)
        words = [sys.executable, __file__, "--peak-of", path]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
        print(f"  {n_objects:,} objects: {peaks[-1]:,.0f} MiB", flush=True)
    ratio = peaks[1] / peaks[0]
    table.add(
        f"peak memory, scoring {chosen.many:,} objects at {MEMORY_LEVEL} px",
        f"{peaks[1]:,.0f} MiB",
        f"{chosen.few:,} objects: {peaks[0]:,.0f} MiB",
        ratio,
        f"<= {MEMORY_LIMIT}",
        met=ratio <= MEMORY_LIMIT,
    )


def print_peak_memory(path: str) -> None:
    """Score a cube in this process and print the peak memory in KiB."""
    scorer = Scorer(predictions_id="benchmark", members=(random_model(path, MEMORY_LEVEL),), views=1, device="cpu")
    score_all(path, scorer, "benchmark")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


SECTIONS = {"speed": measure_speed, "memory": measure_memory}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=section_parser(SECTIONS), default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}"
    )
    parser.add_argument("--images", type=int, default=16384, help="images of a round of speed")
    parser.add_argument("--level", type=int, default=64, help="side in px, for speed")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 8], choices=[1, 8])
    parser.add_argument("--repeats", type=int, default=5, help="number of rounds, for medians, after a warm-up")
    parser.add_argument("--few", type=int, default=5_000, help="objects, for memory")
    parser.add_argument("--many", type=int, default=50_000, help="objects, for memory")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    torch.set_num_threads(os.cpu_count() or 1)
    if chosen.peak_of:
        print_peak_memory(chosen.peak_of)
        return
    table = Table()
    print(machine("torch"))
    for section in chosen.only:
        print(f"{section}:", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            SECTIONS[section](Path(temporary), table, chosen)
    table.show()
    raise SystemExit(1 if table.n_failed else 0)


if __name__ == "__main__":
    main()
