"""Columns of predictions: error bars, percentiles and flags; and the support of a model on its way to disk and back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from modeling.evaluation.intervals import ConformalIntervals
from modeling.models.checkpoint import load_model, save_model
from modeling.outliers.artefact_flags import artefact_flags
from modeling.outliers.catalog_consistency import COMPARED_COLUMNS
from modeling.outliers.detector_file import read_ood_detector
from modeling.outliers.image_statistics import measure_images
from modeling.outliers.ood_score import MIN_DETECTOR_ROWS, DetectorExamples, OODDetector
from modeling.outliers.thumbnails import Thumbnails
from modeling.scoring.predict import Prediction, predict
from modeling.scoring.prediction_columns import prediction_columns
from modeling.training.finish import fit_ood_detector
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.errors import StoreError, TrainingError, WeightsError
from schemas.predictions import PREDICTION_COLUMN, Flag
from tests.conftest import draw_blobs
from tests.support.random_models import random_model

LEVEL, N = 16, 90
LABELS = np.linspace(8.4, 9.2, 200)


def small_blobs(n: int, *, seed: int = 0) -> np.ndarray:
    return draw_blobs(n, seed=seed).reshape(n, LEVEL, 8, LEVEL, 8, 3).mean(axis=(2, 4)).astype(np.float32)


def prediction_of(mean: list[float], *, sigma: float = np.nan, n_features: int = 256) -> Prediction:
    values, n = np.array(mean), len(mean)
    return Prediction(
        mean=values,
        view_spread=np.full(n, 0.01),
        embedding=np.zeros((n, n_features), dtype=np.float32),
        sigma=np.full(n, sigma),
        ensemble_spread=np.full(n, np.nan),
    )


def seen(model, pixels: np.ndarray, catalog: pd.DataFrame | None = None) -> DetectorExamples:
    return DetectorExamples(embedding=predict(model, pixels, device="cpu").embedding, pixels=pixels, catalog=catalog)


def statistics_of(pixels: np.ndarray) -> dict[str, np.ndarray]:
    return measure_images(Thumbnails.of(pixels))


@pytest.fixture(scope="module")
def supported():
    model = random_model("0123456789ab", level=LEVEL)
    rng = np.random.default_rng(0)
    r = rng.normal(17, 0.6, 2 * N)
    magnitudes = pd.DataFrame({"modelMag_g": r + rng.normal(0.6, 0.1, 2 * N), "modelMag_r": r, "modelMag_i": r - 0.3})
    magnitudes = magnitudes.assign(petroR90_r=rng.uniform(3, 9, 2 * N), pixel_scale=0.4)
    pixels = small_blobs(2 * N)
    return fit_ood_detector(
        model, seen(model, pixels[:N], magnitudes[:N]), seen(model, pixels[N:], magnitudes[N:]), LABELS
    )


def test_percentiles_are_the_conformal_intervals_about_the_mean() -> None:
    conformal = ConformalIntervals(n=100, by_sigma=False, score_68=0.1, score_95=0.25)
    columns = prediction_columns(random_model("a").with_intervals(conformal), prediction_of([8.9, 8.7]), small_blobs(2))
    assert set(columns) == set(PREDICTION_COLUMN)
    found = {name: columns[name].tolist() for name in ("p2_5", "p16", "p50", "p84", "p97_5", "sigma")}
    expected = {"p2_5": [8.65, 8.45], "p16": [8.8, 8.6], "p50": [8.9, 8.7], "p84": [9, 8.8], "p97_5": [9.15, 8.95]}
    for name, values in {**expected, "sigma": [0.1, 0.1]}.items():
        assert found[name] == pytest.approx(values, abs=1e-5)
    assert {values.dtype.name for name, values in columns.items() if name != "flags"} == {"float32"}
    assert columns["flags"].dtype == np.int32


def test_intervals_follow_the_networks_own_sigma_where_it_has_one() -> None:
    conformal = ConformalIntervals(n=100, by_sigma=True, score_68=1.5, score_95=3)
    columns = prediction_columns(
        random_model("a").with_intervals(conformal), prediction_of([8.9], sigma=0.2), small_blobs(1)
    )
    assert columns["sigma"].tolist() == pytest.approx([0.2])
    assert columns["p84"].tolist() == pytest.approx([9.2], abs=1e-5)
    assert columns["p2_5"].tolist() == pytest.approx([8.3], abs=1e-5)


def test_a_model_without_calibration_leaves_them_open_and_one_of_few_rows_only_the_wide_ones() -> None:
    bare = prediction_columns(random_model("a"), prediction_of([8.9]), small_blobs(1))
    assert all(np.isnan(bare[name]).all() for name in ("sigma", "p2_5", "p16", "p50", "p84", "p97_5"))
    few = ConformalIntervals(n=5, by_sigma=False, score_68=0.1, score_95=None)
    columns = prediction_columns(random_model("a").with_intervals(few), prediction_of([8.9]), small_blobs(1))
    assert np.isfinite(columns["p84"]).all()
    assert np.isnan(columns["p97_5"]).all()


def test_an_ensembles_interval_is_as_wide_as_its_members_on_average() -> None:
    members = [
        random_model(name).with_intervals(ConformalIntervals(n=50, by_sigma=False, score_68=score, score_95=2 * score))
        for name, score in (("a", 0.1), ("b", 0.2))
    ]
    columns = prediction_columns(members, prediction_of([8.9]), small_blobs(1))
    assert columns["p84"].tolist() == pytest.approx([9.05], abs=1e-5)


def test_values_that_the_paper_distrusts_are_flagged_and_of_other_targets_those_beyond_the_labels(supported) -> None:
    expected = [Flag.EXTRAPOLATED_RANGE, 0, 0, Flag.EXTRAPOLATED_RANGE]
    flags = prediction_columns(supported, prediction_of([8.49, 8.51, 9.09, 9.11]), small_blobs(4))["flags"]
    assert (flags & Flag.EXTRAPOLATED_RANGE).tolist() == expected
    masses = replace(supported, config=replace(supported.config, targets=("lgm_tot_p50",)))
    flags = prediction_columns(masses, prediction_of([8.40, 8.42, 9.18, 9.20]), small_blobs(4))["flags"]
    assert (flags & Flag.EXTRAPOLATED_RANGE).tolist() == expected


def test_a_model_that_does_not_know_its_support_says_so(supported) -> None:
    assert prediction_columns(random_model("a"), prediction_of([8.9]), small_blobs(1))["flags"].tolist() == [
        Flag.SUPPORT_UNKNOWN
    ]
    flags = prediction_columns(supported, predict(supported, small_blobs(9), device="cpu"), small_blobs(9))["flags"]
    assert not (flags & Flag.SUPPORT_UNKNOWN).any()


def test_images_and_magnitudes_beyond_the_training_set_are_flagged_each_by_its_own_bit(supported) -> None:
    pixels = np.concatenate([small_blobs(1), 255 - small_blobs(1), small_blobs(2)])
    magnitudes = pd.DataFrame(
        {"modelMag_g": [17.6, 17.6, 12.0, np.nan], "modelMag_r": [17.0, 17, 17, 17], "modelMag_i": [16.7, 16.7, 20, 16]}
    )
    flags = prediction_columns(supported, predict(supported, pixels, device="cpu"), pixels, magnitudes)["flags"]
    outside, strange = Flag.OUTSIDE_TRAINING_SUPPORT, Flag.PHOTOMETRY_OUTSIDE_TRAINING
    assert [bool(flag & outside) for flag in flags] == [False, True, False, False]
    assert [bool(flag & strange) for flag in flags] == [False, False, True, False]


def test_an_image_that_is_not_the_catalogs_object_is_flagged_by_its_own_bit(supported) -> None:
    pixels = small_blobs(3)
    catalog = pd.DataFrame(
        {
            "modelMag_g": 17.6,
            "modelMag_r": 17.0,
            "modelMag_i": 16.7,
            "petroR90_r": [6.0, 6000.0, np.nan],
            "pixel_scale": 0.4,
        }
    )
    flags = prediction_columns(supported, predict(supported, pixels, device="cpu"), pixels, catalog)["flags"]
    assert [bool(flag & Flag.CUTOUT_UNLIKE_CATALOG) for flag in flags] == [False, True, False]


def test_artefacts_are_flagged_by_kind() -> None:
    pixels = np.repeat(small_blobs(1), 6, axis=0)
    pixels[1, :4, :4] = 255
    pixels[2, :8] = 0
    pixels[3, :8] += np.array([60, 0, 0])
    pixels[4, :, :, 0] = 120
    pixels[4, :, :, 1:] = 5
    pixels[5, 3, 3] = 255
    saturated, empty, coloured = Flag.CUTOUT_SATURATED, Flag.CUTOUT_MOSTLY_EMPTY, Flag.CUTOUT_ARTEFACT_COLOURS
    assert artefact_flags(Thumbnails.of(pixels)).tolist() == [0, saturated, empty, coloured, coloured, 0]
    assert artefact_flags(Thumbnails.of(pixels[:0])).shape == (0,)


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16, 32, 64])
def test_statistics_are_finite_and_the_same_for_a_turned_image(side) -> None:
    images = draw_blobs(4).reshape(4, side, 128 // side, side, 128 // side, 3).mean(axis=(2, 4))
    images[0] = 0
    images[1] = 255
    upright, turned, mirrored = (
        statistics_of(views) for views in (images, np.rot90(images, axes=(1, 2)), images[:, :, ::-1])
    )
    for name, values in upright.items():
        assert np.isfinite(values).all(), name
        np.testing.assert_allclose(turned[name], values, atol=2e-3, err_msg=name)
        np.testing.assert_allclose(mirrored[name], values, atol=2e-3, err_msg=name)


def test_flags_do_not_depend_on_what_is_described_together(supported) -> None:
    pixels = np.concatenate([small_blobs(5), 255 - small_blobs(5)])
    prediction = predict(supported, pixels, device="cpu")
    whole = supported.ood_detector.score(prediction.embedding, statistics_of(pixels))
    alone = [
        supported.ood_detector.score(prediction.embedding[k : k + 1], statistics_of(pixels[k : k + 1]))[0]
        for k in range(10)
    ]
    np.testing.assert_allclose(whole, alone, rtol=1e-4)


def test_a_support_comes_back_from_disk_with_its_model_and_only_with_its_own(supported, tmp_path) -> None:
    save_model(tmp_path / "m", supported, metrics={})
    loaded = load_model(tmp_path / "m")
    pixels = small_blobs(5, seed=9)
    embedding, statistics = predict(supported, pixels, device="cpu").embedding, statistics_of(pixels)
    np.testing.assert_array_equal(
        loaded.ood_detector.score(embedding, statistics), supported.ood_detector.score(embedding, statistics)
    )
    assert loaded.ood_detector.label_range == supported.ood_detector.label_range
    assert loaded.ood_detector.photometry.threshold == supported.ood_detector.photometry.threshold
    catalog = pd.DataFrame(dict.fromkeys(COMPARED_COLUMNS, [3.0] * len(pixels)))
    scores = supported.ood_detector.catalog_score(statistics, catalog)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(loaded.ood_detector.catalog_score(statistics, catalog), scores)
    other = tmp_path / "m" / "support.safetensors"
    other.write_bytes(other.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(WeightsError, match=r"support\.safetensors"):
        load_model(tmp_path / "m")
    other.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"support\.safetensors"):
        load_model(tmp_path / "m")


def test_a_model_of_an_earlier_version_is_loaded_without_support(tmp_path) -> None:
    save_model(tmp_path / "m", random_model("m"), metrics={})
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    del config["support"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path / "m").ood_detector is None


def test_too_few_rows_teach_no_support(supported) -> None:
    few = seen(supported, small_blobs(MIN_DETECTOR_ROWS - 1))
    assert fit_ood_detector(random_model("a"), few, few, LABELS).ood_detector is None
    with pytest.raises(TrainingError, match=rf"(?=.*\b{MIN_DETECTOR_ROWS - 1} training)(?=.*\b{MIN_DETECTOR_ROWS}\b)"):
        OODDetector.fit(few, few, LABELS)


def test_at_one_pixel_colours_alone_are_learnt() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.normal(30, 3, (2 * N, 1, 1, 3))
    model = random_model("a", level=1)
    model = fit_ood_detector(model, seen(model, pixels[:N]), seen(model, pixels[N:]), LABELS)
    assert set(model.ood_detector.image.models) == {"colour"}
    embedding = predict(model, pixels[:1], device="cpu").embedding
    assert model.ood_detector.score(embedding, statistics_of(pixels[:1] * 0 + 250))[0] > 1


def test_cutouts_of_another_scale_rule_are_refused(supported) -> None:
    with pytest.raises(StoreError, match=r"(?=.*'fixed')(?=.*'petro_r90')"):
        supported.require_scale(CutoutScale(rule=ScaleRule.PETRO_R90))


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(WeightsError, match=r"support\.safetensors"):
        read_ood_detector(tmp_path / "support.safetensors")
