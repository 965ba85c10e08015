"""Salvage: what can be read of an array whose chunks may be damaged, and of the bytes that were delivered."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import icechunk
import numpy as np
import numpy.typing as npt
import zarr

from galstore.survey.images import judge_body
from schemas.cube import (
    DELIVERED_BYTES,
)
from schemas.cutouts import SIDE_PX

UNREADABLE = (icechunk.IcechunkError, ValueError, RuntimeError)
"""What reading a bad chunk raises. Icechunk: its file is missing, or shorter than the manifest says. ValueError: its
CRC-32C differs, or it has another shape than its array. RuntimeError: Blosc cannot decompress what it is."""

BODY_PATH = "delivered/body"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Array = zarr.Array[Any]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some rows of an array: `values` are zero where `known` is False, since their chunk cannot be read."""

    values: npt.NDArray[Any]
    known: _Flags
    damage: tuple[tuple[int, int, str], ...] = ()
    """First row, row after the last one, and why."""


def read_rows(array: _Array, start: int, stop: int) -> Rows:
    """Rows of an array, also where some of its chunks cannot be read."""
    try:
        return Rows(values=np.asarray(array[start:stop]), known=np.ones(stop - start, dtype=bool))
    except UNREADABLE:
        pass  # chunk by chunk, then
    values = np.zeros((stop - start, *array.shape[1:]), dtype=array.dtype)
    known = np.zeros(stop - start, dtype=bool)
    damage: list[tuple[int, int, str]] = []
    n_rows = array.chunks[0]
    for first in range(start - start % n_rows, stop, n_rows):
        low, high = max(first, start), min(first + n_rows, stop)
        try:
            values[low - start : high - start] = array[low:high]
            known[low - start : high - start] = True
        except UNREADABLE as error:
            damage.append((low, high, first_line(error)))
    return Rows(values=values, known=known, damage=tuple(damage))


def decode_delivered(
    padded: npt.NDArray[np.uint8], length: int, digest: npt.NDArray[np.uint8]
) -> tuple[str, npt.NDArray[np.uint8] | None]:
    """What is wrong with a stored object's delivered bytes, or the image that they decode to.

    Parameters
    ----------
    padded
        Row of `delivered/body`, shape (byte,).
    length, digest
        Its `state/body_length` and `state/body_sha256`, the latter of shape (32,).

    Returns
    -------
    fault, pixels
        Empty and counts of shape (128, 128, band), or a sentence and None.
    """
    if not 0 < length <= DELIVERED_BYTES:
        return f"state/body_length is not one of 1-{DELIVERED_BYTES} bytes", None
    body = padded[:length].tobytes()
    if hashlib.sha256(body).digest() != digest.tobytes():
        return "the delivered bytes do not have the SHA-256 that state/body_sha256 holds", None
    judgement = judge_body(body)
    if judgement.pixels is None:
        return f"the delivered bytes are no image of {SIDE_PX} px ({judgement.reason.name.lower()})", None
    return "", judgement.pixels


def first_line(error: Exception) -> str:
    """The first line of an error that says something; Icechunk frames its messages."""
    lines = (line.strip(" x\u00d7\u2502|") for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], *, n_ahead: int
) -> Iterator[_Result]:
    """Results in order, with no more than some items under way, so that memory stays bounded."""
    under_way: deque[Future[_Result]] = deque()
    for item in items:
        under_way.append(pool.submit(function, item))
        if len(under_way) >= n_ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
