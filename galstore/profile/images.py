"""Image quality of a survey, measured on a sample of bounded size.

Cutouts come without a point-spread function, and 8-bit composites are not calibrated. The quantities are therefore
proxies: they do not give the seeing in arcsec, but respond to blurred, noisier or differently rendered images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from galstore.cube.reader import Cube
from galstore.profile.distribution import Distribution
from schemas.cube import LEVEL
from schemas.cutouts import SIDE_PX, Status

MAX_IMAGES = 1024
"""Maximum size of a sample: 50 MB, read in half a second."""

CENTRE = slice(SIDE_PX // 4, 3 * SIDE_PX // 4)
BORDER_PX = 8


class Proxy(NamedTuple):
    """Scalar measure of image quality."""

    name: str
    title: str
    description: str


PROXIES = (
    Proxy(
        "fine_share",
        "fine structure",
        "share of the r-band variance in the central half that is lost when 2 x 2 pixels are averaged; worse seeing "
        "lowers it, noise raises it",
    ),
    Proxy("sky_level", "sky level", "median r-band count of the outer 8 pixels, mostly sky"),
    Proxy("sky_noise", "sky noise", "1.4826 x median absolute deviation of the same pixels, in counts"),
    Proxy("saturated_share", "saturated", "share of values at 255 counts in any band"),
)


def sample_rows(cube: Cube, start: int, stop: int, n_max: int = MAX_IMAGES) -> npt.NDArray[np.int64]:
    """Select at most `n_max` stored rows between `start` and `stop`, from whole chunks at fixed, even spacing."""
    if stop <= start:
        return np.empty(0, dtype=np.int64)
    chunk = LEVEL[SIDE_PX].chunk_rows
    first, last = start // chunk, -(-stop // chunk)
    n_chunks = min(last - first, max(1, n_max // chunk))
    chosen = np.unique(np.linspace(first, last - 1, n_chunks).round().astype(np.int64))
    rows = (chosen[:, None] * chunk + np.arange(chunk)).reshape(-1)
    rows = rows[(rows >= start) & (rows < stop)]
    status = cube.read_values(["state/status"], rows)["state/status"]
    return np.asarray(rows[status == Status.STORED][:n_max])


def measure_sharpness(cube: Cube, start: int, stop: int, n_max: int = MAX_IMAGES) -> dict[str, Distribution]:
    """Measure `PROXIES` on a sample of the stored images of a range of rows; return their distributions."""
    total = {proxy.name: Distribution() for proxy in PROXIES}
    rows = sample_rows(cube, start, stop, n_max)
    step = 4 * LEVEL[SIDE_PX].chunk_rows
    for first in range(0, rows.size, step):
        measured = measure_images(cube.read_pixels(SIDE_PX, rows[first : first + step]))
        total = {name: total[name] + Distribution.of(values) for name, values in measured.items()}
    return total


def measure_images(pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float64]]:
    """Measure `PROXIES` on images at 128 px, shape (object, y, x, band), bands i, r, g.

    The fine share of an image without variance is NaN.
    """
    red = pixels[..., 1].astype(np.float64)
    centre = red[:, CENTRE, CENTRE]
    n, side, _ = centre.shape
    averaged = centre.reshape(n, side // 2, 2, side // 2, 2).mean(axis=(2, 4))
    whole = centre.var(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        fine = np.where(whole > 0, 1 - averaged.var(axis=(1, 2)) / whole, np.nan)
    is_border = np.ones((SIDE_PX, SIDE_PX), dtype=bool)
    is_border[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    border = red[:, is_border]
    level = np.median(border, axis=1)
    return {
        "fine_share": fine,
        "sky_level": level,
        "sky_noise": 1.4826 * np.median(np.abs(border - level[:, None]), axis=1),
        "saturated_share": (pixels == np.iinfo(np.uint8).max).mean(axis=(1, 2, 3)),
    }
