"""Speed of training batches from a cube, resident and streamed, against the limit of one file and other loaders.

Each loader yields the same images, simulated as JPEGs of 128 px, in shuffled batches of 256: (n, band, y, x), float32,
normalised, and mirrored or rotated if the loader does that cheaply. Epochs over all images are timed in rounds of all
loaders, so that load on the machine affects all of them; the first round is a warm-up, after which files are in the
page cache. At 32 px, loaders of JPEGs decode 128 px and resize, as their users do; cube, memmap and HDF5 store that
level. torch has a thread for each core in the main process, and other loaders have two workers. *Waiting* is the share
of the training time on the CPU during which the network waits for images.

    python benchmarks/loader.py
    python benchmarks/loader.py --only 32,waiting --images 4096 --repeats 5

On a shared machine set OMP_WAIT_POLICY=PASSIVE. By default torch's threads wait for each other in a loop:
with both cores busy, the resident cube came out 8 times slower and the memmap 74 times. Streaming
needs 8,192 images or more for a fair figure: an epoch of one block reads it before the first batch.

Loaders that are not installed are skipped: fastai, webdataset, litdata and h5py are not dependencies of galstore.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ingest import fetched_block, register
from PIL import Image
from simulated import SimulatedSurvey, draw_bodies, make_survey, new_cube, read_bodies
from tables import Table, images_per_s, machine, section_parser
from torch.utils.data import DataLoader, Dataset

from galstore.cube.blocks import Block
from galstore.cube.reader import Cube, open_cube
from galstore.ingest.write import commit_blocks, write_block
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
"""Chunk size of the HDF5 file, equal to that of the cube at 128 px."""
N_SHARDS = 8
"""Number of tar files of WebDataset, which its workers share."""
WAITING_LEVEL = 64
VALIDATION_IMAGES = 512
CPU = torch.device("cpu")

RESIDENT, STREAMED, LIMIT = "galstore, resident", "galstore, streamed", "the memmap limit"

Epoch = Callable[[int], Iterable[torch.Tensor]]
"""Number of an epoch -> its batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Images at one level, as a cube and as a folder of JPEGs, and a folder for the copies of loaders."""

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
        """Return mean and standard deviation of each band in counts / 255."""
        mean, std = self.normalisation.mean_counts, self.normalisation.std_counts
        return {"mean": [counts / 255 for counts in mean], "std": [counts / 255 for counts in std]}


def make_cube(path: str, survey: SimulatedSurvey) -> Cube:
    register(new_cube(path), survey.objects)
    n_objects = len(survey.objects)
    blocks = [Block(start, min(start + BLOCK_ROWS, n_objects)) for start in range(0, n_objects, BLOCK_ROWS)]
    for block in blocks:
        commit_blocks(path, [write_block(path, fetched_block(survey, block, block.rows))])
    return open_cube(path)


def prepare(cube: Cube, survey: SimulatedSurvey, level: int, copies: Path) -> Material:
    copies.mkdir(parents=True)
    normalisation = measure_normalisation(place_pixels(cube.read_pixels(level, np.arange(cube.n_objects)), CPU))
    return Material(cube=cube, level=level, jpegs=survey.folder / "cutouts", copies=copies, normalisation=normalisation)


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
    """Yield the rows of each batch, in ascending order."""
    order = np.random.default_rng(number).permutation(n)
    for first in range(0, n, BATCH):
        yield np.sort(order[first : first + BATCH])


def memmap(material: Material) -> Epoch:
    """Read rows of one file, cast and normalise them in a buffer: the minimum work of a loader."""
    file = material.copies / "pixels"
    material.read_pixels().tofile(file)
    # copy-on-write: torch warns of read-only memory
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


def torchvision_steps(material: Material) -> Callable[[object], torch.Tensor]:
    """Return transforms from a PIL image or a uint8 tensor (band, y, x) to a normalised float32 tensor."""
    from torchvision.transforms import v2

    resize = [v2.Resize(material.level)] if material.level < 128 else []
    steps: Callable[[object], torch.Tensor] = v2.Compose(
        [
            v2.ToImage(),
            *resize,
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(**material.unit_scale()),
        ]
    )
    return steps


class JpegFolder(Dataset[torch.Tensor]):
    """JPEG files opened by PIL, as in torchvision's `ImageFolder`."""

    def __init__(self, files: Sequence[Path], steps: Callable[[object], torch.Tensor]) -> None:
        self._files = files
        self._steps = steps

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._files[index]) as image:
            return self._steps(image.convert("RGB"))


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
    # litdata stores the bytes of a JPEG that PIL has opened
    litdata.optimize(
        fn=Image.open,
        inputs=[str(file) for file in material.files()],
        output_dir=chunks,
        chunk_bytes="16MB",
        num_workers=1,
        start_method="fork",
        verbose=False,
    )
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
"""By name: function that opens the loader, and the package that it needs."""
FASTAI = "fastai, folder of JPEGs"

