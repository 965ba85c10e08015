"""Cubes for tests of scoring, with images at one level and without a survey."""

from __future__ import annotations

from pathlib import Path

import icechunk
import numpy as np
import pandas as pd
import zarr

from galstore.cube.arrays import require_array
from galstore.cube.commits import commit
from galstore.cube.layout import ensure_cube
from schemas.cutouts import CutoutScale, ScaleRule, Status
from tests.conftest import draw_blobs
from tests.galstore.conftest import add_objects
from tests.support.random_models import save_random_model

LEVEL = 16
N_DRAWN = 256
FIRST_ID = 10_000


def stored_cube(path: str, n_objects: int) -> str:
    """Create a cube of labelled objects with different images of 16 px; every 50th object is quarantined."""
    ensure_cube(path, survey="simulated", scale=CutoutScale(rule=ScaleRule.FIXED))
    places = {"ra": np.linspace(100, 260, n_objects).round(6), "dec": np.linspace(-5, 60, n_objects).round(6)}
    ids = FIRST_ID + np.arange(n_objects, dtype=np.int64)
    labels = np.random.default_rng(0).normal(8.9, 0.2, n_objects).clip(8, 9.4).round(4)
    add_objects(path, pd.DataFrame({"object_id": ids, **places, "oh_p50": labels}), catalog="simulated")
    drawn = draw_blobs(N_DRAWN).reshape(N_DRAWN, LEVEL, 128 // LEVEL, LEVEL, 128 // LEVEL, 3).mean(axis=(2, 4))
    brightness = np.random.default_rng(1).uniform(0.3, 1, n_objects)

    def put_images(session: icechunk.Session) -> None:
        root = zarr.open_group(session.store, mode="a")
        pixels = require_array(root, f"images/{LEVEL}/pixels")
        images = drawn[np.arange(n_objects) % N_DRAWN] * brightness[:, None, None, None]
        pixels[:] = (images * 256).round().astype(pixels.dtype)
        require_array(root, "state/status")[:] = np.where(np.arange(n_objects) % 50, Status.STORED, Status.QUARANTINED)

    commit(path, put_images, message="put images", metadata={"operation": "put"})
    return path


def write_recipe(folder: Path, *, model: str, n_objects: int) -> Path:
    """Write a recipe that scores every object of `folder/cube` with a model of `folder/models`."""
    objects = FIRST_ID + np.arange(n_objects)
    places = {"ra": np.linspace(100, 260, n_objects).round(6), "dec": np.linspace(-5, 60, n_objects).round(6)}
    pd.DataFrame({"object_id": objects, **places}).to_csv(folder / "all.csv", index=False)
    recipe = folder / "scoring.toml"
    recipe.write_text(
        f"""
name = "scoring"
store.path = "{folder / "cube"}"
output.folder = "{folder}"
survey.name = "simulated"
survey.base_url = "http://127.0.0.1:9"
network = {{ arch = "resnet10w32", level = {LEVEL} }}
dask.blocks_per_commit = 1
score.catalog = "{folder / "all.csv"}"
score.model = "{model}"
""",
        encoding="utf-8",
    )
    return recipe


def save_model(folder: Path, model_id: str, *, seed: int = 0) -> Path:
    """Save a model with random weights in the folder of the recipe."""
    return save_random_model(folder / "models", model_id, seed=seed)
