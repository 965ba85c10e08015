"""Consistency of images with the catalog: swapped objects and wrong scales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from modeling.outliers.catalog_consistency import COMPARED_COLUMNS, CatalogConsistency

N = 400


def simulate(*, following: bool, seed: int = 0, shown_at: float = 1.0) -> tuple[np.ndarray, pd.DataFrame]:
    """Simulate statistics and catalog of galaxies that are shown at `shown_at` times the requested scale."""
    rng = np.random.default_rng(seed)
    r, g_r, size = rng.normal(17, 0.6, N), rng.normal(0.6, 0.1, N), rng.uniform(3, 12, N)
    scale = 2 * size / 128 / 0.396 if following else np.full(N, 0.4)
    noise = 0.03 * rng.standard_normal((3, N))
    # counts are surface brightnesses: the light of a frame has fewer of them at a wider scale
    light = -0.4 * r * np.log(10) - 2 * np.log(scale * shown_at)
    statistics = np.stack([light, g_r, np.log(size / (scale * shown_at))], axis=1) + noise.T
    catalog = {"modelMag_g": r + g_r, "modelMag_r": r, "modelMag_i": r - 0.3 + 0.01 * noise[0], "petroR90_r": size}
    return statistics, pd.DataFrame({**catalog, "pixel_scale": scale})


@pytest.mark.parametrize("following", [False, True])
def test_images_of_another_object_or_at_another_scale_are_inconsistent(following) -> None:
    consistency, left_out = CatalogConsistency.fit(*simulate(following=following))
    assert left_out.shape == (N,)
    residuals = replace(consistency.residuals, threshold=float(np.quantile(left_out, 0.99)))
    consistency = replace(consistency, residuals=residuals)

    def beyond(statistics: np.ndarray, catalog: pd.DataFrame) -> float:
        return float(np.mean(consistency.score(statistics, catalog) > 1))

    statistics, catalog = simulate(following=following, seed=1)
    assert beyond(statistics, catalog) <= 0.03
    assert beyond(np.roll(statistics, 1, axis=0), catalog) >= 0.9
    for factor in (0.5, 2):
        assert beyond(*simulate(following=following, seed=1, shown_at=factor)) >= 0.99


def test_unknown_values_have_no_score() -> None:
    statistics, catalog = simulate(following=False)
    consistency, _ = CatalogConsistency.fit(statistics, catalog)
    catalog = catalog.copy()
    for row, name in enumerate(COMPARED_COLUMNS):
        catalog.loc[row, name] = np.nan
    catalog.loc[len(COMPARED_COLUMNS), "petroR90_r"] = -1.0
    unknown = np.isnan(consistency.score(statistics, catalog))
    assert unknown[: len(COMPARED_COLUMNS) + 1].all()
    assert not unknown[len(COMPARED_COLUMNS) + 1 :].any()


def test_extreme_catalog_values_do_not_change_the_fit() -> None:
    statistics, catalog = simulate(following=False)
    extreme = catalog.copy()
    extreme.loc[:1, "modelMag_g"] = 30.0
    clean, _ = CatalogConsistency.fit(statistics, catalog)
    consistency, left_out = CatalogConsistency.fit(statistics, extreme)
    assert (left_out[:2] > 3 * left_out[2:].max()).all()
    expected, found = (fitted.score(statistics, catalog)[2:] for fitted in (clean, consistency))
    np.testing.assert_allclose(found, expected, rtol=0.5, atol=0.5)


def test_too_few_objects_are_not_fitted() -> None:
    statistics, catalog = simulate(following=False)
    catalog.loc[9:, "petroR90_r"] = np.nan
    assert CatalogConsistency.fit(statistics, catalog) is None
