import io
import sys

import numpy as np
import pytest
from PIL import Image

from galstore.emulator.sky.drawing import PixelGrid, draw_empty_sky, draw_galaxy, galaxy_light, require_galsim
from galstore.emulator.sky.simulated import SimulatedSky
from schemas.errors import ContractError


def pixels(jpeg: bytes) -> np.ndarray:
    """Decode with Pillow, while the drawing encodes with simplejpeg."""
    return np.asarray(Image.open(io.BytesIO(jpeg)), dtype=np.float64)


def cutout(sky: SimulatedSky, object_id: int, scale_arcsec: float = 0.296, side_px: int = 128) -> bytes:
    return draw_galaxy(sky.appearance(object_id), scale_arcsec=scale_arcsec, width_px=side_px, height_px=side_px)


@pytest.fixture(scope="module")
def sky() -> SimulatedSky:
    return SimulatedSky(seed=6, n_galaxies=80, n_new=0)


@pytest.fixture(scope="module")
def cutouts(sky: SimulatedSky) -> list[bytes]:
    return [cutout(sky, int(object_id)) for object_id in sky.object_ids]


def test_jpegs_are_as_large_as_the_surveys(cutouts: list[bytes]) -> None:
    sizes = [len(jpeg) for jpeg in cutouts]
    assert min(sizes) > 1_500
    assert 1_800 < np.median(sizes) < 3_000
    assert max(sizes) < 6_000


def test_light_is_spread_over_bands_as_in_the_survey(cutouts: list[bytes]) -> None:
    # 400 real cutouts: .057 .046 .039, scaled to fill more of the frame than at 0.296 arcsec per pixel
    means = np.mean([pixels(jpeg).mean((0, 1)) for jpeg in cutouts], axis=0) / 255
    np.testing.assert_allclose(means, (0.045, 0.039, 0.031), atol=0.012)
    assert means[0] > means[1] > means[2]


def test_few_pixels_are_exactly_black(cutouts: list[bytes]) -> None:
    black = [(pixels(jpeg) == 0).all(axis=-1).mean() for jpeg in cutouts]
    assert max(black) < 0.11


def test_the_same_request_gives_the_same_bytes(sky: SimulatedSky, cutouts: list[bytes]) -> None:
    larger_sky = SimulatedSky(seed=6, n_galaxies=5_000, n_new=30)
    assert [cutout(larger_sky, int(object_id)) for object_id in sky.object_ids[:5]] == cutouts[:5]


def test_a_smaller_frame_shows_the_middle_of_the_same_picture(sky: SimulatedSky) -> None:
    for object_id in sky.object_ids[:10].tolist():
        large = pixels(cutout(sky, object_id))[32:96, 32:96]
        small = pixels(cutout(sky, object_id, side_px=64))
        # noise is drawn anew for each frame, and has a spread of two counts
        assert np.abs(large - small).mean() < 4


def test_another_scale_shows_the_same_galaxy(sky: SimulatedSky) -> None:
    for object_id in sky.object_ids[:10].tolist():
        fine = pixels(cutout(sky, object_id, scale_arcsec=0.2, side_px=128))
        coarse = pixels(cutout(sky, object_id, scale_arcsec=0.4, side_px=64))
        halved = fine.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.corrcoef(halved.ravel(), coarse.ravel())[0, 1] > 0.97


def test_drawn_light_adds_up_to_the_magnitudes(sky: SimulatedSky) -> None:
    truth = sky.truth().set_index("object_id")
    for object_id in sky.object_ids[:20].tolist():
        light = galaxy_light(sky.appearance(object_id), PixelGrid(0.6, 512, 512)).sum(axis=(1, 2), dtype=float)
        magnitudes = 22.5 - 2.5 * np.log10(light)
        # the frame misses one or two per cent in the wings of bulge and seeing
        np.testing.assert_allclose(magnitudes, truth.loc[object_id, ["mag_i", "mag_r", "mag_g"]], atol=0.05)
        assert magnitudes[2] - magnitudes[1] == pytest.approx(truth.loc[object_id, "g_r"], abs=0.01)


def test_a_frame_may_be_wider_than_high(sky: SimulatedSky) -> None:
    jpeg = draw_galaxy(sky.appearance(int(sky.object_ids[0])), scale_arcsec=0.4, width_px=100, height_px=70)
    assert pixels(jpeg).shape == (70, 100, 3)


@pytest.mark.parametrize("scale_arcsec", [0.015, 0.5, 1.9, 2.1, 100, 2400])
def test_every_scale_that_the_service_allows_can_be_drawn(sky: SimulatedSky, scale_arcsec: float) -> None:
    assert pixels(cutout(sky, int(sky.object_ids[0]), scale_arcsec=scale_arcsec)).shape == (128, 128, 3)


def test_the_galaxy_sits_in_the_middle(cutouts: list[bytes]) -> None:
    mean = np.mean([pixels(jpeg).sum(axis=-1) for jpeg in cutouts], axis=0)
    brightest = np.unravel_index(mean.argmax(), mean.shape)
    assert np.abs(np.asarray(brightest) - 63.5).max() <= 1


def test_metal_poor_disks_are_bluer_in_the_picture() -> None:
    sky = SimulatedSky(seed=6, n_galaxies=1_000, n_new=0)
    ordered = sky.truth().sort_values("metallicity")["object_id"].tolist()

    def redness(object_ids: list[int]) -> float:
        stack = np.mean([pixels(cutout(sky, object_id)) for object_id in object_ids], axis=0)[44:84, 44:84].mean((0, 1))
        return float(stack[0] / stack[2])

    assert redness(ordered[-25:]) > 1.3 * redness(ordered[:25])


def test_empty_sky_is_dim_and_repeats() -> None:
    first, repeated, other = (draw_empty_sky(seed, scale_arcsec=0.4, width_px=128, height_px=128) for seed in (1, 1, 2))
    assert first == repeated != other
    assert 1 < pixels(first).std() < 25
    assert np.median(pixels(first)) < 10


def test_missing_galsim_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules marks a module that cannot be imported
    monkeypatch.setitem(sys.modules, "galsim", None)
    with pytest.raises(ContractError, match=r"galstore\[emulator\]"):
        require_galsim()
