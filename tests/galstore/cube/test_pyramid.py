from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given

from galstore.cube.pyramid import build_pyramid
from schemas.cube import LEVEL, LEVELS


def area_average(pixels: np.ndarray, side: int) -> np.ndarray:
    """Independent of the code under test: numpy's mean over tiles, in float64."""
    shrink = 128 // side
    return pixels.reshape(-1, side, shrink, side, shrink, 3).astype(np.float64).mean(axis=(2, 4))


PRECISION_COUNTS = {128: 0.0, 64: 0.5, 32: 0.5, 16: 0.0, 8: 0.0, 4: 1 / 512, 2: 1 / 512, 1: 1 / 512}


@given(hnp.arrays(np.uint8, (2, 128, 128, 3)))
def test_every_level_is_the_area_average_within_the_stated_precision(pixels: np.ndarray) -> None:
    for side, stored in build_pyramid(pixels).items():
        error = np.abs(stored * LEVEL[side].scale_factor - area_average(pixels, side))
        assert error.max() <= PRECISION_COUNTS[side]


def test_levels_have_the_layouts_shapes_and_types() -> None:
    levels = build_pyramid(np.zeros((3, 128, 128, 3), dtype=np.uint8))
    assert tuple(levels) == LEVELS
    for side, stored in levels.items():
        assert stored.shape == (3, side, side, 3)
        assert stored.dtype == LEVEL[side].dtype


def test_brightest_image_does_not_overflow() -> None:
    levels = build_pyramid(np.full((1, 128, 128, 3), 255, dtype=np.uint8))
    assert all((stored * LEVEL[side].scale_factor == 255).all() for side, stored in levels.items())


def test_rounding_does_not_brighten_an_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 60, (50, 128, 128, 3), dtype=np.uint8)
    levels = build_pyramid(pixels)
    for side, stored in levels.items():
        assert (stored * LEVEL[side].scale_factor).mean() == pytest.approx(pixels.mean(), abs=0.02)


def test_a_stack_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"(?=.*\b128, 128\b)(?=.*\(2, 64, 64, 3\))"):
        build_pyramid(np.zeros((2, 64, 64, 3), dtype=np.uint8))
