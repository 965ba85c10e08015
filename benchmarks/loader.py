"""How fast training batches come: from a cube, resident and streamed, against one file's limit and other loaders.

Every way hands over the same images, made up as JPEGs of 128 px, in shuffled batches of 256: (n, band, y, x), float32,
normalised, and mirrored or turned where the way has it cheaply. Epochs over all images are timed in rounds, each way
once a round, so that a busy machine is busy for all of them; the first round is not counted. Files are in the page
cache by then. At 32 px, loaders of JPEGs decode 128 px and resize, as their users do; cube, memmap and HDF5 have the
level. torch has a thread for each core in the main process, and other loaders have two workers. *Waiting* is the share
of a training's time on the CPU in which the network has no images.

    python benchmarks/loader.py
    python benchmarks/loader.py --only 32,waiting --images 4096 --repeats 5

On a machine that others use too, set OMP_WAIT_POLICY=PASSIVE. By default torch's threads wait for each other in a loop:
with both cores busy, the resident cube came out 8 times slower and the memmap 74 times. Streaming needs 8,192 images or
more to be judged: an epoch of one block reads it before its first batch, with nothing to do meanwhile.

A loader that is not installed is left out: fastai, webdataset, litdata and h5py are no dependencies of galstore.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ingest import delivered_block, register
from made_up import MadeUpSurvey, draw_bodies, make_survey, new_cube, read_bodies
from PIL import Image
from tables import Table
from torch.utils.data import DataLoader, Dataset

from galstore.cube.blocks import Block
from galstore.cube.reader import Cube, open_cube
from galstore.ingest.fill import commit_blocks, write_block
from modeling.loading.batches import FloatBuffer, TrainingBatches
from modeling.loading.normalisation import Normalisation
from modeling.loading.pixels import Pixels, StreamedPixels, measure_normalisation, place_pixels
from modeling.training.train import train_network
from schemas.cube import BLOCK_ROWS
from schemas.cutouts import BANDS
from schemas.recipes import NetworkSection, TrainSection

BATCH = 256
N_WORKERS = 2
CHUNK_IMAGES = 64
"""Of the HDF5 file, as the cube has at 128 px."""
N_SHARDS = 8
"""Tar files of WebDataset, whose workers share them out."""
WAITING_LEVEL = 64
VALIDATION_IMAGES = 512
CPU = torch.device("cpu")

RESIDENT, STREAMED, LIMIT = "galstore, resident", "galstore, streamed", "the memmap limit"

Epoch = Callable[[int], Iterable[torch.Tensor]]
"""The batches of an epoch, of which the number is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One set of images at one level: as a cube, as a folder of JPEGs, and where ways put copies of their own."""

    cube: Cube
    level: int
    jpegs: Path
    copies: Path
    normalisation: Normalisation

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        return np.arange(self.cube.n_objects)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.cube.n_objects, self.level, self.level, len(BANDS)

    def read_pixels(self) -> npt.NDArray[np.uint8]:
        return self.cube.read_pixels(self.level, self.rows)

    def files(self) -> list[Path]:
        return sorted(self.jpegs.glob("*.jpg"))

    def unit_scale(self) -> dict[str, list[float]]:
        """Mean and standard deviation of each band, in counts / 255."""
        found = self.normalisation
        return {"mean": [one / 255 for one in found.mean_counts], "std": [one / 255 for one in found.std_counts]}


def make_cube(path: str, survey: MadeUpSurvey) -> Cube:
    """A cube with the survey's images."""
    register(new_cube(path), survey.objects)
    n_objects = len(survey.objects)
    blocks = [Block(start, min(start + BLOCK_ROWS, n_objects)) for start in range(0, n_objects, BLOCK_ROWS)]
    for block in blocks:
        commit_blocks(path, [write_block(path, delivered_block(survey, block, block.rows))])
    return open_cube(path)


def prepare(cube: Cube, survey: MadeUpSurvey, level: int, copies: Path) -> Material:
    copies.mkdir(parents=True)
    normalisation = measure_normalisation(place_pixels(cube.read_pixels(level, np.arange(cube.n_objects)), CPU))
    return Material(cube=cube, level=level, jpegs=survey.folder / "cutouts", copies=copies, normalisation=normalisation)


