import numpy as np
import pandas as pd
import pytest

from modeling.judging.baselines import FOREST_COLUMNS, predict_forest, predict_mean


def catalog_of(n, seed):
    """Magnitudes whose g - i colour sets the label."""
    rng = np.random.default_rng(seed)
    r, colour = rng.uniform(15, 18, n), rng.uniform(0, 1.5, n)
    table = pd.DataFrame({"modelMag_g": r + colour / 2, "modelMag_r": r, "modelMag_i": r - colour / 2})
    return table, 8.4 + 0.5 * colour


TRAIN, LABELS = catalog_of(600, 0)
NEW, TRUE = catalog_of(150, 1)


def test_the_mean_is_predicted_for_all():
    result = predict_mean(np.array([8.0, 9.0, 9.4]), 4).against(np.array([8.8, 8.8, 8.8, 8.8]))
    assert result.rmse == pytest.approx(0)


def test_the_forest_finds_a_planted_relation():
    forest = predict_forest(TRAIN, LABELS, NEW)
    assert forest.note == ""
    assert forest.against(TRUE).rmse < 0.5 * TRUE.std()


def test_the_forest_is_the_same_for_a_seed():
    np.testing.assert_array_equal(
        predict_forest(TRAIN, LABELS, NEW).predicted, predict_forest(TRAIN, LABELS, NEW).predicted
    )


def test_rows_without_a_magnitude_are_left_out_and_counted():
    train, new = TRAIN.copy(), NEW.copy()
    train.loc[:9, "modelMag_g"] = np.nan
    new.loc[[0, 4], "modelMag_i"] = None
    forest = predict_forest(train, LABELS, new)
    assert forest.note == "10 training and 2 evaluated rows without all three magnitudes are left out"
    assert np.flatnonzero(np.isnan(forest.predicted)).tolist() == [0, 4]
    assert forest.against(TRUE).n == 148


@pytest.mark.parametrize("column", FOREST_COLUMNS)
def test_a_column_that_is_absent_or_empty_leaves_the_forest_out_and_says_why(column):
    for train in (TRAIN.drop(columns=column), TRAIN.assign(**{column: np.nan})):
        forest = predict_forest(train, LABELS, NEW)
        assert forest.predicted is None
        assert forest.against(TRUE) == f"not fitted: the training rows have no values of {column}"


def test_too_few_complete_rows_leave_the_forest_out():
    train = TRAIN.copy()
    train.loc[12:, "modelMag_r"] = np.nan
    assert "12 training and 150 evaluated rows have all three magnitudes" in predict_forest(train, LABELS, NEW).note


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match="600 catalog rows and 599 labels"):
        predict_forest(TRAIN, LABELS[1:], NEW)
