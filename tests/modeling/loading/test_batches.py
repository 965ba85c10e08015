import numpy as np
import pytest
import torch

from modeling.loading.augmentation import dihedral
from modeling.loading.batches import FloatBuffer, TrainingBatches
from modeling.loading.pixels import ResidentPixels, measure_normalisation, place_pixels

SIDE = 8
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, SIDE, SIDE, 3), dtype=np.uint8))
LABELS = torch.arange(50, dtype=torch.float32)[:, None]
NORMALISATION = measure_normalisation(ResidentPixels(PIXELS))


def batches(**changes):
    settings = {"normalisation": NORMALISATION, "batch_size": 16, "seed": 5} | changes
    return TrainingBatches(ResidentPixels(PIXELS), LABELS, **settings)


def epoch_of(source, epoch):
    return [(images.clone(), labels.clone()) for images, labels in source.epoch(epoch)]


def test_an_epoch_holds_every_row_once_in_equal_parts():
    parts = batches().order(1)
    assert [len(part) for part in parts] == [13, 13, 12, 12]
    assert sorted(np.concatenate(parts)) == list(range(50))


def test_the_order_follows_from_seed_and_epoch_alone():
    source = batches()
    list(source.epoch(1))
    np.testing.assert_array_equal(np.concatenate(source.order(2)), np.concatenate(batches().order(2)))
    assert not np.array_equal(np.concatenate(source.order(1)), np.concatenate(source.order(2)))
    assert not np.array_equal(np.concatenate(source.order(1)), np.concatenate(batches(seed=6).order(1)))


def test_batches_are_a_pure_function_of_seed_and_epoch():
    for (images, labels), (same_images, same_labels) in zip(
        epoch_of(batches(), 3), epoch_of(batches(), 3), strict=True
    ):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_images_match_their_labels_and_are_views_of_the_normalised_pixels():
    mean, std = (torch.tensor(values).float() for values in (NORMALISATION.mean_counts, NORMALISATION.std_counts))
    for images, labels in batches().epoch(0):
        for image, label in zip(images, labels, strict=True):
            expected = ((PIXELS[int(label)].float() - mean) / std).permute(2, 0, 1)
            views = [torch.rot90(side, k, (1, 2)) for side in (expected, expected.flip(2)) for k in range(4)]
            assert min((image - view).abs().max().item() for view in views) < 1e-5


def test_batches_are_channels_last_and_share_one_buffer():
    pointers = {images.data_ptr() for images, _ in batches().epoch(0)}
    assert len(pointers) == 1
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in batches().epoch(0))


def test_fewer_rows_than_a_batch_make_one_batch():
    assert [len(labels) for _, labels in batches(batch_size=64).epoch(0)] == [50]


def test_no_batch_has_a_single_row():
    few = TrainingBatches(ResidentPixels(PIXELS[:3]), LABELS[:3], normalisation=NORMALISATION, batch_size=2, seed=0)
    assert [len(labels) for _, labels in few.epoch(0)] == [3]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_buffer_normalises_as_the_plain_expression(dtype):
    counts = PIXELS.numpy()[:4].astype(dtype)
    buffer = FloatBuffer(NORMALISATION, (6, SIDE, SIDE, 3), torch.device("cpu"))
    buffer.images(4).copy_(torch.from_numpy(counts).permute(0, 3, 1, 2))
    plain = (counts.astype(np.float64) - NORMALISATION.mean_counts) / NORMALISATION.std_counts
    np.testing.assert_allclose(buffer.normalise(4).permute(0, 2, 3, 1).numpy(), plain, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_are_written_in_their_views(dtype):
    views = np.array([0, 1, 4, 4, 7])
    buffer = FloatBuffer(NORMALISATION, (6, SIDE, SIDE, 3), torch.device("cpu"))
    written = buffer.write(PIXELS[:5].to(dtype), views)
    plain = (PIXELS[:5].double() - torch.tensor(NORMALISATION.mean_counts)) / torch.tensor(NORMALISATION.std_counts)
    for image, view, found in zip(plain.permute(0, 3, 1, 2), views.tolist(), written, strict=True):
        torch.testing.assert_close(found, dihedral(image[None], view)[0].float(), atol=1e-5, rtol=0)


def test_pixels_on_a_cpu_are_not_copied():
    pixels = PIXELS.numpy()
    assert np.shares_memory(place_pixels(pixels, torch.device("cpu"))._pixels.numpy(), pixels)


def test_read_only_pixels_are_copied():
    pixels = PIXELS.numpy().copy()
    pixels.flags.writeable = False
    placed = place_pixels(pixels, torch.device("cpu"))._pixels
    assert not np.shares_memory(placed.numpy(), pixels)
    np.testing.assert_array_equal(placed.numpy(), pixels)
