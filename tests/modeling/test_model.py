import pytest

from modeling.model import model_id
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.errors import StoreError
from schemas.recipes import NetworkSection, TrainSection


def test_a_model_id_follows_from_the_recipe():
    one = model_id(network=NetworkSection(), train=TrainSection(), training_set="ab")
    assert one == model_id(training_set="ab", train=TrainSection(), network=NetworkSection())
    assert one != model_id(network=NetworkSection(), train=TrainSection(seed=1), training_set="ab")
    assert one != model_id(network=NetworkSection(), train=TrainSection(), training_set="ac")


def test_a_model_id_is_the_start_of_a_sha256_of_canonical_json():
    # sha256sum of {"target":"oh_p50"}
    assert model_id(target="oh_p50") == "a22d962f2b8c"


def test_cutouts_of_another_scale_rule_are_refused(model):
    model.require_scale(CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296))
    with pytest.raises(StoreError, match=r"trained on cutouts of scale rule 'fixed'.*these have 'petro_r90'"):
        model.require_scale(CutoutScale(rule=ScaleRule.PETRO_R90))
    with pytest.raises(StoreError, match=r"0.396 arcsec/px\): galaxies would appear at another size"):
        model.require_scale(CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.396))
