"""The mass-metallicity and the fundamental relation, on simulated galaxies whose relations are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from modeling.evaluation.binned_relation import BinnedRelation, SparseRelationError, least_squares_slope
from modeling.evaluation.bootstrap import ValueWithError
from modeling.evaluation.column_checks import check_columns
from modeling.evaluation.fundamental_relation import measure_fundamental_relation
from modeling.evaluation.mass_metallicity import (
    measure_flattening,
    measure_mass_slopes,
    measure_mzr_scatter,
    tremonti_metallicity,
)


def simulate(n: int = 6000, *, seed: int = 0, sfr_slope: float = 0.0, scatter: float = 0.1) -> dict[str, np.ndarray]:
    """Simulate galaxies on Tremonti's relation, offset by `sfr_slope` for each dex of star formation above normal."""
    rng = np.random.default_rng(seed)
    mass = rng.uniform(8.8, 11.2, n)
    excess = rng.normal(0, 0.3, n)
    return {
        "log_mass": mass,
        "log_sfr": 0.7 * (mass - 10) + excess,
        "true": tremonti_metallicity(mass) + sfr_slope * excess + rng.normal(0, scatter, n),
    }


def agrees(found: ValueWithError, planted: float, *, sigmas: float = 4) -> bool:
    return found.error > 0 and abs(found.value - planted) < sigmas * found.error


@pytest.mark.parametrize(
    ("log_mass", "metallicity"),
    # -1.492 + 16.623 - 6.50106; -1.492 + 18.47 - 8.026; -1.492 + 20.317 - 9.71146
    [(9.0, 8.62994), (10.0, 8.952), (11.0, 9.11354)],
)
def test_tremonti_has_the_values_of_hand_arithmetic(log_mass: float, metallicity: float) -> None:
    assert tremonti_metallicity(log_mass) == pytest.approx(metallicity, abs=1e-9)


def test_tremonti_is_nan_outside_its_masses() -> None:
    outside = tremonti_metallicity([8.4999, 8.5, 11.5, 12, np.nan])
    assert np.isnan(outside).all()
    assert np.isfinite(tremonti_metallicity([8.5001, 11.4999])).all()


def test_bins_are_those_of_pandas() -> None:
    galaxies = simulate()
    relation = BinnedRelation.of(galaxies["log_mass"], galaxies["true"])
    edges = np.linspace(8.8, 11.2, 13)
    table = pd.DataFrame(galaxies)
    groups = table.groupby(pd.cut(table["log_mass"], edges, right=False), observed=True)["true"]
    np.testing.assert_allclose(relation.centre, edges[:-1] + 0.1)
    np.testing.assert_array_equal(relation.n, groups.size())
    for got, quantile in ((relation.median, 0.5), (relation.p16, 0.16), (relation.p84, 0.84)):
        np.testing.assert_allclose(got, groups.quantile(quantile))


def test_an_edge_belongs_to_the_bin_above_and_thin_bins_are_absent() -> None:
    relation = BinnedRelation.of([9.4] * 5 + [9.6] * 4, [1.0] * 5 + [2.0] * 4)
    assert relation.centre.tolist() == pytest.approx([9.5])
    assert relation.n.tolist() == [5]


def test_the_running_median_is_straight_between_bins_and_ends_at_their_edges() -> None:
    x = np.repeat([9.1, 9.3], 5)
    relation = BinnedRelation.of(x, np.repeat([1.0, 2.0], 5))
    np.testing.assert_allclose(relation.at([9.0, 9.1, 9.2, 9.3, 9.4]), [0.5, 1, 1.5, 2, 2.5])
    assert np.isnan(relation.at([8.99, 9.41, np.nan])).all()
    np.testing.assert_allclose(relation.residuals([9.2], [1.7]), [0.2])


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.3])
def test_a_planted_ratio_of_scatters_is_recovered(ratio: float) -> None:
    galaxies = simulate(8000, seed=1)
    noise = np.random.default_rng(2).normal(0, 0.1 * ratio, 8000)
    predicted = tremonti_metallicity(galaxies["log_mass"]) + noise
    scatter = measure_mzr_scatter(galaxies["log_mass"], galaxies["true"], predicted)
    assert agrees(scatter.ratio, ratio)
    assert agrees(scatter.true, 0.1)
    assert agrees(scatter.predicted, 0.1 * ratio)
    # the MAD of a normal sample has a relative error of 1.17 / sqrt(n)
    assert scatter.ratio.error == pytest.approx(ratio * 1.17 * np.sqrt(2 / 8000), rel=0.3)
    assert scatter.n == 8000
    assert np.median(scatter.ratio_by_bin) == pytest.approx(ratio, rel=0.1)
    assert scatter.ratio_by_bin.shape == scatter.centre.shape == (12,)


