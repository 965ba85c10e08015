"""Cost of storing a cutout: the pyramid, the codecs of the pixels, and two layouts of the delivered bytes.

Ratios within one run are comparable between machines; absolute figures are not.

    python benchmarks/storage.py FOLDER_OF_JPEGS [--repeat 8]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from galstore.cube.pyramid import build_pyramid
from galstore.survey.images import check_image
from schemas.cube import DELIVERED_BYTES, DELIVERED_CHUNK_ROWS, LEVELS


def seconds(action: Callable[[], object], repeat: int = 3) -> float:
    """Return the shortest time of several calls."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def pool_with_numpy(pixels: np.ndarray) -> list[np.ndarray]:
    n = len(pixels)
    return [pixels.reshape(n, side, 128 // side, side, 128 // side, 3).mean(axis=(2, 4)) for side in LEVELS[1:]]


def store(values: np.ndarray, codec: BloscCodec, chunk_rows: int) -> tuple[zarr.Array, zarr.storage.MemoryStore]:
    memory = zarr.storage.MemoryStore()
    array = zarr.create_array(
        memory, shape=values.shape, chunks=(chunk_rows, *values.shape[1:]), dtype=values.dtype, compressors=codec
    )
    array[:] = values
    return array, memory


def store_variable(bodies: list[bytes], chunk_rows: int) -> zarr.Array:
    values = np.empty(len(bodies), dtype=object)
    values[:] = bodies
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=values.shape, chunks=(chunk_rows,), dtype="variable_length_bytes"
    )
    array[:] = values
    return array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=8, help="copies of the folder, for a longer measurement")
    arguments = parser.parse_args()
    bodies = [file.read_bytes() for file in sorted(arguments.folder.glob("*.jpg"))] * arguments.repeat
    pixels = np.stack([checked.pixels for checked in map(check_image, bodies) if checked.pixels is not None])
    n = len(pixels)
    print(f"{n} cutouts, {sum(map(len, bodies)) / n:.0f} B delivered each\n")

    build_pyramid(pixels[:2])  # compile
    integer_s, numpy_s = seconds(lambda: build_pyramid(pixels)), seconds(lambda: pool_with_numpy(pixels), 1)
    print(f"pyramid: {n / integer_s:,.0f} galaxies/s in integer sums, {numpy_s / integer_s:.0f} x numpy's means")

    print("\ncodec of the 128 px level      B/galaxy   write/s    read/s")
    for name, level, shuffle in (("lz4", 5, "bitshuffle"), ("lz4", 5, "shuffle"), ("zstd", 3, "bitshuffle")):
        codec = BloscCodec(cname=name, clevel=level, shuffle=shuffle)
        array, _ = store(pixels, codec, 64)
        write, read = seconds(lambda c=codec: store(pixels, c, 64)), seconds(lambda a=array: a[:])
        label = f"blosc {name} {level} {shuffle}"
        print(f"{label:28s}{array.nbytes_stored() / n:10,.0f}{n / write:10,.0f}{n / read:10,.0f}")

    padded = np.zeros((n, DELIVERED_BYTES), dtype=np.uint8)
    for row, body in zip(padded, bodies, strict=True):
        row[: len(body)] = np.frombuffer(body, dtype=np.uint8)
    codec = BloscCodec(cname="zstd", clevel=1, shuffle="noshuffle")
    array, _ = store(padded, codec, DELIVERED_CHUNK_ROWS)
    write = seconds(lambda: store(padded, codec, DELIVERED_CHUNK_ROWS))
    print("\ndelivered bytes                B/galaxy   write/s")
    print(f"{'padded, blosc zstd 1':28s}{array.nbytes_stored() / n:10,.0f}{n / write:10,.0f}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr: variable-length bytes have no stable specification yet
        array = store_variable(bodies, DELIVERED_CHUNK_ROWS)
        write = seconds(lambda: store_variable(bodies, DELIVERED_CHUNK_ROWS))
    print(f"{'variable length, zstd':28s}{array.nbytes_stored() / n:10,.0f}{n / write:10,.0f}")


if __name__ == "__main__":
    main()
