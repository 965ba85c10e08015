"""Embeddings of a network, and the objects most similar to an object by the angle between embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.arrays import AnyArray
from galstore.cube.reader import Cube
from schemas.errors import FeatureError

EMBEDDING_PREFIX = "embeddings/"

ROWS_AT_ONCE = 16_384
"""Embeddings held in memory: 32 MB of 512 features."""


def read_embeddings(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return embeddings at `rows`, shape (n, feature); NaN for objects that the model has not scored."""
    return np.asarray(_embedding_array(cube, model_id).oindex[rows, :], dtype=np.float32)


def embedding_table(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return embeddings at `rows` as columns `embedding_0`, `embedding_1`, ..."""
    embeddings = read_embeddings(cube, model_id, rows)
    return pd.DataFrame(embeddings, columns=[f"embedding_{n}" for n in range(embeddings.shape[1])])


def embedding_views(cube: Cube) -> list[dict[str, object]]:
    """Return the description of each model's view of embeddings, as JSON values."""
    vectors = {model_id: _embedding_array(cube, model_id) for model_id in cube.group_names("embeddings")}
    return [
        {
            "ref": f"{EMBEDDING_PREFIX}{model_id}",
            "description": f"Embeddings of model {model_id}: columns embedding_0, embedding_1, ...",
            "columns": [{"name": "embedding", "dtype": str(array.dtype), "shape": [int(array.shape[1])]}],
            "n_computed": int(np.isfinite(cube.array(f"predictions/{model_id}/mean")[:]).sum()),
            "n_objects": cube.n_objects,
        }
        for model_id, array in vectors.items()
    ]


def find_similar(
    cube: Cube, object_id: int, k: int, *, model_id: str | None = None, rows_at_once: int = ROWS_AT_ONCE
) -> pd.DataFrame:
    """Find the k objects most similar to an object, most similar first.

    Parameters
    ----------
    object_id
        Reference object; the result does not contain it.
    model_id
        Model of the embeddings; optional if only one model has scored.
    rows_at_once
        Number of embeddings in memory at a time.

    Returns
    -------
    DataFrame
        object_id, ra, dec (deg), similarity (cosine of the angle between embeddings, 1 = equal direction).

    Raises
    ------
    FeatureError
        The model is unknown, or has not scored the object.
    CatalogError
        The object is not registered.
    """
    from sklearn.neighbors import NearestNeighbors

    if k < 1:
        raise FeatureError(f"k = {k} similar objects were requested: request at least one")
    if not model_id:
        models = cube.group_names("embeddings")
        if len(models) != 1:
            raise FeatureError(f"{len(models)} models have embeddings in {cube.path}: {_choice(models)}")
        (model_id,) = models
    (row,) = cube.rows_of(np.array([object_id], dtype=np.int64))
    reference = read_embeddings(cube, model_id, np.array([row]))
    if np.isnan(reference).any():
        raise FeatureError(f"model {model_id} has not scored object {object_id} of {cube.path}: run `galstore score`")
    vectors = _embedding_array(cube, model_id)
    best = pd.DataFrame({"row": np.empty(0, np.int64), "similarity": np.empty(0)})
    for start in range(0, cube.n_objects, rows_at_once):
        block = np.asarray(vectors[start : start + rows_at_once], dtype=np.float32)
        known = np.flatnonzero(~np.isnan(block).any(axis=1) & (start + np.arange(len(block)) != row))
        if known.size:
            nearest = NearestNeighbors(n_neighbors=min(k, known.size), metric="cosine", algorithm="brute")
            distance, found = nearest.fit(block[known]).kneighbors(reference)
            here = pd.DataFrame({"row": start + known[found[0]], "similarity": 1 - distance[0].astype(np.float64)})
            best = pd.concat([best, here]).nlargest(k, "similarity", keep="first")
    rows = best["row"].to_numpy(dtype=np.int64)
    names = ("object_id", "ra", "dec")
    positions = {name: np.asarray(cube.array(f"catalog/{name}").oindex[rows]) for name in names}
    return pd.DataFrame({**positions, "similarity": best["similarity"].to_numpy()})


def _choice(models: Sequence[str]) -> str:
    return f"choose one of {', '.join(models)}" if models else "run `galstore score` first"


def _embedding_array(cube: Cube, model_id: str) -> AnyArray:
    models = cube.group_names("embeddings")
    if model_id not in models:
        raise FeatureError(f"{cube.path} has no embeddings of model {model_id!r}: {_choice(models)}")
    return cube.array(f"embeddings/{model_id}/vector")
