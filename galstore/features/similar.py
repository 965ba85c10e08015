"""Look-alikes: objects that a network sees as it sees a given one, by the angle between their embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.reader import Cube
from schemas.errors import FeatureError

EMBEDDING_PREFIX = "embeddings/"
"""A model's view of objects is called `embeddings/<model id>`."""

ROWS_AT_ONCE = 16_384
"""32 MB of 512 features: memory does not grow with the cube."""


def read_embeddings(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """How a model sees some objects, shape (n, feature); NaN where it has not scored them."""
    return np.asarray(_vectors(cube, model_id).oindex[rows, :], dtype=np.float32)


def embedding_table(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    """The same as a table: columns `embedding_0` to that of the last feature."""
    embeddings = read_embeddings(cube, model_id, rows)
    return pd.DataFrame(embeddings, columns=[f"embedding_{n}" for n in range(embeddings.shape[1])])


def embedding_views(cube: Cube) -> list[dict[str, Any]]:
    """The views of embeddings in a cube: one of each model that has scored."""
    return [
        {
            "ref": f"{EMBEDDING_PREFIX}{model_id}",
            "description": f"How model {model_id} sees an object: embedding_0, embedding_1 and so on",
            "columns": [{"name": "embedding", "dtype": str(vectors.dtype), "shape": [int(vectors.shape[1])]}],
            "n_computed": int(np.isfinite(cube.array(f"predictions/{model_id}/mean")[:]).sum()),
            "n_objects": cube.n_objects,
        }
        for model_id in cube.group_names("embeddings")
        for vectors in [_vectors(cube, model_id)]
    ]


def find_similar(
    cube: Cube, object_id: int, k: int, *, model_id: str | None = None, rows_at_once: int = ROWS_AT_ONCE
) -> pd.DataFrame:
    """The k objects that a model sees most like one object, most alike first.

    Parameters
    ----------
    cube
        The snapshot.
    object_id
        The one; it is not among its look-alikes.
    k
        How many.
    model_id
        Whose view counts; may be left out where only one model has scored.
    rows_at_once
        How many embeddings are held in memory at a time.

    Returns
    -------
    DataFrame
        object_id, ra, dec (deg), similarity (cosine of the angle between embeddings, 1 = alike).

    Raises
    ------
    FeatureError
        No such model, or it has not scored this object.
    CatalogError
        The object is not registered.
    """
    from sklearn.neighbors import NearestNeighbors

    if k < 1:
        raise FeatureError(f"k = {k} look-alikes were asked for: ask for one or more")
    model_id = model_id or _only_model(cube)
    (row,) = cube.rows_of(np.array([object_id], dtype=np.int64))
    wanted = read_embeddings(cube, model_id, np.array([row]))
    if np.isnan(wanted).any():
        raise FeatureError(f"model {model_id} has not scored object {object_id} of {cube.path}: run `galstore score`")
    vectors = _vectors(cube, model_id)
    best = pd.DataFrame({"row": np.empty(0, np.int64), "similarity": np.empty(0)})
    for start in range(0, cube.n_objects, rows_at_once):
        held = np.asarray(vectors[start : start + rows_at_once], dtype=np.float32)
        known = np.flatnonzero(~np.isnan(held).any(axis=1) & (start + np.arange(len(held)) != row))
        if known.size:
            nearest = NearestNeighbors(n_neighbors=min(k, known.size), metric="cosine", algorithm="brute")
            distance, found = nearest.fit(held[known]).kneighbors(wanted)
            here = pd.DataFrame({"row": start + known[found[0]], "similarity": 1 - distance[0].astype(np.float64)})
            best = pd.concat([best, here]).nlargest(k, "similarity", keep="first")
    rows = best["row"].to_numpy(dtype=np.int64)
    names = ("object_id", "ra", "dec")
    places = {name: np.asarray(cube.array(f"catalog/{name}").oindex[rows]) for name in names}
    return pd.DataFrame({**places, "similarity": best["similarity"].to_numpy()})


def _vectors(cube: Cube, model_id: str) -> Any:
    models = cube.group_names("embeddings")
    if model_id not in models:
        known = ", ".join(models) or "none yet: run `galstore score`"
        raise FeatureError(f"no embeddings of model {model_id!r} are in {cube.path}; there are those of {known}")
    return cube.array(f"embeddings/{model_id}/vector")


def _only_model(cube: Cube) -> str:
    models = cube.group_names("embeddings")
    if len(models) != 1:
        which = f"say which: {', '.join(models)}" if models else "run `galstore score` first"
        raise FeatureError(f"{len(models)} models have embeddings in {cube.path}: {which}")
    return models[0]
