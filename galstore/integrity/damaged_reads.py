"""Reads that tolerate damage: the intact rows of an array, and the image in an object's delivered bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import icechunk
import numpy as np
import numpy.typing as npt

from galstore.cube.arrays import AnyArray, Values
from galstore.cube.storage import first_line
from galstore.survey.images import check_image
from schemas.cube import DELIVERED_BYTES
from schemas.cutouts import SIDE_PX

READ_ERRORS = (icechunk.IcechunkError, ValueError, RuntimeError)
"""Errors of reading a damaged chunk. Icechunk: its file is missing, or shorter than the manifest says. ValueError: its
CRC-32C differs, or its shape is not that of its array. RuntimeError: Blosc cannot decompress it."""

BODY_PATH = "delivered/body"


class DamagedRange(NamedTuple):
    """Rows `start` to `stop` (excluded) that cannot be read, and the reason."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialRows:
    """Rows of an array; `values` are zero where `is_intact` is False."""

    values: Values
    is_intact: npt.NDArray[np.bool_]
    damage: tuple[DamagedRange, ...] = ()


def read_partial_rows(array: AnyArray, start: int = 0, stop: int | None = None) -> PartialRows:
    """Read rows of an array and skip the chunks that cannot be read."""
    stop = array.shape[0] if stop is None else stop
    try:
        return PartialRows(values=np.asarray(array[start:stop]), is_intact=np.ones(stop - start, dtype=bool))
    except READ_ERRORS:
        pass  # read chunk by chunk below
    values = np.zeros((stop - start, *array.shape[1:]), dtype=array.dtype)
    is_intact = np.zeros(stop - start, dtype=bool)
    damage: list[DamagedRange] = []
    chunk_rows = array.chunks[0]
    for chunk_start in range(start - start % chunk_rows, stop, chunk_rows):
        low, high = max(chunk_start, start), min(chunk_start + chunk_rows, stop)
        try:
            values[low - start : high - start] = array[low:high]
            is_intact[low - start : high - start] = True
        except READ_ERRORS as error:
            damage.append(DamagedRange(low, high, first_line(error)))
    return PartialRows(values=values, is_intact=is_intact, damage=tuple(damage))


def decode_stored_body(
    padded: npt.NDArray[np.uint8], length: int, digest: npt.NDArray[np.uint8]
) -> tuple[str, npt.NDArray[np.uint8] | None]:
    """Check a row of `delivered/body` against its `body_length` and `body_sha256`, and decode it.

    Return an empty text and counts of shape (128, 128, band), or a message and None.
    """
    if not 0 < length <= DELIVERED_BYTES:
        return f"state/body_length is not one of 1-{DELIVERED_BYTES} bytes", None
    body = padded[:length].tobytes()
    if hashlib.sha256(body).digest() != digest.tobytes():
        return "the SHA-256 of the delivered bytes differs from state/body_sha256", None
    image = check_image(body)
    if image.pixels is None:
        return f"the delivered bytes are not an image of {SIDE_PX} px ({image.reason.name.lower()})", None
    return "", image.pixels
