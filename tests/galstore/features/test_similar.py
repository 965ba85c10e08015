from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from galstore.cube.layout import ensure_cube
from galstore.cube.predictions import write_predictions
from galstore.cube.reader import open_cube
from galstore.features.similar import ROWS_AT_ONCE, embedding_views, find_similar, read_embeddings
from galstore.features.store import open_store
from schemas.errors import CatalogError, FeatureError
from tests.galstore.conftest import SCALE, add_objects

N, N_FEATURES = 300, 32


@pytest.fixture
def scored_cube(cube_path: str) -> tuple[str, np.ndarray]:
    """Return a cube with 300 objects, 290 of them scored by a model, and the embeddings."""
    ensure_cube(cube_path, survey="simulated", scale=SCALE)
    ids = np.arange(1000, 1000 + N)
    add_objects(cube_path, pd.DataFrame({"object_id": ids, "ra": ids / 10, "dec": 1.0}), catalog="simulated")
    vectors = np.random.default_rng(0).normal(size=(N, N_FEATURES)).astype(np.float32)
    rows = np.arange(N - 10)
    values = dict.fromkeys(("mean", "view_spread"), np.full(rows.size, 8.9))
    write_predictions(cube_path, "m1", rows, values, attributes={"target": "oh_p50"}, embeddings=vectors[rows])
    return cube_path, vectors


def test_similar_objects_have_the_largest_cosine(scored_cube) -> None:
    path, vectors = scored_cube
    cube = open_cube(path)
    rounded = vectors[:290].astype(np.float16).astype(np.float64)
    assert np.array_equal(read_embeddings(cube, "m1", np.array([5, 3])), rounded[[5, 3]])
    unit = rounded / np.linalg.norm(rounded, axis=1, keepdims=True)
    cosine = unit @ unit[7]
    cosine[7] = -2
    expected = 1000 + np.argsort(-cosine)[:12]
    for rows_at_once in (ROWS_AT_ONCE, 50):
        found = find_similar(cube, 1007, 12, rows_at_once=rows_at_once)
        assert found["object_id"].tolist() == expected.tolist()
        np.testing.assert_allclose(found["similarity"], np.sort(cosine)[::-1][:12], atol=1e-6)
    assert len(find_similar(cube, 1007, 10_000)) == 289


def test_embeddings_are_a_view_of_their_model(scored_cube) -> None:
    path, vectors = scored_cube
    features = open_store(path).get_features([1007, 5, 1295, 1003], "embeddings/m1")
    assert features.columns.tolist() == ["object_id", "registered", *(f"embedding_{n}" for n in range(N_FEATURES))]
    assert features["registered"].tolist() == [True, False, True, True]
    values = features.drop(columns=["object_id", "registered"]).to_numpy()
    assert np.array_equal(values[[0, 3]], vectors[[7, 3]].astype(np.float16).astype(np.float32))
    assert np.isnan(values[[1, 2]]).all()
    (view,) = embedding_views(open_cube(path))
    assert (view["ref"], view["n_computed"], view["n_objects"]) == ("embeddings/m1", 290, N)
    with pytest.raises(FeatureError, match=r"(?=.*'m2')(?=.*\bm1\b)"):
        open_store(path).get_features([1007], "embeddings/m2")


def test_the_error_of_an_invalid_comparison_names_the_cause(scored_cube) -> None:
    cube = open_cube(scored_cube[0])
    with pytest.raises(FeatureError, match=r"(?=.*\bm1\b)(?=.*\b1295\b)"):
        find_similar(cube, 1295, 3)
    with pytest.raises(CatalogError, match=r"(?=.*registered)(?=.*\b5\b)"):
        find_similar(cube, 5, 3)
    with pytest.raises(FeatureError, match=r"(?=.*'m2')(?=.*\bm1\b)"):
        find_similar(cube, 1007, 3, model_id="m2")
    with pytest.raises(FeatureError, match=r"\bk = 0\b"):
        find_similar(cube, 1007, 0)
