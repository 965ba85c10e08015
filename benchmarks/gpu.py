"""Speed of training and scoring on a GPU, printed as one line of JSON.

Creates a cube of simulated galaxies, loads it, trains ResNet-34 in memory and streamed, scores eight views of each
image, and compares bfloat16 with float32. The comparison is a DataLoader over a folder of JPEGs, float32, without
autocast. The limit is the speed of a multiplication of large matrices on the same device.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --images 2048 --level 32 --arch resnet10w32 --epochs 2 --scored 512     # small, on a CPU
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import icechunk
import numpy as np
import pandas as pd
import torch
import zarr
from numpy.typing import NDArray
from simulated import new_cube, prepared
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg, read_file, write_file

from galstore.cube.arrays import require_array
from galstore.cube.commits import commit
from galstore.cube.reader import Cube, open_cube
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from modeling.loading.batches import FloatBuffer
from modeling.loading.pixels import Pixels, StreamedPixels, place_pixels
from modeling.models.networks import GalaxyNetwork, build_network, choose_device
from modeling.scoring.predict import predict_views
from modeling.training.losses import rmse_loss
from modeling.training.train import TrainedNetwork, train_network
from schemas.cube import BLOCK_ROWS, LEVEL
from schemas.cutouts import BANDS, Status
from schemas.recipes import NetworkSection, TrainSection

PAPER_EPOCHS, PAPER_TRAINED, PAPER_SCORED, VIEWS = 10, 76_772, 20_466, 8
BATCH = 256
LOADED_BY_FOLDER = 4096

Result = TypeVar("Result")
Labelled = tuple[NDArray[np.uint8], NDArray[np.float64]]
"""Images and their metallicities."""


def draw_galaxies(n: int, side_px: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Draw round galaxies on a noisy sky; return pixels and the metallicities that determine their colours."""
    y, x = np.mgrid[:side_px, :side_px].astype(np.float32) - (side_px - 1) / 2
    metallicity = rng.normal(8.9, 0.2, n)
    width = rng.uniform(0.03, 0.12, (n, 1, 1)).astype(np.float32) * side_px
    profile = 170 * np.exp(-np.hypot(x, y)[None] / width)
    tilt = np.array([0.25, 0.0, -0.25])
    colours = (1 + tilt * (metallicity - 8.9)[:, None] / 0.2).astype(np.float32)
    noise = rng.integers(4, 14, (n, side_px, side_px, 3), dtype=np.uint8)
    return np.clip(profile[..., None] * colours[:, None, None, :] + noise, 0, 255).astype(np.uint8), metallicity


def make_cube(path: str, n_images: int, side_px: int) -> NDArray[np.float64]:
    """Create a cube with simulated images of one level; return the metallicities."""
    new_cube(path)
    rng = np.random.default_rng(0)
    objects = pd.DataFrame(
        {"object_id": np.arange(n_images) + 10**15, "ra": rng.uniform(0, 360, n_images), "dec": np.zeros(n_images)}
    )
    register_page(path, CatalogUpdate(catalog="simulated"), prepared(objects))
    labels = np.empty(n_images)

    def store(session: icechunk.Session) -> None:
        root = zarr.open_group(session.store, mode="a")
        pixels = require_array(root, LEVEL[side_px].path).with_config({"write_empty_chunks": True})
        for first in range(0, n_images, BLOCK_ROWS):
            rows = slice(first, min(first + BLOCK_ROWS, n_images))
            pixels[rows], labels[rows] = draw_galaxies(rows.stop - rows.start, side_px, rng)
        require_array(root, "state/status")[:] = np.full(n_images, Status.STORED, dtype=np.uint8)

    commit(path, store, message="simulated galaxies", metadata={"operation": "benchmark"})
    return labels


def timed(device: torch.device, work: Callable[[], Result]) -> tuple[float, Result]:
    """Time a function on a device; return seconds and its result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result


@contextmanager
def peak_memory(device: torch.device, results: dict[str, Any], name: str) -> Iterator[None]:
    """Store the peak memory of torch on a GPU during the block in GB; None on a CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield
    results[name] = torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else None


def matrix_limit(device: torch.device) -> float:
    """Return the operations per second of a product of large matrices: bfloat16 on a GPU, float32 on a CPU."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    timed(device, lambda: matrix @ matrix)
    n = 20
    seconds, _ = timed(device, lambda: [matrix @ matrix for _ in range(n)])
    return n * 2 * side**3 / seconds


def operations_of(network: GalaxyNetwork, side_px: int) -> int:
    """Return the operations of one forward pass of one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network.eval()(torch.zeros(1, len(BANDS), side_px, side_px))
    return int(counter.get_total_flops())


def train(pixels: Pixels, labels: NDArray[np.float64], chosen: argparse.Namespace, unseen: Labelled) -> TrainedNetwork:
    return train_network(
        pixels=pixels,
        labels=labels,
        validation_pixels=unseen[0],
        validation_labels=unseen[1],
        network=NetworkSection.model_validate({"arch": chosen.arch, "level": chosen.level}),
        train=TrainSection(epochs=chosen.epochs, batch_size=BATCH, learning_rate=0.01, device=chosen.device),
    )


def pace(trained: TrainedNetwork) -> dict[str, float]:
    """Return the speed of the first epoch, which is the warm-up, and of the best other epoch."""
    first, *rest = trained.log
    warm = max(rest or [first], key=lambda record: record.images_per_s)
    return {
        "images_per_s_cold": first.images_per_s,
        "images_per_s_warm": warm.images_per_s,
        "waiting_share": warm.waiting_share,
        "rmse_dex": trained.log[-1].rmse,
    }


