from __future__ import annotations

import math

import pytest

from schemas.cutouts import CutoutScale, ScaleRule
from schemas.errors import CatalogError, ContractError


def test_petro_rule_keeps_the_galaxy_the_same_size_in_the_frame() -> None:
    scale = CutoutScale(rule=ScaleRule.PETRO_R90)
    # 128 px x scale = 2 petroR90 / 0.396 arcsec, whatever the galaxy
    for size_arcsec in (2.0, 5.0, 20.0):
        assert scale.of(size_arcsec) * 128 == pytest.approx(2 * size_arcsec / 0.396)


@pytest.mark.parametrize("size", [None, math.nan, 0.0, -9999.0])
def test_petro_rule_without_a_size_is_refused(size: float | None) -> None:
    with pytest.raises(CatalogError, match=r"(?=.*petro_r90)(?=.*petroR90_r)"):
        CutoutScale(rule=ScaleRule.PETRO_R90).of(size)


def test_prepared_images_of_unknown_size_have_an_unknown_scale() -> None:
    assert math.isnan(CutoutScale(rule=ScaleRule.PETRO_R90, prepared=True).of(None))


@pytest.mark.parametrize("scale_arcsec", [0.001, 3000])
def test_a_scale_that_the_service_would_clamp_is_refused(scale_arcsec: float) -> None:
    with pytest.raises(ContractError, match=rf"(?=.*\b{scale_arcsec}\b)(?=.*\b0\.015-2400\b)"):
        CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=scale_arcsec)
