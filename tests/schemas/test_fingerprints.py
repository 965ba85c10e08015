from schemas.fingerprints import fingerprint
from schemas.recipes import NetworkSection, TrainSection


def test_a_fingerprint_follows_from_the_recipe():
    one = fingerprint(network=NetworkSection(), train=TrainSection(), training_set="ab")
    assert one == fingerprint(training_set="ab", train=TrainSection(), network=NetworkSection())
    assert one != fingerprint(network=NetworkSection(), train=TrainSection(seed=1), training_set="ab")
    assert one != fingerprint(network=NetworkSection(), train=TrainSection(), training_set="ac")


def test_a_fingerprint_is_the_start_of_a_sha256_of_canonical_json():
    # sha256sum of {"target":"oh_p50"}
    assert fingerprint(target="oh_p50") == "a22d962f2b8c"
