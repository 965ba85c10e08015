"""Figures of mass and metallicity, the resolution figure, and all figures of a table of simulated galaxies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from modeling.evaluation.binned_relation import BinnedRelation
from modeling.evaluation.fundamental_relation import measure_fundamental_relation
from modeling.evaluation.mass_metallicity import measure_mzr_scatter, tremonti_metallicity
from modeling.figures import relations as mzr_figures
from modeling.figures.paper import Galaxies, draw_paper_figures
from modeling.figures.paper_numbers import measure_paper_numbers
from modeling.figures.resolution import SweepPoint, draw_resolution, read_sweep
from modeling.figures.style import COLUMN_INCHES, PAGE_INCHES, SIMULATED, figure_bytes, figure_png, mark_simulated
from schemas.errors import CatalogError, ContractError
from tests.facts import facts_near

LABEL = "12 + log(O/H)"
RNG = np.random.default_rng(0)
N = 1200
MASS = RNG.uniform(8.7, 11.2, N)
SFR = 0.7 * (MASS - 10) + RNG.normal(0, 0.3, N)
TRUE = tremonti_metallicity(MASS) + RNG.normal(0, 0.1, N)
PREDICTED = 8.9 + 0.8 * (TRUE - 8.9) + RNG.normal(0, 0.05, N)
COLUMNS = {
    "true": TRUE,
    "predicted": PREDICTED,
    "log_mass": MASS,
    "predicted_log_mass": MASS + RNG.normal(0, 0.2, N),
    "log_sfr": SFR,
}
SWEEP = [
    *(SweepPoint(predictor="network", level=side, rmse=0.2 / side**0.2, nmad=0.15 / side**0.2) for side in (1, 8, 64)),
    SweepPoint(predictor="random forest", level=0, rmse=0.13, nmad=0.106),
]

DRAWN = {
    "mass": lambda: mzr_figures.draw_mass_comparison(MASS, COLUMNS["predicted_log_mass"]),
    "metallicity from mass": lambda: mzr_figures.draw_metallicity_from_mass(TRUE, PREDICTED, label=LABEL),
    "relation": lambda: mzr_figures.draw_mzr(
        MASS, TRUE, PREDICTED, label=LABEL, scatter=measure_mzr_scatter(MASS, TRUE, PREDICTED)
    ),
    "fundamental": lambda: mzr_figures.draw_fundamental_relation(
        measure_fundamental_relation(MASS, SFR, TRUE, PREDICTED)
    ),
    "resolution": lambda: draw_resolution(SWEEP),
}


def lines_of(axis) -> dict[str, np.ndarray]:
    return {line.get_label(): np.array(line.get_data()) for line in axis.get_lines()}


def line_of(lines: dict[str, np.ndarray], *facts: str) -> np.ndarray:
    """Return the only line whose label contains these words."""
    (found,) = [points for label, points in lines.items() if _names(label, facts)]
    return found


def _names(label: str, facts: tuple[str, ...]) -> bool:
    return all(fact in label for fact in facts)


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_has_the_width_of_a_column_and_fills_it(name: str) -> None:
    figure = DRAWN[name]()
    assert isinstance(figure, Figure)
    assert figure.get_size_inches()[0] in (COLUMN_INCHES, PAGE_INCHES)
    pixels = image.imread(io.BytesIO(figure_png(figure, dpi=60)))
    assert pixels[..., :3].std() > 0.02


@pytest.mark.parametrize("format_", ["png", "pdf"])
@pytest.mark.parametrize("name", ["relation", "resolution"])
def test_the_same_galaxies_give_the_same_bytes(name: str, format_: str) -> None:
    first = figure_bytes(DRAWN[name](), format_)
    assert first == figure_bytes(DRAWN[name](), format_)
    assert first.startswith(b"\x89PNG" if format_ == "png" else b"%PDF")


def test_another_format_is_rejected() -> None:
    with pytest.raises(ContractError, match=r"(?=.*'gif')(?=.*\bpng, pdf\b)"):
        figure_bytes(DRAWN["resolution"](), "gif")


def test_the_relation_shows_medians_percentiles_and_tremonti_on_the_papers_axes() -> None:
    true_axis, predicted_axis, *_ = DRAWN["relation"]().axes
    assert true_axis.get_xlim() == predicted_axis.get_xlim() == (8.4, 11.4)
    assert facts_near(true_axis.get_ylabel(), "true", LABEL)
    assert facts_near(predicted_axis.get_ylabel(), "predicted", LABEL)
    relation = BinnedRelation.of(MASS, PREDICTED)
    lines = lines_of(predicted_axis)
    np.testing.assert_array_equal(line_of(lines, "median", "predicted"), [relation.centre, relation.median])
    np.testing.assert_array_equal(line_of(lines, "16", "84", "predicted"), [relation.centre, relation.p16])
    line_of(lines, "median", "true")
    line_of(lines, "Tremonti", "2004")
    curve = next(line.get_data() for line in true_axis.get_lines() if line.get_linestyle() == "--")
    np.testing.assert_allclose(curve[1], tremonti_metallicity(curve[0]))
    scatter = measure_mzr_scatter(MASS, TRUE, PREDICTED)
    assert facts_near(predicted_axis.texts[0].get_text(), "ratio", str(scatter.ratio))


def test_the_fundamental_figure_states_both_trends() -> None:
    relation = measure_fundamental_relation(MASS, SFR, TRUE, PREDICTED)
    for axis, trend, name in zip(
        DRAWN["fundamental"]().axes, (relation.true, relation.predicted), ("true", "predicted"), strict=True
    ):
        text = axis.texts[0].get_text().replace("\N{MINUS SIGN}", "-")
        assert f"{trend.spearman.value:+.3f}" in text
        assert f"{trend.slope.value:+.3f} ± {trend.slope.error:.3f}" in text
        assert facts_near(axis.get_ylabel(), "residual", name, "[dex]")
        assert "SFR" in axis.get_xlabel()


def test_masses_have_bins_of_two_tenths_and_the_papers_axes() -> None:
    upper, lower, *_ = DRAWN["mass"]().axes
    assert lower.get_xlim() == (8.4, 11.4)
    np.testing.assert_allclose(np.diff(line_of(lines_of(lower), "median")[0]), 0.2)
    assert {text.get_text()[:4] for text in upper.texts} == {"RMSE", "NMAD"}


def test_the_resolution_figure_has_a_curve_and_named_baselines() -> None:
    rmse, nmad = DRAWN["resolution"]().axes
    assert nmad.get_xscale() == "log"
    np.testing.assert_allclose(line_of(lines_of(rmse), "network"), [[1, 8, 64], [point.rmse for point in SWEEP[:3]]])
    assert [text.get_text() for text in rmse.texts] == [SWEEP[-1].predictor]
    assert 0.106 in [line.get_ydata()[0] for line in nmad.get_lines()]
    assert [label.get_text() for label in nmad.get_xticklabels()] == ["1", "8", "64"]


@pytest.mark.parametrize("name", ["relation", "resolution"])
def test_figures_of_simulated_galaxies_are_labelled(name: str) -> None:
    figure = DRAWN[name]()
    mark_simulated(figure)
    assert figure.get_suptitle() == SIMULATED


def test_few_galaxies_are_points() -> None:
    few = slice(0, 60)
    scatter = measure_mzr_scatter(MASS[few], TRUE[few], PREDICTED[few])
    figure = mzr_figures.draw_mzr(MASS[few], TRUE[few], PREDICTED[few], label=LABEL, scatter=scatter)
    assert len(figure.axes) == 2  # no colour scale
    assert figure_png(figure, dpi=40)


def test_all_figures_are_drawn_and_rows_that_lack_a_value_are_counted() -> None:
    masses = MASS.copy()
    masses[:7] = np.nan
    galaxies = Galaxies(
        columns={**COLUMNS, "log_mass": masses},
        has_cutout=np.arange(N) >= 10,
        read_cutouts=lambda rows: np.full((len(rows), 16, 16, 3), 100, np.uint8),
        sweep=SWEEP,
    )
    drawn = draw_paper_figures(galaxies, label=LABEL, simulated=True)
    assert [found.name for found in drawn if found.figure is None] == []
    assert {found.name: found.n_left_out for found in drawn if found.n_left_out} == {
        "figure-1-cutouts": 10,
        "figure-5a-mass": 7,
        # predicted masses beyond Tremonti's relation
        "figure-5b-metallicity-from-mass": int(np.isnan(tremonti_metallicity(COLUMNS["predicted_log_mass"])).sum()),
        "figure-6-mass-metallicity": 7,
        "fundamental-relation": 7,
    }
    for found in drawn:
        assert SIMULATED in [text.get_text() for text in found.figure.texts]


def test_missing_figures_have_a_reason() -> None:
    galaxies = Galaxies(columns={"true": TRUE, "predicted": PREDICTED}, absent={"log_mass": "no stellar masses"})
    reasons = {found.name: found.reason for found in draw_paper_figures(galaxies, label=LABEL) if found.figure is None}
    facts_of = {
        "figure-1-cutouts": ("cutouts",),
        "figure-4-resolution": ("sweep",),
        "figure-5a-mass": ("no stellar masses", "predicted log mass"),
        "figure-5b-metallicity-from-mass": ("predicted log mass",),
        "figure-6-mass-metallicity": ("no stellar masses",),
        "fundamental-relation": ("no stellar masses", "log sfr"),
    }
    assert reasons.keys() == facts_of.keys()
    for name, facts in facts_of.items():
        assert facts_near(reasons[name], *facts), name


def test_too_few_galaxies_leave_their_figure_out() -> None:
    few = Galaxies(columns={name: values[:3] for name, values in COLUMNS.items()})
    reasons = {found.name: found.reason for found in draw_paper_figures(few, label=LABEL)}
    assert facts_near(reasons["figure-6-mass-metallicity"], "0.2 dex", "5")
    assert reasons["figure-3-comparison"] == ""
    nothing = Galaxies(columns={name: np.full(4, np.nan) for name in COLUMNS})
    assert all(found.figure is None for found in draw_paper_figures(nothing, label=LABEL))
    assert measure_paper_numbers(nothing) == []


def test_numbers_stand_beside_the_papers() -> None:
    numbers = {number.name: number for number in measure_paper_numbers(Galaxies(columns=COLUMNS))}
    assert numbers["RMSE"].value == pytest.approx(np.sqrt(np.mean((PREDICTED - TRUE) ** 2)))
    assert numbers["RMSE"].paper_text == "0.0851"
    ratio = numbers["scatter ratio, predicted / true"]
    assert ratio.paper_text == "0.821 ± 0.077"
    assert ratio.value == measure_mzr_scatter(MASS, TRUE, PREDICTED).ratio.value
    assert numbers["slope of predicted on true"].value == pytest.approx(0.8, abs=0.03)
    assert numbers["mass: RMSE"].value == pytest.approx(0.2, abs=0.02)
    of_mass = Galaxies(columns={name: COLUMNS[name] for name in ("true", "predicted")})
    assert {number.paper_text for number in measure_paper_numbers(of_mass, of_metallicity=False)} == {""}


def test_columns_of_different_lengths_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"(?=.*'true'.*\b2\b)(?=.*'predicted'.*\b3\b)"):
        Galaxies(columns={"true": np.zeros(2), "predicted": np.zeros(3)})


def test_a_sweep_is_read_from_csv(tmp_path: Path) -> None:
    file = tmp_path / "sweep.csv"
    file.write_text("predictor,level,rmse,nmad\nnetwork,64,0.089,0.07\nmean,,0.2,0.17\nforest,0,0.13,0.1\n")
    assert read_sweep(file) == [
        SweepPoint(predictor="network", level=64, rmse=0.089, nmad=0.07),
        SweepPoint(predictor="mean", level=0, rmse=0.2, nmad=0.17),
        SweepPoint(predictor="forest", level=0, rmse=0.13, nmad=0.1),
    ]
    file.write_text("level,rmse,nmad\n8,0.1,0.1\n")
    assert read_sweep(file)[0].predictor == "network"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("predictor,levels,rmse,nmad\n", r"(?=.*'level')(?=.*\blevels\b)"),
        ("predictor,level,rmse,nmad\nnetwork,8,abc,0.1\n", r"(?=.*\bline 2\b)(?=.*sweep\.csv)"),
        ("predictor,level,rmse,nmad\nnetwork,8,,0.1\n", r"(?=.*\bline 2\b)(?=.*sweep\.csv)(?=.*\bnan\b)"),
        ("predictor,level,rmse,nmad\nmean,,0.2,0.2\n", "'network'"),
        ("", r"sweep\.csv.*CSV"),
    ],
)
def test_an_unusable_sweep_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "sweep.csv"
    file.write_text(text)
    with pytest.raises(CatalogError, match=message):
        read_sweep(file)
    with pytest.raises(CatalogError, match=r"none\.csv"):
        read_sweep(tmp_path / "none.csv")
