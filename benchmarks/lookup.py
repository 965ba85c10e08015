"""Cost of finding objects by id and by position, among a million registered objects and among a tenth of them.

The cubes have catalogs, and images (noise) of one block of 1,024 objects only. Ids are in survey order (each page above
the last) or shuffled over all pages; positions are uniform over a strip of the sky of 160 by 20 degrees, with the same
surface density in both cubes. Lookups use one store that is opened once, like a service, and caches what it has read;
the cost of a newly opened store is measured separately. Every ratio comes from one run; absolute figures depend on the
machine.

    python benchmarks/lookup.py
    python benchmarks/lookup.py --objects 200000 --repeats 20
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr
from simulated import new_cube, prepared, simulated_objects
from tables import Table, machine, ms

from galstore.cube.arrays import require_array
from galstore.cube.commits import commit
from galstore.cube.reader import Cube, open_cube
from galstore.features.store import FeatureStore, open_store
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from schemas.cube import BLOCK_ROWS, LEVEL
from schemas.cutouts import Status
from schemas.features import feature_view

N_IDS = 1000
RADIUS_DEG = 1.0
VIEW = feature_view("photometry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """Cube with a catalog, and its objects in row order."""

    cube: Cube
    objects: pd.DataFrame

    @property
    def size_text(self) -> str:
        return f"{len(self.objects):,} objects"


def register_objects(path: str, n_objects: int, *, page_rows: int, shuffled: bool) -> Registered:
    """Register objects page by page, with values in all columns that lookups read."""
    rng = np.random.default_rng(1)
    new_cube(path)
    objects = simulated_objects(n_objects)
    # the same density in a small and a large cube: cones hold equally many objects
    objects["ra"] = rng.uniform(100, 100 + 160 * min(1.0, n_objects / 1e6), n_objects)
    objects = objects.assign(**{name: rng.normal(18, 1, n_objects) for name in VIEW.inputs})
    if shuffled:
        objects = objects.sample(frac=1, random_state=1, ignore_index=True)
    for first in range(0, n_objects, page_rows):
        register_page(path, CatalogUpdate(catalog="simulated"), prepared(objects[first : first + page_rows]))
    commit(path, store_images, message="images", metadata={"operation": "benchmark"})
    return Registered(cube=open_cube(path), objects=objects)


def store_images(session: icechunk.Session) -> None:
    """Store noise as the images of the block in the middle."""
    root = zarr.open_group(session.store, mode="a")
    status = require_array(root, "state/status")
    block = slice(*imaged_rows(status.shape[0]))
    pixels = np.random.default_rng(4).normal(60, 8, (BLOCK_ROWS, 128, 128, 3)).astype(np.uint8)
    require_array(root, LEVEL[128].path)[block] = pixels
    status[block] = np.full(BLOCK_ROWS, Status.STORED, dtype=np.uint8)


def imaged_rows(n_objects: int) -> tuple[int, int]:
    start = n_objects // 2 // BLOCK_ROWS * BLOCK_ROWS
    return start, start + BLOCK_ROWS


def times_of(query: Callable[[int], object], repeats: int) -> list[float]:
    """Return the seconds of each call, after a warm-up call."""
    seconds = []
    for n in range(repeats + 1):
        started = time.perf_counter()
        query(n)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def drawn_ids(registered: Registered, n: int, draws: int) -> list[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(2)
    ids = registered.objects["object_id"].to_numpy()
    return [rng.choice(ids, n, replace=False) for _ in range(draws)]


def lookups(registered: Registered, repeats: int) -> dict[str, list[float]]:
    """Return seconds by kind of lookup; results are compared with the registered rows."""
    cube, objects = registered.cube, registered.objects
    single, many = drawn_ids(registered, 1, repeats + 1), drawn_ids(registered, N_IDS, repeats + 1)
    rows = pd.Series(np.arange(len(objects)), index=objects["object_id"])
    if not np.array_equal(cube.rows_of(many[0]), rows[many[0]]):
        raise RuntimeError("a lookup found other rows than were registered")
    store = FeatureStore(cube)
    imaged = objects["object_id"].to_numpy()[slice(*imaged_rows(len(objects)))]
    imaged = np.random.default_rng(5).choice(imaged, repeats + 1, replace=False)
    positions = objects.sample(repeats + 1, random_state=3)[["ra", "dec"]].to_numpy()
    return {
        "row": times_of(lambda n: cube.rows_of(single[n]), repeats),
        "one": times_of(lambda n: store.get_features(single[n], VIEW.ref), repeats),
        "many": times_of(lambda n: store.get_features(many[n], VIEW.ref), repeats),
        "cutout": times_of(lambda n: store.cutout(int(imaged[n])), repeats),
        "cone": times_of(lambda n: store.cone(*positions[n], RADIUS_DEG), repeats),
    }


def first_lookup(registered: Registered, ids: npt.NDArray[np.int64]) -> float:
    """Return the seconds for opening a store and reading the features of some ids."""
    started = time.perf_counter()
    open_store(registered.cube.path).get_features(ids, VIEW.ref)
    return time.perf_counter() - started


def scans(registered: Registered, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of the same queries with pandas, which reads whole columns for each query."""
    cube = registered.cube
    single, many = drawn_ids(registered, 1, repeats + 1), drawn_ids(registered, N_IDS, repeats + 1)

    def find(ids: npt.NDArray[np.int64]) -> object:
        return np.flatnonzero(cube.read_catalog(["object_id"])["object_id"].isin(ids))

    def find_features(ids: npt.NDArray[np.int64]) -> object:
        table = cube.read_catalog(["object_id", *VIEW.inputs])
        return table[table["object_id"].isin(ids)]

    def find_in_cone(_: int) -> object:
        table = cube.read_catalog(["ra", "dec"])
        ra, dec = np.radians(table["ra"]), np.radians(table["dec"])
        cosine = np.sin(dec) * np.sin(0.1) + np.cos(dec) * np.cos(0.1) * np.cos(ra - 2.5)
        return np.flatnonzero(cosine >= np.cos(np.radians(RADIUS_DEG)))

    return {
        "row": times_of(lambda n: find(single[n]), repeats),
        "one": times_of(lambda n: find_features(single[n]), repeats),
        "many": times_of(lambda n: find_features(many[n]), repeats),
        "cone": times_of(find_in_cone, repeats),
    }


