"""Distributions, drift, profiles of pages, sharpness and the summary of runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import ks_2samp

from galstore.cube.history import summarise_runs
from galstore.profile.catalog import SKY_ORDER, Profile, SkyCounts, profile_catalog
from galstore.profile.distribution import Distribution
from galstore.profile.drift import DriftVerdict, measure_drift, rank_drift
from galstore.profile.images import measure_images, measure_sharpness, sample_rows
from schemas.cutouts import Status
from tests.conftest import draw_blobs

ANY_VALUES = st.lists(
    st.floats(-1e12, 1e12, allow_nan=False) | st.sampled_from([0.0, math.nan, math.inf, 1e-300]), max_size=60
)


def same(first: Distribution, second: Distribution) -> bool:
    return (
        np.array_equal(first.keys, second.keys)
        and np.array_equal(first.counts, second.counts)
        and (first.n_null, first.low, first.high) == (second.n_null, second.low, second.high)
    )


@given(ANY_VALUES, st.integers(1, 7), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_pages_in_any_order_add_up_to_the_whole(values, n_pages: int, random) -> None:
    shuffled = random.sample(values, len(values))
    pages = [Distribution.of(page) for page in np.array_split(np.array(shuffled, dtype=np.float64), n_pages)]
    total = Distribution()
    for page in random.sample(pages, n_pages):
        total = total + page
    assert same(total, Distribution.of(values))
    assert total.n + total.n_null == len(values)


@given(st.lists(st.floats(-1e9, 1e9, allow_nan=False), min_size=1, max_size=60), st.floats(0, 1))
@settings(deadline=None)
def test_a_quantile_is_that_of_numpy_to_a_thousandth(values, share: float) -> None:
    found = Distribution.of(values).quantile(share)
    # the bins do not tell which of two neighbours in order is meant
    around = np.quantile(values, share, method="lower"), np.quantile(values, share, method="higher")
    margin = 1e-3 * max(map(abs, around)) + 1e-8
    rank = max(0, math.ceil(share * len(values)) - 1)
    assert abs(found - np.sort(values)[rank]) <= margin or around[0] - margin <= found <= around[1] + margin


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=80), st.integers(2, 9))
@settings(deadline=None)
def test_a_histogram_over_all_values_counts_each_once(values, n_edges: int) -> None:
    spread = Distribution.of(values)
    edges = np.linspace(min(values) - 1, max(values) + 1, n_edges)
    counts = spread.histogram(edges)
    assert counts.sum() == pytest.approx(len(values))
    assert (counts >= -1e-9).all()


def test_a_histogram_is_numpys_where_bins_are_wide() -> None:
    values = np.random.default_rng(0).normal(8.9, 0.2, 20_000)
    edges = np.linspace(8, 9.8, 19)
    expected, _ = np.histogram(values, edges)
    assert np.abs(Distribution.of(values).histogram(edges) - expected).max() < 60


@given(st.lists(st.floats(-50, 50), min_size=20, max_size=200), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_sample_has_not_drifted_from_itself_in_another_order(values, random) -> None:
    drift = measure_drift("x", Distribution.of(values), Distribution.of(random.sample(values, len(values))))
    assert drift.psi == drift.ks == 0
    assert drift.verdict is DriftVerdict.NONE


def test_samples_of_one_population_are_hardly_ever_called_drifted() -> None:
    rng = np.random.default_rng(1)
    verdicts = [
        measure_drift("x", Distribution.of(rng.normal(size=2000)), Distribution.of(rng.normal(size=n))).verdict
        for n in (40, 100, 600)
        for _ in range(100)
    ]
    assert sum(verdict is not DriftVerdict.NONE for verdict in verdicts) <= 9


def test_a_shifted_sample_is_found_and_its_ks_distance_is_scipys() -> None:
    rng = np.random.default_rng(2)
    old, new = rng.normal(17, 0.7, 4000), rng.normal(17.7, 0.7, 600)
    drift = measure_drift("petroMag_r", Distribution.of(old), Distribution.of(new))
    assert drift.verdict is DriftVerdict.LARGE
    assert drift.ks == pytest.approx(ks_2samp(old, new).statistic, abs=0.01)
    # shares of tenths by hand
    tenths = np.quantile(old, np.linspace(0, 1, 11))
    p = np.histogram(old, tenths)[0] / old.size
    q = np.histogram(np.clip(new, old.min(), old.max()), tenths)[0] / new.size
    assert drift.psi == pytest.approx(float(np.sum((q - p) * np.log(q / p))), rel=0.05)


def test_columns_are_ranked_with_changed_nulls_first_and_empty_ones_last() -> None:
    rng = np.random.default_rng(3)
    old = {name: Distribution.of(rng.normal(size=1000)) for name in ("same", "moved", "nulls")}
    now = {
        "same": Distribution.of(rng.normal(size=1000)),
        "moved": Distribution.of(rng.normal(size=1000) + 2),
        "nulls": Distribution.of(np.where(np.arange(1000) < 300, np.nan, rng.normal(size=1000))),
    }
    empty = Distribution.of([np.nan] * 5)
    ranked = rank_drift({"never": empty, "gone": old["same"], **old}, {**now, "never": empty, "gone": empty})
    assert [drift.column for drift in ranked] == ["nulls", "moved", "same", "gone", "never"]
    assert [drift.verdict for drift in ranked] == [
        DriftVerdict.NULLS,
        DriftVerdict.LARGE,
        DriftVerdict.NONE,
        DriftVerdict.EMPTY,
        DriftVerdict.UNKNOWN,
    ]


def test_a_coded_column_of_few_values_is_compared_by_its_shares() -> None:
    codes = Distribution.of([1] * 60 + [2] * 40)
    moved = measure_drift("bptclass", codes, Distribution.of([1] * 20 + [2] * 80))
    assert moved.verdict is DriftVerdict.LARGE
    assert moved.ks == pytest.approx(0.4)
    constant = Distribution.of([0.296] * 50)
    assert measure_drift("pixel_scale", constant, constant).psi == 0


def test_a_profile_of_pages_is_that_of_the_whole(filled_cube) -> None:
    cube = filled_cube
    whole = profile_catalog(cube)
    pages = profile_catalog(cube, page_rows=200)
    middle = cube.n_objects // 3
    parts = profile_catalog(cube, 0, middle, page_rows=100) + profile_catalog(cube, middle, page_rows=64)
    for other in (pages, parts):
        assert other.n_objects == whole.n_objects == cube.n_objects
        assert all(same(other.columns[name], spread) for name, spread in whole.columns.items())
        assert np.array_equal(other.sky.stored, whole.sky.stored)
    counts = cube.counts()
    assert whole.sky.registered.sum() == counts.registered
    assert whole.sky.stored.sum() == whole.columns["body_length"].n == counts.stored
    assert whole.sky.quarantined.sum() == counts.quarantined
    assert whole.columns["oh_p50"].n == np.isfinite(cube.read_label("oh_p50")).sum()
    assert whole.sky.at_order(2).registered.sum() == counts.registered
    assert profile_catalog(cube, 5, 5).n_objects == Profile().n_objects == 0


def test_cells_shrink_to_the_larger_ones_that_hold_them() -> None:
    ra, dec = np.array([10.0, 10.0, 190.0]), np.array([5.0, 5.0, -40.0])
    counts = SkyCounts.of(ra, dec, np.array([Status.STORED, Status.QUARANTINED, Status.PENDING], dtype=np.uint8))
    coarse = counts.at_order(1)
    assert {int(cell): int(coarse.registered[cell]) for cell in np.flatnonzero(coarse.registered)} == {17: 2, 42: 1}
    assert (coarse.stored[17], coarse.quarantined[17], coarse.stored[42]) == (1, 1, 0)
    with pytest.raises(ValueError, match=rf"(?=.*\b9\b)(?=.*\b{SKY_ORDER}\b)"):
        counts.at_order(9)


def test_blurred_images_have_less_fine_structure() -> None:
    sharp = draw_blobs(12)
    blurred = gaussian_filter(sharp.astype(np.float64), (0, 2, 2, 0)).astype(np.uint8)
    before, after = measure_images(sharp), measure_images(blurred)
    assert (after["fine_share"] < before["fine_share"]).all()
    assert (after["sky_noise"] <= before["sky_noise"]).all()
    saturated = sharp.copy()
    saturated[0] = 255
    measured = measure_images(saturated)
    assert measured["saturated_share"][0] == 1
    assert math.isnan(measured["fine_share"][0])


def test_a_sample_of_images_is_bounded_and_of_stored_rows_alone(filled_cube) -> None:
    cube = filled_cube
    rows = sample_rows(cube, 0, cube.n_objects, n_max=128)
    assert 64 < rows.size <= 128
    assert (cube.read_state("status")[rows] == Status.STORED).all()
    assert rows.max() > cube.n_objects // 2
    spread = measure_sharpness(cube, 0, cube.n_objects, n_max=128)
    assert spread["sky_level"].n == rows.size
    assert measure_sharpness(cube, 7, 7)["sky_level"].n == 0


def test_the_history_says_what_a_run_added_and_how_fast(filled_cube) -> None:
    cube = filled_cube
    runs = summarise_runs(cube.path)
    counts = cube.counts()
    assert sum(run.n_registered for run in runs) == counts.registered
    assert sum(run.n_settled for run in runs) == counts.stored + counts.quarantined
    assert all(run.first <= run.last for run in runs)
    assert sum("fill" in run.operations for run in runs) >= 1