# ----------------------------------------------------------------------------------------------------------- ways


def streamed(cube: Cube, level: int, rows: npt.NDArray[np.int64]) -> StreamedPixels:
    return StreamedPixels(
        lambda some, out: cube.read_pixels(level, some, out), rows, side_px=level, dtype=torch.uint8, n_bands=len(BANDS)
    )


def galstore_batches(pixels: Pixels, material: Material) -> Epoch:
    batches = TrainingBatches(
        pixels, torch.zeros(pixels.shape[0], 1), normalisation=material.normalisation, batch_size=BATCH, seed=0
    )
    return lambda number: (images for images, _ in batches.epoch(number))


def galstore_resident(material: Material) -> Epoch:
    return galstore_batches(place_pixels(material.read_pixels(), CPU), material)


def galstore_streamed(material: Material) -> Epoch:
    return galstore_batches(streamed(material.cube, material.level, material.rows), material)


def shuffled_rows(n: int, number: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each batch, ascending within it."""
    order = np.random.default_rng(number).permutation(n)
    for first in range(0, n, BATCH):
        yield np.sort(order[first : first + BATCH])


def memmap(material: Material) -> Epoch:
    """Rows of one file, cast and normalised in a buffer: the least that any loader of a file has to do."""
    file = material.copies / "pixels"
    material.read_pixels().tofile(file)
    # copy-on-write: torch warns of memory that it may not write to
    pixels = torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="c", shape=material.shape))
    floats = FloatBuffer(material.normalisation, (BATCH, *material.shape[1:]), CPU)
    counts = torch.empty((BATCH, *material.shape[1:]), dtype=torch.uint8)

    def epoch(number: int) -> Iterator[torch.Tensor]:
        for rows in shuffled_rows(len(pixels), number):
            n = rows.size
            gathered = torch.index_select(pixels, 0, torch.from_numpy(rows), out=counts[:n])
            floats.images(n).copy_(gathered.permute(0, 3, 1, 2))
            yield floats.normalise(n)

    return epoch


def hdf5(material: Material) -> Epoch:
    import h5py

    file = h5py.File(material.copies / "pixels.h5", "w")
    chunks = (min(CHUNK_IMAGES, material.shape[0]), *material.shape[1:])
    pixels = file.create_dataset("pixels", data=material.read_pixels(), chunks=chunks)
    floats = FloatBuffer(material.normalisation, (BATCH, *material.shape[1:]), CPU)

    def epoch(number: int) -> Iterator[torch.Tensor]:
        for rows in shuffled_rows(len(pixels), number):
            gathered = torch.from_numpy(pixels[rows])
            floats.images(rows.size).copy_(gathered.permute(0, 3, 1, 2))
            yield floats.normalise(rows.size)

    return epoch


def torchvision_steps(material: Material) -> Any:
    """From a PIL image, or from a uint8 tensor (band, y, x), to a normalised float32 one."""
    from torchvision.transforms import v2

    resize = [v2.Resize(material.level)] if material.level < 128 else []
    return v2.Compose(
        [
            v2.ToImage(), *resize, v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(**material.unit_scale()),
        ]
    )  # fmt: skip


class JpegFolder(Dataset[torch.Tensor]):
    """Files that are opened by PIL, as in torchvision's `ImageFolder`."""

    def __init__(self, files: Sequence[Path], steps: Any) -> None:
        self._files = files
        self._steps = steps

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._files[index]) as image:
            tensor: torch.Tensor = self._steps(image.convert("RGB"))
        return tensor


def torch_folder(material: Material) -> Epoch:
    folder = JpegFolder(material.files(), torchvision_steps(material))
    loader = DataLoader(folder, batch_size=BATCH, shuffle=True, num_workers=N_WORKERS, persistent_workers=True)
    return lambda _: loader


