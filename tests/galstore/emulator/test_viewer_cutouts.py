"""Responses of the emulated Legacy Surveys viewer."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import requests
from PIL import Image

from galstore.emulator.server import build_app
from galstore.emulator.sky.simulated import SimulatedSky
from tests.support.emulator import InlineDrawingPool, serve_in_thread

SKY = SimulatedSky(seed=5, n_galaxies=40, n_new=0)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve_in_thread(build_app(SKY, InlineDrawingPool())) as address:
        yield address


def cutout(url: str, **query: object) -> requests.Response:
    return requests.get(f"{url}/viewer/cutout.jpg", params=query, timeout=60)


def pixels_of(response: requests.Response) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(response.content)), dtype=float)


@pytest.fixture(scope="module")
def place() -> dict[str, float]:
    row = SKY.catalog().sort_values("petroMag_r").iloc[0]
    return {"ra": float(row["ra"]), "dec": float(row["dec"])}


def test_a_galaxy_is_deeper_and_redder_than_in_sdss(url: str, place: dict[str, float]) -> None:
    query = {**place, "pixscale": 0.296, "size": 128}
    deep, shallow = (pixels_of(cutout(url, **query, layer=layer)) for layer in ("ls-dr9", "sdss"))
    sdss = pixels_of(
        requests.get(f"{url}/dr14/SkyServerWS/ImgCutout/getjpeg", params={**place, "scale": 0.296}, timeout=60)
    )
    assert deep.shape == shallow.shape == sdss.shape == (128, 128, 3)
    # the sky between the galaxies has less noise, and the colours of the three differ
    corner = (slice(0, 16), slice(0, 16))
    assert deep[corner].std() < 0.7 * shallow[corner].std()
    for first, second in ((deep, shallow), (deep, sdss), (shallow, sdss)):
        assert np.abs(first - second).mean() > 1
    assert cutout(url, **query).content == cutout(url, **query, layer="ls-dr9").content


@pytest.mark.parametrize(("size", "side_px"), [(None, 256), (64, 64), (99_999, 3000)])
def test_sizes_are_silently_limited_to_3000_px(url: str, size: int | None, side_px: int) -> None:
    nowhere = {"ra": 10, "dec": -60} | ({} if size is None else {"size": size})
    response = cutout(url, **nowhere)
    assert response.status_code == 200
    assert pixels_of(response).shape[:2] == (side_px, side_px)
    assert pixels_of(response).std() < 1


@pytest.mark.parametrize("query", [{"ra": 1}, {"dec": 1}, {"ra": "12h", "dec": 1}, {"ra": 1, "dec": 91}])
def test_a_missing_or_wrong_position_is_400_with_a_text(url: str, query: dict[str, object]) -> None:
    response = cutout(url, **query)
    assert response.status_code == 400
    assert response.text == "Need ra,dec keywords"


def test_an_unknown_layer_is_200_with_a_text(url: str, place: dict[str, float]) -> None:
    response = cutout(url, **place, layer="ls-dr99")
    assert (response.status_code, response.text) == (200, "no such layer")
