import io

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from modeling.evaluation.metrics import Regression
from modeling.figures import predictions as figures
from modeling.figures.gallery import draw_gallery, gallery_rows
from modeling.figures.style import figure_png
from modeling.models.training_log import EpochRecord

RNG = np.random.default_rng(0)
TRUE = RNG.normal(8.9, 0.2, 400).clip(8.0, 9.4)
PREDICTED = TRUE + RNG.normal(0, 0.08, 400)
LABEL = "12 + log(O/H)"


def record(epoch, rmse):
    return EpochRecord(
        epoch=epoch, seconds=1, images_per_s=100, train_loss=1, rmse=rmse, nmad=rmse * 0.8, learning_rate=0.01
    )


def gallery():
    rows = gallery_rows(TRUE, PREDICTED)
    cutouts = {title: np.zeros((len(chosen), 128, 128, 3), np.uint8) for title, chosen in rows.items()}
    return draw_gallery(cutouts, rows, TRUE, PREDICTED)


DRAWN = {
    "gallery": gallery,
    "distributions": lambda: figures.draw_distributions(TRUE, PREDICTED, label=LABEL),
    "comparison": lambda: figures.draw_comparison(TRUE, PREDICTED, label=LABEL),
    "training": lambda: figures.draw_training([record(1, 0.2), record(2, 0.1)], best_epoch=2),
    "predictors": lambda: figures.draw_predictors({"network": Regression.of(TRUE, PREDICTED)}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_becomes_a_png(name):
    figure = DRAWN[name]()
    assert isinstance(figure, Figure)
    pixels = image.imread(io.BytesIO(figure_png(figure, dpi=60)))
    np.testing.assert_allclose(pixels.shape[:2], figure.get_size_inches()[::-1] * 60, atol=1)
    assert pixels[..., :3].std() > 0.02


def test_the_same_figure_gives_the_same_bytes():
    assert figure_png(DRAWN["distributions"](), 60) == figure_png(DRAWN["distributions"](), 60)


def test_the_gallery_shows_the_extremes():
    true, predicted = np.arange(20.0), np.arange(20.0)
    predicted[7], predicted[3] = 60, -50  # errors +53 and -53
    rows = gallery_rows(true, predicted)
    low, high, low_true, high_true, under, over, drawn = (chosen.tolist() for chosen in rows.values())
    assert low == [3, 0, 1, 2, 4]
    assert high == [7, 19, 18, 17, 16]
    assert low_true == [0, 1, 2, 3, 4]
    assert high_true == [19, 18, 17, 16, 15]
    assert under[0] == 3
    assert over[0] == 7
    assert len(set(drawn)) == 5


def test_each_cutout_carries_its_predicted_and_true_value():
    texts = [text.get_text() for axis in gallery().axes for text in axis.texts]
    lowest = int(np.argmin(TRUE))
    assert f"{TRUE[lowest]:.2f}" in texts
    assert f"{PREDICTED[lowest]:.2f}" in texts
    assert len(texts) == 7 * (5 * 2 + 1)


def test_fewer_galaxies_than_columns_leave_places_empty():
    rows = gallery_rows(TRUE[:3], PREDICTED[:3])
    cutouts = {title: np.zeros((3, 8, 8, 3), np.uint8) for title in rows}
    assert figure_png(draw_gallery(cutouts, rows, TRUE[:3], PREDICTED[:3]), 40)


def test_the_comparison_states_the_global_errors_on_the_papers_axes():
    upper, lower, *_ = DRAWN["comparison"]().axes
    result = Regression.of(TRUE, PREDICTED)
    assert {text.get_text() for text in upper.texts} == {f"RMSE {result.rmse:.4f}", f"NMAD {result.nmad:.4f}"}
    assert lower.get_xlim() == lower.get_ylim() == (8.2, 9.3)


def test_the_comparison_follows_data_outside_the_papers_axes():
    masses = 10 + 0.5 * RNG.standard_normal(300)
    lower = figures.draw_comparison(masses, masses + 0.1, label="log mass").axes[1]
    assert lower.get_xlim()[0] < 9
    assert lower.get_xlim()[1] > 11


def test_the_scatter_is_that_of_each_bin_of_a_tenth_dex():
    true = np.repeat([8.55, 8.75], 6)
    errors = np.array([0.1] * 6 + [0.3, -0.3] * 3)
    centre, count, middle, rmse, scatter = figures._binned(true, true + errors, 0.1)
    np.testing.assert_allclose(centre, [8.55, 8.75])
    np.testing.assert_allclose(count, [6, 6])
    np.testing.assert_allclose(middle, [8.65, 8.75])
    np.testing.assert_allclose(rmse, [0.1, 0.3])
    np.testing.assert_allclose(scatter, [0, 0.3 * 1.4826], atol=1e-12)


def test_three_galaxies_are_drawn():
    assert figure_png(figures.draw_comparison(TRUE[:3], PREDICTED[:3], label=LABEL), 40)
