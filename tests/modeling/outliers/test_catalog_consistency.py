"""Agreement of images with the catalog: swapped objects and wrong scales, under a fixed and under a following scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from modeling.outliers.catalog_consistency import COMPARED, Agreement

N = 400


def made(*, following: bool, seed: int = 0, shown_at: float = 1.0) -> tuple[np.ndarray, pd.DataFrame]:
    """Statistics and catalog of galaxies that are shown at `shown_at` times the scale that they were asked for at."""
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
def test_images_of_another_object_or_at_another_scale_disagree_and_others_do_not(following) -> None:
    agreement, left_out = Agreement.learn(*made(following=following))
    assert left_out.shape == (N,)
    agreement = agreement.bordered(float(np.quantile(left_out, 0.99)))

    def beyond(statistics: np.ndarray, catalog: pd.DataFrame) -> float:
        return float(np.mean(agreement.distance(statistics, catalog) > 1))

    statistics, catalog = made(following=following, seed=1)
    assert beyond(statistics, catalog) <= 0.03
    assert beyond(np.roll(statistics, 1, axis=0), catalog) >= 0.9
    for factor in (0.5, 2):
        assert beyond(*made(following=following, seed=1, shown_at=factor)) >= 0.99


def test_what_is_not_known_is_not_judged() -> None:
    statistics, catalog = made(following=False)
    agreement, _ = Agreement.learn(statistics, catalog)
    catalog = catalog.copy()
    for row, name in enumerate(COMPARED):
        catalog.loc[row, name] = np.nan
    catalog.loc[len(COMPARED), "petroR90_r"] = -1.0
    unknown = np.isnan(agreement.distance(statistics, catalog))
    assert unknown[: len(COMPARED) + 1].all()
    assert not unknown[len(COMPARED) + 1 :].any()


def test_wild_values_of_the_catalog_do_not_spoil_what_is_learnt() -> None:
    statistics, catalog = made(following=False)
    spoilt = catalog.copy()
    spoilt.loc[:1, "modelMag_g"] = 30.0
    sound, _ = Agreement.learn(statistics, catalog)
    agreement, left_out = Agreement.learn(statistics, spoilt)
    assert (left_out[:2] > 3 * left_out[2:].max()).all()
    expected, found = (one.distance(statistics, catalog)[2:] for one in (sound, agreement))
    np.testing.assert_allclose(found, expected, rtol=0.5, atol=0.5)


def test_of_too_few_objects_nothing_is_learnt() -> None:
    statistics, catalog = made(following=False)
    catalog.loc[9:, "petroR90_r"] = np.nan
    assert Agreement.learn(statistics, catalog) is None