def fastai_folder(material: Material) -> Epoch:
    from fastai.vision.all import DataBlock, DihedralItem, ImageBlock, Normalize, RegressionBlock, Resize

    # the eight views as an item transform: its batch transform resamples every image and takes far longer
    resize = [Resize(material.level)] if material.level < 128 else []
    block = DataBlock(
        blocks=(ImageBlock, RegressionBlock),
        get_items=lambda _: material.files(),
        get_y=lambda _: 0.0,
        splitter=lambda items: (range(len(items)), range(1)),
        item_tfms=[*resize, DihedralItem()],
        batch_tfms=[Normalize.from_stats(*material.unit_scale().values(), cuda=False)],
    )
    loaders = block.dataloaders(material.jpegs, bs=BATCH, num_workers=N_WORKERS, device=CPU)
    return lambda _: (images for images, _ in loaders.train)


def webdataset_tars(material: Material) -> Epoch:
    import webdataset

    for number in range(N_SHARDS):
        with tarfile.open(material.copies / f"{number:02d}.tar", "w") as tar:
            for file in material.files()[number::N_SHARDS]:
                tar.add(file, arcname=file.name)
    pattern = str(material.copies / f"{{00..{N_SHARDS - 1:02d}}}.tar")
    images = (
        webdataset.WebDataset(pattern, shardshuffle=N_SHARDS)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg")
        .map_tuple(torchvision_steps(material))
        .batched(BATCH)
    )
    loader = webdataset.WebLoader(images, batch_size=None, num_workers=N_WORKERS, persistent_workers=True)
    return lambda _: (images for (images,) in loader)


def litdata_chunks(material: Material) -> Epoch:
    import litdata

    chunks = str(material.copies / "litdata")
    # a JPEG that PIL has opened is kept as the bytes that it is
    litdata.optimize(
        fn=Image.open, inputs=[str(file) for file in material.files()], output_dir=chunks, chunk_bytes="16MB",
        num_workers=1, start_method="fork", verbose=False,
    )  # fmt: skip
    images = litdata.StreamingDataset(chunks, shuffle=True, transform=torchvision_steps(material))
    loader = litdata.StreamingDataLoader(images, batch_size=BATCH, num_workers=N_WORKERS, persistent_workers=True)
    return lambda _: loader


WAYS: dict[str, tuple[Callable[[Material], Epoch], str]] = {
    RESIDENT: (galstore_resident, "torch"),
    STREAMED: (galstore_streamed, "torch"),
    LIMIT: (memmap, "torch"),
    "fastai, folder of JPEGs": (fastai_folder, "fastai"),
    "torch DataLoader, folder of JPEGs": (torch_folder, "torchvision"),
    "WebDataset, tars of JPEGs": (webdataset_tars, "webdataset"),
    "litdata, chunks of JPEGs": (litdata_chunks, "litdata"),
    "HDF5, chunks of 64 images": (hdf5, "h5py"),
}
"""By name, what opens a way, and the package that it needs."""
FASTAI = "fastai, folder of JPEGs"

AIMS = {
    128: {(RESIDENT, FASTAI): 10.0, (RESIDENT, LIMIT): 0.4, (STREAMED, LIMIT): 0.4},
    32: {(RESIDENT, FASTAI): 30.0},
}
"""By level, how many times as fast the first has to be as the second."""


# -------------------------------------------------------------------------------------------------------- loading


def open_ways(material: Material, names: Iterable[str]) -> dict[str, Epoch]:
    ways = {}
    for name in names:
        build, package = WAYS[name]
        try:
            ways[name] = build(material)
        except ModuleNotFoundError as error:
            print(f"  {name}: left out, no module {error.name!r}; to measure it: pip install {package}", flush=True)
    return ways


def images_per_s(epoch: Epoch, number: int, material: Material) -> float:
    """Speed of one epoch, of which every batch has to be what it should."""
    n_objects, side, _, n_bands = material.shape
    n = 0
    started = time.perf_counter()
    for images in epoch(number):
        n += len(images)
        if images.shape[1:] != (n_bands, side, side) or images.dtype != torch.float32:
            raise RuntimeError(f"a batch has shape {tuple(images.shape)} and {images.dtype}")
    seconds = time.perf_counter() - started
    # fastai drops a last batch that is not full
    if not n_objects - BATCH < n <= n_objects:
        raise RuntimeError(f"an epoch over {n_objects} images had {n}")
    return n / seconds