LIMITS: dict[str, tuple[str, float]] = {
    "row": ("row of one id", 0),
    "one": (f"features of one id: {len(VIEW.columns)} columns", 5),
    "many": (f"features of {N_IDS:,} random ids: {len(VIEW.columns)} columns", 300),
    "cutout": ("a cutout of 128 px by id", 10),
    "cone": (f"objects within {RADIUS_DEG:g} degree", 50),
}
"""By kind of lookup: title, and limit in ms (0 = no limit)."""
RATIO = 1.5


def compare(small: Registered, large: Registered, table: Table, repeats: int, order: str) -> None:
    for registered in (large, small):
        n_segments = {index: len(registered.cube._index(index).segments) for index in ("id", "sky")}  # noqa: SLF001
        table.add(f"segments, {registered.size_text}, ids {order}", f"id {n_segments['id']}, sky {n_segments['sky']}")
    for n_ids, title in ((1, "of one id"), (N_IDS, f"of {N_IDS:,} random ids")):
        opened = [first_lookup(large, ids) for ids in drawn_ids(large, n_ids, 10)]
        table.add(f"opening a store of {large.size_text} and its first features, {title}", ms(opened, 0))
    of_large, of_small = lookups(large, repeats), lookups(small, repeats)
    by_scan = scans(large, 5)
    for kind, (title, limit_ms) in LIMITS.items():
        median_ms, base = 1e3 * statistics.median(of_large[kind]), statistics.median(of_small[kind])
        table.add(
            f"{title}, {large.size_text}, ids {order}",
            ms(of_large[kind], 1),
            "",
            None,
            f"<= {limit_ms:g} ms" if limit_ms else "",
            met=not limit_ms or median_ms <= limit_ms,
        )
        ratio = median_ms / 1e3 / base
        table.add(
            "the same",
            ms(of_large[kind], 1),
            f"{small.size_text}: {ms(of_small[kind], 1)}",
            ratio,
            f"<= {RATIO}",
            met=ratio <= RATIO,
        )
        if kind in by_scan:
            scan_ms = 1e3 * statistics.median(by_scan[kind])
            table.add(
                "the same",
                ms(of_large[kind], 1),
                f"pandas over the whole column: {ms(by_scan[kind], 1)}",
                median_ms / scan_ms,
            )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--objects", type=int, default=1_000_000, help="objects of the larger cube; the other has a tenth"
    )
    parser.add_argument("--page-rows", type=int, default=50_000, help="objects registered at once")
    parser.add_argument("--repeats", type=int, default=200, help="lookups of each kind")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    table = Table()
    print(machine("icechunk", "zarr", "cdshealpix", "astropy"))
    with tempfile.TemporaryDirectory() as temporary:
        for order in ("ascending", "shuffled"):
            cubes = []
            for n_objects in (chosen.objects // 10, chosen.objects):
                started = time.perf_counter()
                path = str(Path(temporary) / f"{order}-{n_objects}")
                cubes.append(
                    register_objects(path, n_objects, page_rows=chosen.page_rows, shuffled=order != "ascending")
                )
                seconds = time.perf_counter() - started
                table.add(f"registering {cubes[-1].size_text}, ids {order}", f"{n_objects / seconds:,.0f} objects/s")
            compare(*cubes, table, chosen.repeats, order)
    table.show()
    raise SystemExit(1 if table.n_failed else 0)


if __name__ == "__main__":
    main()
