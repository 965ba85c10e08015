"""Chunks of the cube's arrays, from the store to numpy directly: zarr's own way takes twice as long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.blosc import Blosc
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

from schemas.errors import StoreError

CHECKSUM_BYTES = 4

Chunk = tuple[zarr.Array[Any], int]
"""An array, and the number of one of its chunks along its first axis; along the others it has one chunk."""


def rows_of_chunk(chunk: Chunk) -> slice:
    """Rows that a chunk holds, the last one's being more than there are."""
    array, number = chunk
    return slice(number * array.chunks[0], (number + 1) * array.chunks[0])


def read_chunks(wanted: Sequence[Chunk]) -> list[npt.NDArray[Any]]:
    """Values of some chunks, which are read at the same time; each has its array's chunk shape, or less at the end.

    Raises
    ------
    StoreError
        A chunk is damaged.
    """
    return [
        content if isinstance(content, np.ndarray) else _decode(chunk, content)
        for chunk, content in zip(wanted, sync(_fetch_all(wanted)), strict=True)
    ]


def read_chunks_into(
    array: zarr.Array[Any], rows: npt.NDArray[np.int64], out: npt.NDArray[Any], scale: np.float32 | None = None
) -> None:
    """Read some rows of an array; where all rows of a chunk are wanted, it is decoded where it belongs.

    Parameters
    ----------
    array
        Of any number of chunks along its first axis.
    rows
        Ascending, each once, shape (n,).
    out
        (n, ...), C-contiguous.
    scale
        Stored values are multiplied by this; None = they are what is wanted.

    Raises
    ------
    StoreError
        A chunk is damaged.
    """
    length = array.chunks[0]
    numbers, starts = np.unique(rows // length, return_index=True)
    stops = [*starts.tolist()[1:], rows.size]
    wanted = [(array, number) for number in numbers.tolist()]
    scratch: npt.NDArray[Any] | None = None
    for chunk, start, stop, content in zip(wanted, starts.tolist(), stops, sync(_fetch_all(wanted)), strict=True):
        first = chunk[1] * length
        if scale is None and stop - start == length and isinstance(content, Buffer):
            _decode(chunk, content, out[start:stop])
            continue
        if isinstance(content, np.ndarray):
            values = content
        else:
            # one buffer for all chunks: fresh memory costs as much as decoding into it
            scratch = np.empty(array.chunks, dtype=array.dtype) if scratch is None else scratch
            values = _decode(chunk, content, scratch)
        chosen = values[rows[start:stop] - first]
        out[start:stop] = chosen if scale is None else chosen * scale


async def _fetch_all(wanted: Sequence[Chunk]) -> list[Buffer | npt.NDArray[Any] | None]:
    return await asyncio.gather(*map(_fetch, wanted))


async def _fetch(chunk: Chunk) -> Buffer | npt.NDArray[Any] | None:
    """A chunk as it is stored; decoded where it is not made as the cube's are; None where it was never written."""
    array, number = chunk
    if not _is_plain(array):
        return np.asarray(await array.async_array.getitem(rows_of_chunk(chunk)))
    key = array.metadata.encode_chunk_key((number, *[0] * (array.ndim - 1)))
    return await array.store.get(f"{array.path}/{key}", default_buffer_prototype())


def _decode(chunk: Chunk, stored: Buffer | None, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    array, number = chunk
    if stored is None:
        out = np.empty(array.chunks, dtype=array.dtype) if out is None else out
        out[...] = array.fill_value
        return out
    content = stored.as_numpy_array()
    body = content[:-CHECKSUM_BYTES]
    if google_crc32c.value(body) != int.from_bytes(content[-CHECKSUM_BYTES:].tobytes(), "little"):
        raise StoreError(
            f"chunk {number} of {array.path} is damaged (its checksum differs): run `galstore verify` to see what else "
            "is, and `galstore rebuild` for what can be mended"
        )
    if out is not None:
        Blosc().decode(body, out)
        return out
    return np.frombuffer(Blosc().decode(body), dtype=array.dtype).reshape(array.chunks)


def _is_plain(array: zarr.Array[Any]) -> bool:
    """Whether its chunks are made as those of the cube: little-endian values, Blosc, CRC-32C."""
    makers = (BytesCodec, BloscCodec, Crc32cCodec)
    codecs = getattr(array.metadata, "codecs", ())
    return len(codecs) == len(makers) and all(map(isinstance, codecs, makers))