def rounding_dex(trained: TrainedNetwork, pixels: NDArray[np.uint8], device: torch.device) -> float | None:
    """Return the RMS difference between predictions of a bfloat16 and a float32 body; None on a CPU."""
    if device.type != "cuda":
        return None
    network = trained.network.to(device).eval()
    floats = FloatBuffer(trained.normalisation, pixels.shape, device)  # type: ignore[arg-type]
    floats.images(len(pixels)).copy_(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    images = floats.normalise(len(pixels))
    with torch.inference_mode():
        exact = torch.cat([network(part) for part in images.split(BATCH)])
        with torch.autocast(device.type, dtype=torch.bfloat16):
            rounded = torch.cat([network(part) for part in images.split(BATCH)])
    return float((exact - rounded)[:, 0].square().mean().sqrt()) * trained.label_scales[0].std


class Folder(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Folder of JPEGs: each image is read, decoded and converted to float32."""

    def __init__(self, files: list[Path], labels: NDArray[np.float64]) -> None:
        self.files, self.labels = files, torch.from_numpy(labels).float()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = decode_jpeg(read_file(str(self.files[index])), mode=ImageReadMode.RGB)
        return image.float() / 255, self.labels[index : index + 1]


def train_from_folder(
    folder: Path, pixels: NDArray[np.uint8], labels: NDArray[np.float64], arch: str, device: torch.device
) -> float:
    """Return the images per second of an eager float32 training over JPEGs, without the first epoch."""
    folder.mkdir()
    files = [folder / f"{n}.jpg" for n in range(len(pixels))]
    for file, image in zip(files, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), strict=True):
        write_file(str(file), encode_jpeg(image, quality=90))
    loader = DataLoader(
        Folder(files, (labels - labels.mean()) / labels.std()),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    network: nn.Module = build_network(NetworkSection.model_validate({"arch": arch, "level": 128})).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def epoch() -> int:
        n = 0
        for images, true in loader:
            loss = rmse_loss(network(images.to(device, non_blocking=True)), true.to(device, non_blocking=True))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            n += len(images)
        return n

    epoch()
    seconds, n_images = timed(device, epoch)
    return float(n_images / seconds)


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    device = choose_device(chosen.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    results: dict[str, Any] = {**vars(chosen), "device": name, "torch": torch.__version__}
    results["making_s"], labels = timed(device, lambda: make_cube(str(folder / "cube"), chosen.images, chosen.level))
    cube: Cube = open_cube(str(folder / "cube"))
    rows = np.arange(chosen.images)
    loading_s, pixels = timed(device, lambda: cube.read_pixels(chosen.level, rows))
    results["loading_images_per_s"] = chosen.images / loading_s
    fit, unseen = slice(chosen.scored, None), (pixels[: chosen.scored], labels[: chosen.scored])

    with peak_memory(device, results, "resident_peak_gb"):
        trained = train(place_pixels(pixels[fit], device, rows[fit]), labels[fit], chosen, unseen)
    results["resident"] = pace(trained)
    streamed = StreamedPixels(
        lambda positions, out: cube.read_pixels(chosen.level, positions, out),
        rows[fit],
        side_px=chosen.level,
        dtype=torch.uint8,
        n_bands=len(BANDS),
        n_threads=max(2, (os.cpu_count() or 2) // 2),
    )
    with peak_memory(device, results, "streamed_peak_gb"):
        results["streamed"] = pace(train(streamed, labels[fit], chosen, unseen))

    network = trained.network.to(device).to(memory_format=torch.channels_last)

    def score() -> torch.Tensor:
        return predict_views(
            network,
            place_pixels(unseen[0], device),
            normalisation=trained.normalisation,
            views=VIEWS,
            batch_size=chosen.scoring_batch,
            device=device,
        )

    score()
    scoring_s, _ = timed(device, score)
    passes = VIEWS * chosen.scored / scoring_s
    results["forward_passes_per_s"] = passes
    results["bfloat16_rms_dex"] = rounding_dex(trained, pixels[: min(2048, chosen.images)], device)
    limit, each = matrix_limit(device), operations_of(trained.network.cpu(), chosen.level)
    warm = results["resident"]["images_per_s_warm"]
    results["limit_tflops"] = limit / 1e12
    results["training_share_of_limit"], results["scoring_share_of_limit"] = (
        3 * each * warm / limit,
        each * passes / limit,
    )
    results["paper_training_s"] = PAPER_EPOCHS * PAPER_TRAINED / warm
    results["paper_scoring_s"] = VIEWS * PAPER_SCORED / passes
    n = min(LOADED_BY_FOLDER, chosen.images)
    results["usual_images_per_s"] = train_from_folder(folder / "jpegs", pixels[:n], labels[:n], chosen.arch, device)
    results["times_the_usual"] = warm / results["usual_images_per_s"]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=140_000)
    parser.add_argument("--level", type=int, default=128, help="side in px: 128, 64 or 32")
    parser.add_argument("--arch", default="resnet34")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each training; the first is the cold one")
    parser.add_argument(
        "--scored", type=int, default=PAPER_SCORED, help="images that are scored and not used for training"
    )
    parser.add_argument("--scoring-batch", type=int, default=1024)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(chosen, Path(temporary))))


if __name__ == "__main__":
    main()
