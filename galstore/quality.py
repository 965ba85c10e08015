"""Quality of a delivered body: pixels, or the reason why it is none.

Thresholds come from 500 real SDSS cutouts: at most 10.5 % of their values are exact zeros, where the service's
out-of-footprint tile has about 91 %; a Legacy Surveys tile without coverage has a standard deviation below 1 count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

from schemas.cube import DELIVERED_BYTES
from schemas.cutouts import SIDE_PX, Reason

MAX_ZERO_SHARE = 0.5
MIN_STANDARD_DEVIATION = 1.0

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a body turned out to be: `pixels` where `reason` is NONE, else None."""

    reason: Reason
    pixels: npt.NDArray[np.uint8] | None = None


def judge_body(body: bytes) -> Judgement:
    """Decode a delivered body and say what is wrong with it.

    The header is read first, so that a small file which claims a huge image never gets memory.

    Parameters
    ----------
    body
        What the service delivered under status 200.

    Returns
    -------
    Judgement
        Pixels in counts, shape (128, 128, band), bands i, r, g; or the reason why there are none.
    """
    if not body.startswith(_JPEG_START):
        return Judgement(reason=Reason.NOT_A_JPEG)
    if len(body) > DELIVERED_BYTES:
        return Judgement(reason=Reason.TOO_LARGE)
    if _JPEG_END not in body[-64:]:
        return Judgement(reason=Reason.TRUNCATED)
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(body)
    except ValueError:
        return Judgement(reason=Reason.TRUNCATED)
    if (height, width) != (SIDE_PX, SIDE_PX) or colorspace == "Gray":
        return Judgement(reason=Reason.WRONG_SIZE)
    try:
        pixels = simplejpeg.decode_jpeg(body, colorspace="RGB", strict=True)
    except ValueError:
        return Judgement(reason=Reason.TRUNCATED)
    if np.count_nonzero(pixels) < (1 - MAX_ZERO_SHARE) * pixels.size:
        return Judgement(reason=Reason.OUT_OF_FOOTPRINT)
    if pixels.std() < MIN_STANDARD_DEVIATION:
        return Judgement(reason=Reason.FLAT)
    return Judgement(reason=Reason.NONE, pixels=pixels)
