import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.loading import pixels as module
from modeling.loading.batches import TrainingBatches
from modeling.loading.pixels import ResidentPixels, StreamedPixels, choose_residence, measure_normalisation, plan_order
from modeling.training.train import train_network
from schemas.cube import BLOCK_ROWS
from schemas.errors import TrainingError
from schemas.recipes import NetworkSection, TrainSection

SIDE = 8
N_BLOCKS = 40


def drawn_rows(n, seed):
    return np.random.default_rng(seed).choice(N_BLOCKS * BLOCK_ROWS, n, replace=False)


def image_of(rows):
    """Return pixels that depend on the row alone."""
    values = (rows[:, None] * 7919 + np.arange(SIDE * SIDE * 3)) % 251
    return values.reshape(-1, SIDE, SIDE, 3).astype(np.uint8)


def write_images(rows, out):
    out[...] = image_of(rows)


def streamed(rows, read=write_images, **options):
    return StreamedPixels(read, rows, side_px=SIDE, dtype=torch.uint8, n_bands=3, **options)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 400), st.integers(0, 5), st.integers(0, 5), st.integers(1, 4), st.integers(2, 70))
def test_streamed_pixels_are_the_resident_ones_in_any_order(n, seed, epoch, n_threads, batch_size):
    rows = drawn_rows(n, seed)
    order = np.array_split(plan_order(rows, seed, epoch), max(1, n // batch_size))
    resident = ResidentPixels(torch.from_numpy(image_of(rows)), rows)
    for found, expected in zip(
        streamed(rows, n_threads=n_threads).batches(order), resident.batches(order), strict=True
    ):
        assert torch.equal(found, expected)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.integers(0, 9), st.integers(1, 9))
def test_an_epoch_uses_every_object_once_and_each_window_of_blocks_once(n, seed, epoch):
    rows = drawn_rows(n, seed)
    order = plan_order(rows, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))
    blocks = rows[order] // BLOCK_ROWS
    seen = list(dict.fromkeys(blocks.tolist()))
    windows = {block: place // module.WINDOW_BLOCKS for place, block in enumerate(seen)}
    assert np.all(np.diff([windows[block] for block in blocks.tolist()]) >= 0)


def test_few_blocks_are_shuffled_as_a_whole():
    order = plan_order(np.arange(4 * BLOCK_ROWS), 0, 1)
    # of two neighbours, about one in four comes from the same of four blocks
    same = np.mean(order[1:] // BLOCK_ROWS == order[:-1] // BLOCK_ROWS)
    assert 0.2 < same < 0.3


def test_memory_holds_at_most_two_windows_and_the_blocks_of_the_batch():
    rows = np.arange(N_BLOCKS * BLOCK_ROWS)[::50]
    lock, read = threading.Lock(), []

    def reading(chosen, out):
        with lock:
            read.append(int(chosen[0]) // BLOCK_ROWS)
        write_images(chosen, out)

    order = np.array_split(plan_order(rows, 3, 1), 60)
    seen = []
    for chosen, _ in zip(order, streamed(rows, reading).batches(order), strict=True):
        seen.extend(set((rows[chosen] // BLOCK_ROWS).tolist()))
        assert len(read) <= len(set(seen)) + 2 * module.WINDOW_BLOCKS
    assert sorted(read) == list(range(N_BLOCKS))


def test_blocks_are_read_during_the_work_of_the_network():
    rows = np.arange(6 * BLOCK_ROWS)[::64]

    def slow(chosen, out):
        time.sleep(0.05)
        write_images(chosen, out)

    order = np.array_split(plan_order(rows, 0, 1), 6)
    batches = streamed(rows, slow).batches(order)
    next(batches)
    time.sleep(0.3)
    started = time.perf_counter()
    assert len(list(batches)) == 5
    assert time.perf_counter() - started < 0.1


def test_the_next_epoch_is_read_during_the_last_batches():
    rows = np.arange(30 * BLOCK_ROWS)[::64]
    resident, read = ResidentPixels(torch.from_numpy(image_of(rows)), rows), []

    def reading(chosen, out):
        read.append(int(chosen[0]) // BLOCK_ROWS)
        write_images(chosen, out)

    pixels = streamed(rows, reading)
    orders = [np.array_split(plan_order(rows, 0, epoch), 9) for epoch in (1, 2, 3)]
    for order, next_order in zip(orders, [*orders[1:], ()], strict=True):
        for found, expected in zip(pixels.batches(order, next_order), resident.batches(order), strict=True):
            assert torch.equal(found, expected)
        # blocks read in advance are used, not read twice
        assert len(read) <= 3 * 30
    assert sorted(read) == sorted(3 * list(range(30)))
    # an epoch that was not announced, and one that differs from the announced order
    for found, expected in zip(pixels.batches(orders[0], orders[1][:1]), resident.batches(orders[0]), strict=True):
        assert torch.equal(found, expected)
    for found, expected in zip(pixels.batches(orders[2][-2:]), resident.batches(orders[2][-2:]), strict=True):
        assert torch.equal(found, expected)


def test_a_read_error_reaches_the_training():
    def broken(*_):
        raise OSError("the disk is gone")

    rows = drawn_rows(30, 0)
    with pytest.raises(OSError, match="the disk is gone"):
        next(streamed(rows, broken).batches([np.arange(30)]))


def test_moments_do_not_depend_on_the_source():
    rows = drawn_rows(300, 1)
    resident = ResidentPixels(torch.from_numpy(image_of(rows)), rows)
    assert measure_normalisation(resident) == measure_normalisation(streamed(rows))


def test_losses_are_the_same_bits_from_every_source():
    network, train = NetworkSection(arch="resnet10w32", level=8), TrainSection(epochs=2, batch_size=32, device="cpu")
    rows, unseen = drawn_rows(150, 2), drawn_rows(30, 3)
    labels, unseen_labels = (8.9 + 1e-5 * values for values in (rows, unseen))
    logs = []
    for source in (
        lambda r: ResidentPixels(torch.from_numpy(image_of(r)), r),
        streamed,
        lambda r: streamed(r, n_threads=5),
    ):
        trained = train_network(
            pixels=source(rows),
            labels=labels,
            validation_pixels=source(unseen),
            validation_labels=unseen_labels,
            network=network,
            train=train,
        )
        logs.append([(record.train_loss, record.rmse) for record in trained.log])
    assert logs[0] == logs[1] == logs[2]


def test_an_epoch_can_resume_at_any_step():
    rows = drawn_rows(90, 4)
    pixels, labels = streamed(rows), torch.arange(90.0)[:, None]
    made = TrainingBatches(pixels, labels, normalisation=measure_normalisation(pixels), batch_size=16, seed=1)
    whole = [(images.clone(), true.clone()) for images, true in made.epoch(2)]
    rest = [(images.clone(), true.clone()) for images, true in made.epoch(2, first_step=4)]
    for expected, found in zip(whole[4:], rest, strict=True):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_pixels_are_streamed_if_memory_is_too_small():
    assert choose_residence(1000) == "resident"
    assert choose_residence(10**15) == "streamed"
    assert choose_residence(1000, "streamed") == "streamed"
    with pytest.raises(TrainingError, match=r"\b1000000\.0 GB"):
        choose_residence(10**15, "resident")
