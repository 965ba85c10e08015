import numpy as np
import pytest
import torch

from modeling.evaluation.metrics import Regression
from modeling.scoring.predict import predict
from modeling.training.finish import build_model
from modeling.training.train import train_network
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.errors import TrainingError, WeightsError
from schemas.recipes import NetworkSection, TrainSection

NETWORK = NetworkSection(arch="resnet10w32", level=16)
TRAIN = TrainSection(epochs=2, batch_size=32, learning_rate=0.005, seed=3, device="cpu")


def train_on(train_rows, validation_rows, *, network=NETWORK, train=TRAIN, **more):
    return train_network(
        pixels=train_rows[0],
        labels=train_rows[1],
        validation_pixels=validation_rows[0],
        validation_labels=validation_rows[1],
        network=network,
        train=train,
        **more,
    )


def test_a_planted_relation_is_learnt(draw_discs):
    rows, validation = draw_discs(384, 0), draw_discs(96, 1)
    trained = train_on(rows, validation, train=TRAIN.model_copy(update={"epochs": 8}))
    mean = Regression.of(validation[1], np.full(96, rows[1].mean()))
    assert trained.log[trained.best_epoch - 1].rmse <= 0.5 * mean.rmse


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(draw_discs):
    rows, validation = draw_discs(96, 0), draw_discs(16, 1)
    torch.manual_seed(1)
    first = train_on(rows, validation).network.state_dict()
    torch.manual_seed(2)
    same = train_on(rows, validation).network.state_dict()
    other = train_on(rows, validation, train=TRAIN.model_copy(update={"seed": 4})).network.state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.7.weight"], other["head.7.weight"])


def test_training_restores_the_state_of_torchs_generator(draw_discs):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train_on(draw_discs(32, 0), draw_discs(16, 1), train=TRAIN.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)


def test_every_epoch_is_reported_and_the_best_one_is_returned(draw_discs):
    seen = []
    trained = train_on(draw_discs(64, 0), draw_discs(16, 1), on_epoch=seen.append)
    assert tuple(seen) == trained.log
    assert [record.epoch for record in trained.log] == [1, 2]
    assert trained.best_epoch == min(trained.log, key=lambda record: record.rmse).epoch
    assert all(record.images_per_s > 0 and record.learning_rate > 0 for record in trained.log)


def test_fewer_rows_than_a_batch_train(draw_discs):
    trained = train_on(draw_discs(10, 0), draw_discs(4, 1))
    assert np.isfinite(trained.log[-1].rmse)


def test_8_bit_pixels_train(draw_discs):
    pixels, labels = draw_discs(32, 0)
    rows = (pixels.astype(np.uint8), labels)
    assert np.isfinite(train_on(rows, rows).log[-1].rmse)


def test_training_starts_from_the_weights_of_an_earlier_network(draw_discs, trained, tmp_path):
    path = tmp_path / "body.pth"
    torch.save(trained.network.body.state_dict(), path)
    rows, validation = draw_discs(64, 2), draw_discs(16, 1)
    section = NETWORK.model_copy(update={"weights": str(path)})
    slow = TRAIN.model_copy(update={"learning_rate": 1e-9, "epochs": 1})
    weight = train_on(rows, validation, network=section, train=slow).network.body.get_submodule("conv1").weight
    torch.testing.assert_close(weight, trained.network.body.get_submodule("conv1").weight, atol=1e-6, rtol=0)


def test_missing_weights_stop_training_before_it_starts(draw_discs, tmp_path):
    section = NETWORK.model_copy(update={"weights": str(tmp_path / "nowhere.pth")})
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        train_on(draw_discs(32, 0), draw_discs(16, 1), network=section)


def test_a_diverging_loss_says_what_to_change(draw_discs):
    wild = TRAIN.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"(?=.*\bepoch \d of 2\b)(?=.*\btrain\.learning_rate\b)"):
        train_on(draw_discs(64, 0), draw_discs(16, 1), train=wild)


