from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from galstore.features.splits import assign_split, hash_share
from schemas.features import Split

IDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=50, unique=True)


def splitmix64(value: int, seed: int) -> float:
    """Compute the published algorithm with unbounded integers, independent of overflow in numpy."""
    mask = 2**64 - 1
    state = (value + 0x9E3779B97F4A7C15 * (seed + 1)) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    state ^= state >> 31
    return (state >> 11) * 2.0**-53


@given(IDS, st.integers(0, 1000))
def test_hash_is_splitmix64(ids: list[int], seed: int) -> None:
    assert hash_share(np.array(ids, dtype=np.int64), seed=seed).tolist() == [splitmix64(i, seed) for i in ids]


@given(IDS, st.randoms())
def test_split_depends_on_the_id_alone(ids: list[int], random) -> None:
    array = np.array(ids, dtype=np.int64)
    order = np.array(random.sample(range(len(ids)), len(ids)))
    whole = assign_split(array, train=0.6, validation=0.2)
    assert (assign_split(array[order], train=0.6, validation=0.2) == whole[order]).all()
    assert (assign_split(array[:1], train=0.6, validation=0.2) == whole[:1]).all()


def test_shares_match_and_seeds_are_independent() -> None:
    ids = np.arange(1237648702973411443, 1237648702973411443 + 100_000)
    split = assign_split(ids, train=0.6, validation=0.2)
    assert np.abs(np.bincount(split) / ids.size - [0.6, 0.2, 0.2]).max() < 0.005
    other = assign_split(ids, train=0.6, validation=0.2, seed=1)
    both_train = np.mean((split == Split.TRAIN) & (other == Split.TRAIN))
    assert abs(both_train - 0.36) < 0.01


def test_no_test_split_without_a_test_share() -> None:
    split = assign_split(np.arange(1000), train=0.8, validation=0.2)
    assert set(split.tolist()) == {Split.TRAIN, Split.VALIDATION}
