import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.loading.augmentation import N_VIEWS, dihedral, plan_views, write_views

BATCH = torch.arange(2 * 3 * 5 * 5).reshape(2, 3, 5, 5)
VIEW = st.integers(0, N_VIEWS - 1)


def test_the_eight_views_of_an_asymmetric_image_all_differ():
    images = {tuple(dihedral(BATCH, view).flatten().tolist()) for view in range(N_VIEWS)}
    assert len(images) == 8


@given(VIEW, VIEW)
def test_two_views_in_a_row_are_a_view(first, second):
    both = dihedral(dihedral(BATCH, first), second)
    assert sum(torch.equal(both, dihedral(BATCH, view)) for view in range(N_VIEWS)) == 1


def test_views_are_those_of_numpy():
    image = BATCH[0, 0].numpy()
    expected = {0: image, 1: image[:, ::-1], 2: image[::-1], 3: np.rot90(image, 2), 4: image.T, 5: np.rot90(image)}
    for view, turned in expected.items():
        np.testing.assert_array_equal(dihedral(BATCH, view)[0, 0].numpy(), turned)


def test_a_ninth_view_is_refused():
    with pytest.raises(ValueError, match=r"(?=.*\bview\b.*\b8\b)(?=.*\b7\b)"):
        dihedral(BATCH, 8)


@given(st.integers(1, 300), st.integers(0, 2**32))
def test_a_plan_gives_every_image_a_view_in_order(n, seed):
    plan = plan_views(n, np.random.default_rng(seed))
    assert plan.shape == (n,)
    assert np.all(np.diff(plan) >= 0)
    assert set(plan.tolist()) <= set(range(N_VIEWS))


def test_all_views_are_drawn_equally_often():
    rng = np.random.default_rng(0)
    counts = sum(np.bincount(plan_views(64, rng), minlength=N_VIEWS) for _ in range(200))
    # 12,800 draws over 8: mean 1,600, standard deviation 37
    assert np.abs(counts - 1600).max() < 5 * 37


@settings(deadline=None)
@given(st.integers(0, 9), st.sampled_from([1, 2, 5, 32]), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_one_pass_writes_what_turning_and_normalising_give(n, side, n_bands, n_threads, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 256, (n, side, side, n_bands), dtype=np.uint8)
    views, (scale, offset) = rng.integers(0, N_VIEWS, n), rng.normal(size=(2, n_bands)).astype(np.float32)
    written = np.full(counts.shape, np.nan, dtype=np.float32)
    write_views(counts, views, scale, offset, written, n_threads)
    for image, view, found in zip(counts, views, written, strict=True):
        turned = dihedral(torch.from_numpy(image[None]).permute(0, 3, 1, 2), int(view))[0].permute(1, 2, 0).numpy()
        assert np.array_equal(found, turned * scale + offset)
