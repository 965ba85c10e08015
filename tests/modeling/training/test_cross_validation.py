import numpy as np
import pytest

from modeling.training.cross_validation import CrossValidation, assign_folds, predict_fold
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.errors import TrainingError
from schemas.recipes import NetworkSection, TrainSection

N_FOLDS = 4
NETWORK = NetworkSection(arch="resnet10w32", level=16)
TRAIN = TrainSection(epochs=10, batch_size=32, learning_rate=0.005, seed=3, device="cpu")
SCALE = CutoutScale(rule=ScaleRule.FIXED)


@pytest.fixture(scope="module")
def sky():
    rng = np.random.default_rng(5)
    ids = rng.choice(np.int64(1) << 60, 1000, replace=False)
    return ids, rng.uniform(0, 360, 1000), rng.uniform(-60, 60, 1000)


def test_folds_are_disjoint_and_cover_everything(sky):
    folds = assign_folds(*sky, n_folds=N_FOLDS)
    assert folds.shape == (1000,)
    # one number per object, hence disjoint; 250 +- 5 sigma of a binomial
    assert set(folds.tolist()) == set(range(N_FOLDS))
    assert np.abs(np.bincount(folds) - 250).max() < 70


def test_an_object_s_fold_depends_on_its_id_alone(sky):
    folds = assign_folds(*sky, n_folds=N_FOLDS)
    order = np.random.default_rng(6).permutation(1000)
    assert np.array_equal(assign_folds(*(column[order] for column in sky), n_folds=N_FOLDS), folds[order])
    assert np.array_equal(assign_folds(*(column[:400] for column in sky), n_folds=N_FOLDS), folds[:400])
    assert not np.array_equal(assign_folds(*sky, n_folds=N_FOLDS, seed=1), folds)
    # stored results: folds must not change between versions
    assert assign_folds(np.arange(8), np.arange(8.0), np.zeros(8), n_folds=3).tolist() == [1, 2, 0, 2, 0, 1, 0, 2]


def test_several_ids_of_one_galaxy_share_a_fold(sky):
    ids, ra_deg, dec_deg = sky
    twins = assign_folds(
        np.concatenate([ids, ids + 1]),
        np.concatenate([ra_deg, ra_deg]),
        np.concatenate([dec_deg, dec_deg + 1 / 3600]),
        n_folds=N_FOLDS,
    )
    assert np.array_equal(twins[:1000], twins[1000:])


def test_too_few_or_empty_folds_are_refused(sky):
    with pytest.raises(TrainingError, match=r"(?=.*\b1 folds?\b)(?=.*\b2\b)"):
        assign_folds(*sky, n_folds=1)
    with pytest.raises(TrainingError, match=r"(?=.*\b9 folds)(?=.*\b3\b)"):
        assign_folds(*(column[:3] for column in sky), n_folds=9)


def test_metrics_are_over_all_objects_and_the_mean_is_that_of_the_other_folds():
    result = CrossValidation.of(np.array([0, 0, 1]), np.array([1.0, 3.0, 8.0]), np.array([2.0, 3.0, 6.0]))
    assert result.mean.tolist() == [8.0, 8.0, 2.0]
    # by hand: errors 1, 0, -2 against 7, 5, -6
    assert result.overall.rmse == pytest.approx((5 / 3) ** 0.5)
    assert result.overall_mean.rmse == pytest.approx((110 / 3) ** 0.5)
    metrics = result.to_dict()
    assert metrics["overall"]["ratio"] == pytest.approx((5 / 110) ** 0.5)
    assert [fold["n"] for fold in metrics["folds"]] == [2, 1]
    assert metrics["folds"][1]["rmse"] == pytest.approx(2)


def test_a_planted_relation_is_learnt_in_each_fold(draw_discs):
    pixels, labels = draw_discs(240, 11)
    ids = np.arange(240)
    folds = assign_folds(ids, ids.astype(float), np.zeros(240), n_folds=3)
    predicted = np.empty(240)
    for fold in range(3):
        out = folds == fold
        predicted[out] = predict_fold(pixels, labels, out, network=NETWORK, train=TRAIN, scale=SCALE)
    for _, network, mean in CrossValidation.of(folds, labels, predicted).by_fold():
        assert network.rmse < 0.6 * mean.rmse


def test_labels_of_a_fold_do_not_affect_its_predictions(draw_discs):
    pixels, labels = draw_discs(60, 12)
    out = np.arange(60) < 20
    train = TRAIN.model_copy(update={"epochs": 1})
    changed = np.where(out, 99.0, labels)
    first, second = (
        predict_fold(pixels, values, out, network=NETWORK, train=train, scale=SCALE) for values in (labels, changed)
    )
    assert np.array_equal(first, second)