def measure_loading(material: Material, table: Table, repeats: int, names: Iterable[str] = WAYS) -> None:
    ways = open_ways(material, names)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        started = time.perf_counter()
        for name, epoch in ways.items():
            speed = images_per_s(epoch, number, material)
            if number:
                speeds[name].append(speed)
        print(f"  round {number} of {repeats}: {time.perf_counter() - started:.0f} s", flush=True)
    level, medians = material.level, {name: statistics.median(speed) for name, speed in speeds.items()}
    for name in (RESIDENT, STREAMED):
        for other in (one for one in ways if one not in (RESIDENT, STREAMED)):
            ratio, aim = medians[name] / medians[other], AIMS[level].get((name, other))
            table.add(
                f"{name}, {level} px", shown(speeds[name]), f"{other}: {shown(speeds[other])}", ratio,
                f">= {aim:g}" if aim else "", met=aim is None or ratio >= aim,
            )  # fmt: skip


def shown(speeds: Sequence[float]) -> str:
    """Median of some speeds, and the lowest and the highest."""
    return f"{statistics.median(speeds):,.0f} images/s ({min(speeds):,.0f}-{max(speeds):,.0f})"


# -------------------------------------------------------------------------------------------------------- waiting


def measure_waiting(cube: Cube, labels: npt.NDArray[np.float64], table: Table, repeats: int) -> None:
    level = WAITING_LEVEL
    rows = np.random.default_rng(6).permutation(cube.n_objects)
    n_validate = min(VALIDATION_IMAGES, rows.size // 4)
    validate, fit = np.sort(rows[:n_validate]), np.sort(rows[n_validate:])
    network = NetworkSection(arch="resnet10w32", level=level)
    sources: dict[str, Pixels] = {
        RESIDENT: place_pixels(cube.read_pixels(level, fit), CPU, fit),
        STREAMED: streamed(cube, level, fit),
    }
    for name, pixels in sources.items():
        trained = train_network(
            pixels=pixels, labels=labels[fit], validation_pixels=cube.read_pixels(level, validate),
            validation_labels=labels[validate], network=network,
            train=TrainSection(epochs=repeats + 1, batch_size=BATCH, device="cpu"),
        )  # fmt: skip
        counted = trained.log[1:]
        share = statistics.median(record.waiting_share for record in counted)
        speed = statistics.median(record.images_per_s for record in counted)
        table.add(
            f"waiting for images, {name}, of a step of {network.arch} at {level} px, {speed:,.0f} images/s",
            f"{share:.1%}", "", None, "<= 3 %", met=share <= 0.03,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ all

SECTIONS = ("128", "32", "waiting")


def sections(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = sorted(set(chosen) - set(SECTIONS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no such section: {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    return chosen


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8192, help="of an epoch")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of which medians are taken, after one more")
    parser.add_argument("--only", type=sections, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--cutouts", type=Path, help="folder of JPEGs of 128 px; by default blobs are drawn")
    return parser.parse_args()


def machine() -> str:
    packages = []
    for name in sorted({"icechunk", "zarr", *(package for _, package in WAYS.values())}):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {', '.join(packages)}"


def main() -> None:
    chosen = arguments()
    table = Table()
    torch.set_num_threads(os.cpu_count() or 1)
    # other libraries' own deprecations would hide the rows
    warnings.simplefilter("ignore")
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bodies = read_bodies(chosen.cutouts) if chosen.cutouts else draw_bodies()
        survey = make_survey(folder / "survey", chosen.images, bodies)
        cube = make_cube(str(folder / "cube"), survey)
        print(f"{chosen.images:,} images, {sum(map(len, bodies)) / len(bodies):,.0f} B delivered each", flush=True)
        for section in chosen.only:
            print(f"{section}:", flush=True)
            if section == "waiting":
                measure_waiting(cube, survey.objects["oh_p50"].to_numpy(), table, chosen.repeats)
            else:
                material = prepare(cube, survey, int(section), folder / section)
                measure_loading(material, table, chosen.repeats)
    table.show()
    raise SystemExit(1 if table.n_failed else 0)


if __name__ == "__main__":
    main()