def test_rows_without_a_label_are_refused(draw_discs):
    pixels, labels = draw_discs(32, 0)
    labels[[3, 5]] = np.nan
    with pytest.raises(TrainingError, match=r"(?=.*\b2 of 32\b)(?=.*\btraining\b)"):
        train_on((pixels, labels), draw_discs(16, 1))
    with pytest.raises(TrainingError, match=r"(?=.*\b2 of 32\b)(?=.*\bvalidation\b)"):
        train_on(draw_discs(16, 1), (pixels, labels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y: (p[:, :8], y), r"(?=.*\(32, 8, 16, 3\))(?=.*network\.level = 16\b)"),
        (lambda p, y: (p, y[:-1]), r"\(31,\)"),
        (lambda p, y: (p.astype(np.float64), y), r"(?=.*\bfloat64\b)(?=.*\buint8\b)(?=.*\bfloat32\b)"),
        (lambda p, y: (p[:1], y[:1]), r"(?=.*\b1 training\b)(?=.*\b2\b)"),
        (lambda p, y: (p, np.full_like(y, 8.9)), r"(?=.*\b32\b)(?=.*\blabels\b)(?=.*\b8\.9\b)"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(draw_discs, change, message):
    with pytest.raises(TrainingError, match=message):
        train_on(change(*draw_discs(32, 0)), draw_discs(16, 1))


def test_targets_are_learnt_together_and_missing_labels_are_ignored(draw_discs):
    (pixels, labels), (unseen, unseen_labels) = draw_discs(384, 0), draw_discs(96, 1)
    # a second label at another mean and scale, missing for every other object
    second = 10 - 2 * (labels - 8.9)
    second[::2] = np.nan
    both = np.stack([labels, second], axis=1)
    validation = np.stack([unseen_labels, 10 - 2 * (unseen_labels - 8.9)], axis=1)
    train = TRAIN.model_copy(update={"epochs": 8, "further_targets": ("lgm_tot_p50",)})
    trained = train_on((pixels, both), (unseen, validation), train=train)
    np.testing.assert_allclose(trained.label_scales[1].mean, np.nanmean(second))
    model = build_model(
        trained,
        model_id="two",
        network=NETWORK,
        train=train,
        scale=CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296),
        training_set="",
        snapshot="",
    )
    predicted = predict(model, unseen, device="cpu")
    assert Regression.of(unseen_labels, predicted.mean).rmse < 0.5 * unseen_labels.std()
    assert Regression.of(validation[:, 1], predicted.further["lgm_tot_p50"]).rmse < 0.5 * validation[:, 1].std()
    assert np.isnan(predicted.sigma).all()


def test_a_predicted_sigma_follows_the_scatter(draw_discs):
    rng = np.random.default_rng(5)

    def noisy(n, seed):
        pixels, labels = draw_discs(n, seed)
        # brighter corners mark the objects whose labels are noisy
        is_noisy = rng.random(n) < 0.5
        pixels[is_noisy, :4, :4] = 250
        return pixels, labels + rng.normal(0, np.where(is_noisy, 0.2, 0.02)), is_noisy

    pixels, labels, _ = noisy(768, 0)
    unseen, unseen_labels, is_noisy = noisy(128, 1)
    train = TRAIN.model_copy(update={"epochs": 16, "loss": "gaussian"})
    trained = train_on((pixels, labels), (unseen, unseen_labels), train=train)
    model = build_model(
        trained,
        model_id="sigma",
        network=NETWORK,
        train=train,
        scale=CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296),
        training_set="",
        snapshot="",
    )
    sigma = predict(model, unseen, device="cpu").sigma
    assert np.median(sigma[is_noisy]) > 1.5 * np.median(sigma[~is_noisy])


def test_training_stops_without_improvement(draw_discs):
    rows = draw_discs(64, 0)
    # validation labels unrelated to the images: no epoch is better than the first ones
    unseen, labels = draw_discs(64, 1)
    train = TRAIN.model_copy(update={"epochs": 60, "patience": 2})
    trained = train_on(rows, (unseen, labels[::-1].copy()), train=train)
    assert len(trained.log) == trained.best_epoch + 2 < 60


def test_the_method_of_the_paper_freezes_the_body_at_first(draw_discs, trained, tmp_path):
    path = tmp_path / "body.pth"
    torch.save(trained.network.body.state_dict(), path)
    section = NETWORK.model_copy(update={"weights": str(path)})
    paper = TRAIN.model_copy(update={"method": "wu_boada_2019", "learning_rate": 0.1})
    for epochs, is_still in ((2, True), (3, False)):
        after = train_on(
            draw_discs(96, 2), draw_discs(16, 1), network=section, train=paper.model_copy(update={"epochs": epochs})
        )
        before, now = (result.network.body.get_submodule("conv1").weight for result in (trained, after))
        assert torch.equal(before, now) is is_still or after.best_epoch < 3


def test_labels_that_do_not_fit_the_targets_are_refused(draw_discs):
    pixels, labels = draw_discs(32, 0)
    two = TRAIN.model_copy(update={"further_targets": ("lgm_tot_p50",)})
    with pytest.raises(TrainingError, match=r"(?=.*\b1 columns?\b)(?=.*\boh_p50, lgm_tot_p50\b)"):
        train_on((pixels, labels), draw_discs(16, 1), train=two)
    none = np.stack([labels, np.full_like(labels, np.nan)], axis=1)
    with pytest.raises(TrainingError, match=r"^(?!.*\boh_p50\b).*\blgm_tot_p50\b"):
        train_on((pixels, none), (pixels, none), train=two)