AIMS = {
    128: {(RESIDENT, FASTAI): 10.0, (RESIDENT, LIMIT): 0.4, (STREAMED, LIMIT): 0.4},
    32: {(RESIDENT, FASTAI): 30.0},
}
"""By level: required ratio of the first to the second."""


def open_ways(material: Material, names: Iterable[str]) -> dict[str, Epoch]:
    ways = {}
    for name in names:
        build, package = WAYS[name]
        try:
            ways[name] = build(material)
        except ModuleNotFoundError as error:
            print(f"  {name}: skipped, no module {error.name!r}; to measure it: pip install {package}", flush=True)
    return ways


def epoch_speed(epoch: Epoch, number: int, material: Material) -> float:
    """Return the images per second of one epoch, and check the shape of each batch."""
    n_objects, side, _, n_bands = material.shape
    n = 0
    started = time.perf_counter()
    for images in epoch(number):
        n += len(images)
        if images.shape[1:] != (n_bands, side, side) or images.dtype != torch.float32:
            raise RuntimeError(f"a batch has shape {tuple(images.shape)} and {images.dtype}")
    seconds = time.perf_counter() - started
    # fastai drops an incomplete last batch
    if not n_objects - BATCH < n <= n_objects:
        raise RuntimeError(f"an epoch over {n_objects} images had {n}")
    return n / seconds


def measure_loading(material: Material, table: Table, repeats: int, names: Iterable[str] = WAYS) -> None:
    ways = open_ways(material, names)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        started = time.perf_counter()
        for name, epoch in ways.items():
            speed = epoch_speed(epoch, number, material)
            if number:
                speeds[name].append(speed)
        print(f"  round {number} of {repeats}: {time.perf_counter() - started:.0f} s", flush=True)
    level, medians = material.level, {name: statistics.median(speed) for name, speed in speeds.items()}
    for name in (RESIDENT, STREAMED):
        for other in (way for way in ways if way not in (RESIDENT, STREAMED)):
            ratio, aim = medians[name] / medians[other], AIMS[level].get((name, other))
            table.add(
                f"{name}, {level} px",
                images_per_s(speeds[name]),
                f"{other}: {images_per_s(speeds[other])}",
                ratio,
                f">= {aim:g}" if aim else "",
                met=aim is None or ratio >= aim,
            )


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
            pixels=pixels,
            labels=labels[fit],
            validation_pixels=cube.read_pixels(level, validate),
            validation_labels=labels[validate],
            network=network,
            train=TrainSection(epochs=repeats + 1, batch_size=BATCH, device="cpu"),
        )
        counted = trained.log[1:]
        share = statistics.median(record.waiting_share for record in counted)
        speed = statistics.median(record.images_per_s for record in counted)
        table.add(
            f"waiting for images, {name}, of a step of {network.arch} at {level} px, {speed:,.0f} images/s",
            f"{share:.1%}",
            "",
            None,
            "<= 3 %",
            met=share <= 0.03,
        )


SECTIONS = ("128", "32", "waiting")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8192, help="images of an epoch")
    parser.add_argument("--repeats", type=int, default=5, help="number of epochs, for medians, after a warm-up")
    parser.add_argument(
        "--only", type=section_parser(SECTIONS), default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}"
    )
    parser.add_argument("--cutouts", type=Path, help="folder of JPEGs of 128 px; by default blobs are drawn")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    table = Table()
    torch.set_num_threads(os.cpu_count() or 1)
    # deprecation warnings of other libraries would hide the rows
    warnings.simplefilter("ignore")
    print(machine(*sorted({"icechunk", "zarr", *(package for _, package in WAYS.values())})))
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
