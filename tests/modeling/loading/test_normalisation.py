import numpy as np
import pytest
import torch

from modeling.loading.normalisation import LabelScale, Normalisation, PixelMoments
from schemas.errors import TrainingError

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8))


def test_moments_agree_with_numpy():
    measured = Normalisation.from_moments(PixelMoments.of(PIXELS))
    flat = PIXELS.numpy().reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(measured.mean_counts, flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(measured.std_counts, flat.std(axis=0), rtol=1e-12)


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_sums_do_not_depend_on_the_block_size(rows):
    parts = [PixelMoments.of(block) for block in torch.split(PIXELS, rows)]
    assert sum(parts, PixelMoments()) == PixelMoments.of(PIXELS)


def test_a_constant_band_is_refused():
    pixels = PIXELS.clone()
    pixels[..., 1] = 5
    with pytest.raises(TrainingError, match=r"(?=.*\bband 1\b)(?=.*\bvariance\b)(?=.*\b0\b)"):
        Normalisation.from_moments(PixelMoments.of(pixels))


def test_pixels_that_are_nan_are_refused():
    pixels = PIXELS.float()
    pixels[3, 2, 1, 2] = torch.nan
    with pytest.raises(TrainingError, match=r"(?=.*\bband 2\b)(?=.*\bvariance\b)(?=.*\bnan\b)"):
        Normalisation.from_moments(PixelMoments.of(pixels))


def test_restoring_inverts_standardising():
    labels = np.array([8.5, 8.9, 9.3])
    scale = LabelScale.of(labels)
    assert scale.mean == pytest.approx(8.9)
    np.testing.assert_allclose(scale.standardise(labels), [-1.224745, 0, 1.224745], atol=1e-6)
    np.testing.assert_allclose(scale.restore(scale.standardise(labels)), labels, atol=1e-7)


def test_equal_labels_are_refused():
    with pytest.raises(TrainingError, match=r"(?=.*\b3\b)(?=.*\blabels\b)(?=.*\b8\.9\b)"):
        LabelScale.of(np.full(3, 8.9))
