"""Splits and hashes depend on what the objects are, on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.runtime import dask_client
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from galstore.executor import DaskExecutor
from galstore.features.splits import NO_SPLIT, assign_split, drop_neighbours, smallest_duplicates
from galstore.features.training_set import draw_training_set
from galstore.ingest.fill import fill_cube, plan_block_tasks
from galstore.survey.skyserver import SkyServer
from schemas.features import Split
from schemas.recipes import DaskSection, SplitSection
from tests.conftest import ROOT
from tests.galstore.conftest import SCALE, add_objects, source_of

PLACES = st.lists(
    st.tuples(st.floats(0, 360, exclude_max=True), st.floats(-90, 90)), min_size=1, max_size=60, unique=True
)


@given(PLACES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_neighbours_keep_their_distance_in_any_order(places, seed: int, random) -> None:
    ra, dec = np.array(places).T
    ids = np.random.default_rng(seed).choice(10**6, ra.size, replace=False)
    order = np.array(random.sample(range(ra.size), ra.size))
    split = assign_split(ids, train=0.5, validation=0.25, seed=seed)
    kept = drop_neighbours(split, ra, dec, separation_deg=10.0)
    again = drop_neighbours(split[order], ra[order], dec[order], separation_deg=10.0)
    assert np.array_equal(kept[order], again)
    cosine = _cosines(ra, dec)
    parts = (kept[:, None] != kept[None, :]) & (kept[:, None] != NO_SPLIT) & (kept[None, :] != NO_SPLIT)
    assert not (parts & (cosine > np.cos(np.deg2rad(10.0)))).any()
    # nobody is left out without such a neighbour, and a test object never
    near = (cosine >= np.cos(np.deg2rad(10.0)) - 1e-9) & (split[None, :] > split[:, None])
    assert near[kept == NO_SPLIT].any(axis=1).all()
    assert not (split[kept == NO_SPLIT] == Split.TEST).any()


@given(PLACES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_one_galaxy_under_several_ids_is_in_one_part(places, seed: int, random) -> None:
    # each place twice, a little apart
    ra, dec = np.repeat(np.array(places).T, 2, axis=1)
    dec[::2] = np.clip(dec[::2] + 1e-4, -90, 90)
    ids = np.random.default_rng(seed).choice(10**6, ra.size, replace=False)
    lead = smallest_duplicates(ids, ra, dec, separation_arcsec=2)
    assert np.array_equal(lead[::2], lead[1::2])
    order = np.array(random.sample(range(ra.size), ra.size))
    assert np.array_equal(smallest_duplicates(ids[order], ra[order], dec[order], separation_arcsec=2), lead[order])


def _cosines(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    ra, dec = np.deg2rad(ra), np.deg2rad(dec)
    xyz = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    return xyz.T @ xyz


PROGRAM = """
import sys
from galstore.cube.reader import open_cube
from galstore.features.training_set import draw_training_set
print(draw_training_set(open_cube(sys.argv[1]), ["metallicity"], features=["structure", "image_32"]).content_hash)
"""


@pytest.mark.slow
def test_the_hash_is_the_same_from_any_order_pages_workers_and_hash_seed(
    tmp_path: Path, cutout_folder: Path, folder_service: SkyServer
) -> None:
    catalog = pd.read_csv(cutout_folder / "catalog.csv").rename(columns={"objID": "object_id"})
    rng = np.random.default_rng(3)
    catalog = catalog.assign(petroR50_r=rng.uniform(1, 4, len(catalog)), petroR90_r=rng.uniform(3, 9, len(catalog)))
    hashes, splits = set(), []
    for number, (page_rows, workers) in enumerate([(1100, 1), (170, 2)]):
        path = str(tmp_path / f"cube-{number}")
        ensure_cube(path, survey="simulated", scale=SCALE)
        shuffled = catalog.sample(frac=1, random_state=number)
        for start in range(0, len(shuffled), page_rows):
            add_objects(path, shuffled.iloc[start : start + page_rows], catalog="simulated")
        with dask_client(DaskSection(workers=workers), n_tasks=2) as client:
            fill_cube(path, plan_block_tasks(open_cube(path)), source_of(folder_service), DaskExecutor(client))
        for split in (SplitSection(), SplitSection(by="sky")):
            drawn = draw_training_set(open_cube(path), ["metallicity"], features=["structure", "image_32"], split=split)
            splits.append((split.by, drawn.content_hash, dict(zip(drawn.object_ids, drawn.split, strict=True))))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, path], check=True, capture_output=True, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": str(number + 1)},
        )  # fmt: skip
        hashes.add(done.stdout.strip())
    assert splits[:2] == splits[2:]
    assert hashes == {splits[0][1]}
