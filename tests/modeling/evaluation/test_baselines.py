import numpy as np
import pandas as pd
import pytest

from modeling.evaluation.baselines import FOREST_COLUMNS, known_magnitudes, predict_forest, predict_mean
from tests.facts import facts_near


def catalog_of(n, seed):
    """Draw magnitudes whose g - i colour sets the label."""
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
    assert facts_near(forest.note, "10", "training")
    assert facts_near(forest.note, "2", "evaluated")
    assert np.flatnonzero(np.isnan(forest.predicted)).tolist() == [0, 4]
    assert forest.against(TRUE).n == 148


@pytest.mark.parametrize("column", FOREST_COLUMNS)
def test_a_column_that_is_absent_or_empty_leaves_the_forest_out_and_says_why(column):
    for train in (TRAIN.drop(columns=column), TRAIN.assign(**{column: np.nan})):
        forest = predict_forest(train, LABELS, NEW)
        assert forest.predicted is None
        assert facts_near(forest.against(TRUE), "training", column)


def test_too_few_complete_rows_leave_the_forest_out():
    train = TRAIN.copy()
    train.loc[12:, "modelMag_r"] = np.nan
    forest = predict_forest(train, LABELS, NEW)
    assert forest.predicted is None
    assert facts_near(forest.note, "12", "150", "magnitudes")


def test_a_forest_on_all_magnitudes_uses_what_three_do_not_show():
    rng = np.random.default_rng(2)
    train, new = (
        table.assign(modelMag_u=table["modelMag_g"] + rng.uniform(0, 2, len(table))) for table in (TRAIN, NEW)
    )
    labels, true = (
        LABELS + 0.3 * (train["modelMag_u"] - train["modelMag_g"]),
        TRUE + 0.3 * (new["modelMag_u"] - new["modelMag_g"]),
    )
    four = ("modelMag_u", *FOREST_COLUMNS)
    both = [predict_forest(train, labels.to_numpy(), new, columns=columns) for columns in (FOREST_COLUMNS, four)]
    three_rmse, four_rmse = (forest.against(true.to_numpy()).rmse for forest in both)
    assert four_rmse < 0.8 * three_rmse
    assert "magnitudes" in both[1].name


def test_magnitudes_that_a_survey_lacks_are_not_asked_of_the_forest():
    table = TRAIN.assign(modelMag_u=np.nan)
    names = ("modelMag_u", *FOREST_COLUMNS, "modelMag_z")
    assert known_magnitudes(table, names) == FOREST_COLUMNS
    nothing = predict_forest(TRAIN, LABELS, NEW, columns=known_magnitudes(TRAIN[[]], names))
    assert nothing.predicted is None
    assert facts_near(nothing.against(TRUE), "training", "magnitudes")


def test_labels_of_another_length_are_rejected():
    with pytest.raises(ValueError, match=r"(?=.*\b600\b)(?=.*\b599\b)"):
        predict_forest(TRAIN, LABELS[1:], NEW)
