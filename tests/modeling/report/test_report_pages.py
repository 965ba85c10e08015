"""Pages on data quality and predictions, complete and with missing parts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galstore.profile.catalog import Profile
from galstore.profile.distribution import Distribution
from modeling.evaluation.calibration import Calibration
from modeling.evaluation.prediction_summary import (
    CalibrationTally,
    PredictionSummary,
    flagged_positions,
    relation_percentiles,
)
from modeling.figures.prediction_summary import draw_relation
from modeling.figures.sky import draw_sky, map_order
from modeling.report.pages import NAVIGATION
from modeling.report.predictions_page import summarise_predictions, write_predictions_page
from modeling.report.quality_page import summarise_quality, write_quality_page
from tests.facts import facts_near
from tests.modeling.report.test_report import Page
from tests.support import report_pages as simulated


def page_of(tmp_path, write, shown) -> Page:
    write(tmp_path / "page.html", shown)
    return Page((tmp_path / "page.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return simulated.write_all(tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("name", list(NAVIGATION))
def test_every_page_links_to_the_others_and_loads_nothing(folder, name) -> None:
    page = Page((folder / name).read_text(encoding="utf-8"))
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == set(NAVIGATION)
    current = [attributes["href"] for _, attributes in page.tags if attributes.get("aria-current") == "page"]
    assert current == [name]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(len(image["alt"]) > 20 for image in images)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert page.open == []
    (warning,) = page.of_class("simulated")
    assert "simulated" in warning.lower()


def test_the_quality_page_shows_counts_and_drifted_columns(tmp_path) -> None:
    shown = simulated.quality()
    page = page_of(tmp_path, write_quality_page, shown)
    words = page.words()
    for expected in (
        ("1,240", "registered"),
        ("1,228", "stored"),
        ("12", "quarantined"),
        ("0", "pending"),
        ("1 of 39", "columns"),
        ("2", "columns", "values"),
        ("z, oh_p50",),
        ("truncated 3",),
        ("object id repeated id 4",),
        ("1237648702973411999 180.20000 -0.50000", "5 simulated"),
        ("1237648702973411999 <b>half</b> a page",),
        ("2026-11-24 03:01 register, fill",),
        (shown.comparison.description,),
        ("SNAP2", "snapshot"),
    ):
        assert facts_near(words, *expected, within=40), expected
    drifts = [(row.split()[0], "mag large " in row) for row in page.rows() if " mag " in row]
    assert drifts[0] == ("petroMag_r", True)
    assert ("modelMag_u", False) in drifts


def test_the_quality_page_gives_the_reason_for_a_missing_comparison(tmp_path) -> None:
    alone = simulated.quality(comparison="Nothing to compare with: this is the first report.")
    page = page_of(tmp_path, write_quality_page, alone)
    assert page.of_class("absent") == [alone.comparison]
    assert "PSI" not in page.words()
    summary = summarise_quality(alone)
    assert (summary["compared_with"], summary["drift"]) == (None, [])
    assert summary["columns"]["petroMag_r"]["n"] == 1240


def test_an_empty_cube_has_a_page_of_sentences(tmp_path) -> None:
    nothing = simulated.quality(
        comparison="Nothing to compare with.",
        whole=Profile(),
        sharpness={},
        quarantined=simulated.quarantined().iloc[:0],
        stored_ids=np.empty(0, dtype=np.int64),
        read_stored=lambda: simulated.cutouts(0),
        runs=[],
    )
    nothing = replace(nothing, whole=Profile(columns=dict.fromkeys(simulated.PROFILED, Distribution())))
    absent = page_of(tmp_path, write_quality_page, nothing).of_class("absent")
    assert absent[0] == nothing.comparison
    for text, noun in zip(absent[1:], ("column", "cutout", "object", "quarantin", "cutout", "history"), strict=True):
        assert noun in text


def test_summaries_are_json(tmp_path) -> None:
    summary = {
        "quality": summarise_quality(simulated.quality()),
        "predictions": summarise_predictions(simulated.predictions()),
    }
    summary = json.loads(json.dumps(summary, allow_nan=False))
    (drift,) = [item for item in summary["quality"]["drift"] if item["column"] == "petroMag_r"]
    assert (drift["verdict"], drift["n_before"], drift["n_now"]) == ("large", 1000, 240)
    assert summary["quality"]["compared_with"] == {"snapshot": "SNAP1", "n_objects": 1000}
    assert summary["quality"]["add_up"]
    new = summary["predictions"]["new"]
    assert (new["n"], new["n_scored"], new["flags"]["cutout_saturated"]) == (300, 290, 30)
    assert new["calibration"]["n"] == 40
    assert 0.55 < summary["predictions"]["held_out"]["calibration"]["coverage_68"] < 0.8
    assert len(new["mass_metallicity"]) > 3


def test_the_predictions_page_shows_flags_relation_and_calibration(tmp_path) -> None:
    shown = simulated.predictions()
    page = page_of(tmp_path, write_predictions_page, shown)
    words = page.words()
    for expected in (
        ("290 of 300", "tonight.csv", "12 + log(O/H)"),
        ("30", "flagged"),
        ("1237648702973411444 → 8.80",),
        (shown.mass_source,),
        ("out of footprint 10",),
        ("cutout saturated, extrapolated range scored",),
    ):
        assert facts_near(words, *expected), expected
    cells = [row.lower() for row in page.rows()]
    assert [row.split(" ", 2)[:2] for row in cells if row.endswith(" 30 10 %")] == [
        ["cutout", "saturated"],
        ["extrapolated", "range"],
    ]
    assert [row for row in cells if row.startswith("support unknown ") and row.endswith(" 0 0 %")]
    assert [row for row in cells if row.startswith("new catalog") and " 40 0.0721 " in row]


def test_missing_parts_are_replaced_by_a_sentence(tmp_path) -> None:
    bare = pd.DataFrame({"prediction": [8.8, 8.9, np.nan], "flags": [-1, -1, -1], "sigma": np.nan})
    shown = simulated.predictions()
    new = replace(shown.new, scored=PredictionSummary.of(bare, flag_bits=simulated.BITS), flagged=[])
    shown = simulated.predictions(
        new=new, held_out=PredictionSummary.of(bare, flag_bits=simulated.BITS, true=np.array([8.8, 8.8, 9]))
    )
    page = page_of(tmp_path, write_predictions_page, shown)
    assert facts_near(page.words(), "2 of 3")
    for text, noun in zip(page.of_class("absent"), ("flags", "mass", "catalog", "sigma", "sigma"), strict=True):
        assert noun in text
    none = page_of(tmp_path, write_predictions_page, simulated.predictions(new=None))
    assert "galstore score" in none.of_class("verdict")[0]
    assert [row for row in none.rows() if " 400 0.0806 " in row]


@given(st.integers(1, 6), st.integers(0, 3))
@settings(deadline=None, max_examples=15)
def test_batches_of_predictions_add_up_to_the_whole(n_batches: int, seed: int) -> None:
    table, true = simulated.predictions_table(97, seed=seed)
    masses = np.random.default_rng(seed).normal(10, 0.5, 97)
    whole = PredictionSummary.of(table, flag_bits=simulated.BITS, log_mass=masses, true=true)
    total = PredictionSummary()
    for rows in reversed(np.array_split(np.arange(97), n_batches)):
        total += PredictionSummary.of(
            table.iloc[rows], flag_bits=simulated.BITS, log_mass=masses[rows], true=true[rows]
        )
    assert (total.n, total.n_scored, total.n_flagged, total.flags) == (97, 97, whole.n_flagged, whole.flags)
    assert np.array_equal(total.relation, whole.relation)
    assert np.array_equal(total.columns["width_68"].counts, whole.columns["width_68"].counts)
    assert total.calibration.rmse == pytest.approx(whole.calibration.rmse)
    assert np.array_equal(total.calibration.pit_counts, whole.calibration.pit_counts)


def test_a_tally_is_what_the_calibration_says() -> None:
    table, true = simulated.predictions_table(500, seed=3)
    tally = CalibrationTally.of(table, true)
    whole = Calibration.of_percentiles(true, table[["p2_5", "p16", "p50", "p84", "p97_5"]])
    assert (tally.coverage_68, tally.coverage_95) == (whole.covered_68.mean(), whole.covered_95.mean())
    assert tally.mean_crps == pytest.approx(whole.crps.mean())
    assert tally.bias == pytest.approx(float((table["prediction"] - true).mean()))
    by_sigma = CalibrationTally.of(table[["prediction", "sigma"]], true)
    assert by_sigma.mean_crps == pytest.approx(
        Calibration.of_gaussian(true, table["prediction"], table["sigma"]).crps.mean()
    )


def test_flagged_objects_are_found_by_their_bits() -> None:
    table = pd.DataFrame({"flags": [0, 4, 5, -1, 1]})
    assert flagged_positions(table, {"one": 1, "four": 4}, 1) == {"one": [2], "four": [1]}
    assert flagged_positions(table[[]], {"one": 1}, 1) == {}
    scored = PredictionSummary.of(table.assign(prediction=9.0), flag_bits={"one": 1, "four": 4})
    assert (scored.flags, scored.n_flagged) == ({"one": 2, "four": 2}, 3)


def test_the_relation_s_percentiles_are_numpys_to_a_bin() -> None:
    rng = np.random.default_rng(0)
    mass, metallicity = np.full(4000, 10.1), rng.normal(8.9, 0.1, 4000)
    scored = PredictionSummary.of(pd.DataFrame({"prediction": metallicity}), log_mass=mass)
    centres, percentiles = relation_percentiles(scored.relation)
    assert centres == pytest.approx([10.1])
    assert percentiles[0] == pytest.approx(np.quantile(metallicity, [0.16, 0.5, 0.84]), abs=0.01)
    assert draw_relation(scored.relation, label="12 + log(O/H)").axes


def test_a_small_field_is_drawn_as_one_and_a_survey_as_the_whole_sky() -> None:
    rng = np.random.default_rng(0)
    status = np.ones(500, dtype=np.uint8)
    field = simulated.SkyCounts.of(rng.uniform(358, 362, 500) % 360, rng.uniform(-2, 2, 500), status)
    survey = simulated.SkyCounts.of(rng.uniform(0, 360, 500), rng.uniform(-60, 60, 500), status)
    assert map_order(field) > map_order(survey)
    assert [axis.name for axis in draw_sky(field).axes[:1]] == ["rectilinear"]
    assert [axis.name for axis in draw_sky(survey).axes[:1]] == ["mollweide"]