def test_the_slope_within_a_bin_is_no_scatter() -> None:
    mass = np.linspace(9.0, 10.999, 2000)
    scatter = measure_mzr_scatter(mass, 0.5 * mass, 0.25 * mass)
    assert scatter.true.value < 1e-6


def test_the_same_seed_gives_the_same_error() -> None:
    galaxies = simulate(500)
    columns = (galaxies["log_mass"], galaxies["true"], galaxies["true"] ** 1.01)
    assert measure_mzr_scatter(*columns, seed=3).ratio == measure_mzr_scatter(*columns, seed=3).ratio
    assert measure_mzr_scatter(*columns, seed=3).ratio.error != measure_mzr_scatter(*columns, seed=4).ratio.error


def test_a_planted_flattening_is_recovered() -> None:
    true = simulate()["true"]
    predicted = 8.9 + 0.8 * (true - 8.9) + np.random.default_rng(5).normal(0, 0.05, true.size)
    slope = measure_flattening(true, predicted)
    assert agrees(slope, 0.8)
    assert not agrees(slope, 1)


def test_slopes_at_low_and_high_mass_are_recovered() -> None:
    rng = np.random.default_rng(6)
    mass = rng.uniform(9, 11, 4000)
    true = 8.8 + np.where(mass < 10, 0.4, 0.1) * (mass - 10) + rng.normal(0, 0.05, 4000)
    predicted = 8.8 + np.where(mass < 10, 0.3, 0.1) * (mass - 10) + rng.normal(0, 0.05, 4000)
    slopes = measure_mass_slopes(mass, true, predicted)
    assert agrees(slopes["low"].true, 0.4)
    assert agrees(slopes["low"].predicted, 0.3)
    assert agrees(slopes["low"].change, -0.1)
    assert agrees(slopes["high"].change, 0.0)
    assert slopes["low"].n + slopes["high"].n == 4000
    assert set(measure_mass_slopes(mass[mass < 10], true[mass < 10], predicted[mass < 10])) == {"low"}


def test_a_planted_fundamental_relation_is_recovered() -> None:
    galaxies = simulate(sfr_slope=-0.15, seed=7)
    noise = np.random.default_rng(8).normal(0, 0.1, 6000)
    # predictions that know mass alone
    relation = measure_fundamental_relation(
        galaxies["log_mass"], galaxies["log_sfr"], galaxies["true"], tremonti_metallicity(galaxies["log_mass"]) + noise
    )
    assert agrees(relation.true.slope, -0.15)
    # of two normal deviates: 6 / pi asin(r / 2), r = -0.045 / hypot(0.045, 0.1)
    assert agrees(relation.true.spearman, 6 / np.pi * np.arcsin(-0.045 / np.hypot(0.045, 0.1) / 2))
    assert agrees(relation.predicted.slope, 0)
    assert agrees(relation.predicted.spearman, 0)


def test_without_a_fundamental_relation_there_is_none() -> None:
    galaxies = simulate(seed=9)
    relation = measure_fundamental_relation(*(galaxies[name] for name in ("log_mass", "log_sfr", "true", "true")))
    for trend in (relation.true, relation.predicted):
        assert agrees(trend.slope, 0)
        assert agrees(trend.spearman, 0)


def test_too_few_galaxies_are_an_error_that_counts_them() -> None:
    with pytest.raises(SparseRelationError, match=r"(?=.*\b3 galaxies)(?=.*\b0\.2 dex)(?=.*\b5\b)"):
        BinnedRelation.of([9, 10, 11], [8, 8, 8])
    with pytest.raises(SparseRelationError, match="0 galaxies"):
        BinnedRelation.of([], [])
    few = np.full(10, 9.5)
    with pytest.raises(SparseRelationError, match=r"(?=.*\b10 galaxies)(?=.*\b20\b)"):
        measure_fundamental_relation(few, few, few, few)


def test_a_slope_is_that_of_polyfit() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50))
    assert least_squares_slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0])
    assert np.isnan(least_squares_slope([1, 1], [0, 1]))
    assert np.isnan(least_squares_slope([], []))


def test_unpaired_or_unknown_values_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"(?=.*\b1 of 2\b)(?=.*'true')"):
        measure_flattening([8.0, np.nan], [8.0, 8.0])
    with pytest.raises(ValueError, match=r"(?=.*\(1,\))(?=.*\(2,\))"):
        check_columns(a=[1.0], b=[1.0, 2.0])
