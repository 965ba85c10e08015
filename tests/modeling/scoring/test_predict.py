import numpy as np
import pytest
import torch

from modeling.loading.augmentation import dihedral
from modeling.scoring.predict import predict
from schemas.errors import StoreError


@pytest.fixture(scope="module")
def pixels(draw_discs):
    return draw_discs(21, 7)[0]


def test_eight_views_give_the_same_value_for_a_turned_galaxy(model, pixels):
    expected = predict(model, pixels, device="cpu")
    for view in range(8):
        turned = dihedral(torch.from_numpy(pixels).permute(0, 3, 1, 2), view).permute(0, 2, 3, 1).numpy()
        found = predict(model, turned, device="cpu")
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
        np.testing.assert_allclose(found.view_spread, expected.view_spread, atol=1e-5)
        np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-4)
    assert expected.embedding.shape == (21, model.network.n_features)
    assert expected.embedding.std(axis=0).max() > 0


@pytest.mark.parametrize("batch_size", [1, 4, 21, 256])
def test_the_batch_size_does_not_change_the_answer(model, pixels, batch_size):
    expected = predict(model, pixels, batch_size=7, device="cpu")
    found = predict(model, pixels, batch_size=batch_size, device="cpu")
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(found.view_spread, expected.view_spread, atol=1e-5)


def test_mean_and_spread_are_those_of_single_views(model, pixels):
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    singles = [
        predict(model, dihedral(images, view).permute(0, 2, 3, 1).numpy(), views=1, device="cpu").mean
        for view in range(8)
    ]
    both = predict(model, pixels, device="cpu")
    np.testing.assert_allclose(both.mean, np.mean(singles, axis=0), atol=1e-5)
    np.testing.assert_allclose(both.view_spread, np.std(singles, axis=0), atol=1e-5)


def test_predictions_are_in_label_units(model, pixels):
    assert np.all(np.abs(predict(model, pixels, device="cpu").mean - 8.9) < 1)


def test_one_view_has_no_spread(model, pixels):
    assert np.isnan(predict(model, pixels, views=1, device="cpu").view_spread).all()


def test_no_objects_give_empty_predictions(model, pixels):
    empty = predict(model, pixels[:0], device="cpu")
    assert empty.mean.shape == empty.view_spread.shape == (0,)


def test_pixels_of_another_level_are_refused(model):
    with pytest.raises(StoreError, match=r"(?=.*\(2, 32, 32, 3\))(?=.*\(object, 16, 16, 3\))(?=.*\blevel 16\b)"):
        predict(model, np.zeros((2, 32, 32, 3), np.uint8))


def test_another_number_of_views_is_refused(model, pixels):
    with pytest.raises(ValueError, match=r"(?=.*\bviews\b.*\b4\b)(?=.*\b8\b)(?=.*\b1\b)"):
        predict(model, pixels, views=4)
