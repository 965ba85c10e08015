import pytest

from schemas.cutouts import Composite, CutoutScale, ScaleRule
from schemas.errors import StoreError


def test_cutouts_of_another_scale_rule_are_refused(model):
    model.require_scale(CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296))
    with pytest.raises(StoreError, match=r"(?=.*'fixed')(?=.*'petro_r90')"):
        model.require_scale(CutoutScale(rule=ScaleRule.PETRO_R90))
    with pytest.raises(StoreError, match=r"\b0\.396\b"):
        model.require_scale(CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.396))


def test_cutouts_of_another_composite_are_refused_even_with_equal_bands(model):
    for composite in (Composite.LS_DR9, Composite.LEGACY_SDSS):
        scale = CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296, composite=composite)
        with pytest.raises(StoreError, match=f"(?=.*'skyserver')(?=.*'{composite.value}')"):
            model.require_scale(scale)
