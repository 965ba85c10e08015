"""Typed access to Zarr arrays, and direct reading of their chunks: zarr's own way takes twice as long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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

AnyArray = zarr.Array[Any]
"""A Zarr array of any type."""
Values = npt.NDArray[Any]
"""A numpy array of any type."""
Attributes = Mapping[str, Any]
"""Attributes of a Zarr group or a commit: JSON values by name."""
Chunk = tuple[AnyArray, int]
"""An array, and the number of one of its chunks along the first axis. Along the other axes it has one chunk."""

CHECKSUM_BYTES = 4


def require_array(group: zarr.Group, path: str) -> AnyArray:
    """Return an array of a group, or raise `KeyError` or `StoreError` if `path` does not exist or is a group."""
    node = group[path]
    if not isinstance(node, zarr.Array):
        raise StoreError(f"{path} is a group, expected an array: name one of its arrays")
    return node


def require_group(group: zarr.Group, path: str) -> zarr.Group:
    """Return a group inside a group; errors as in `require_array`."""
    node = group[path]
    if not isinstance(node, zarr.Group):
        raise StoreError(f"{path} is an array, expected a group")
    return node


def read_attributes(group: zarr.Group) -> Attributes:
    return group.attrs.asdict()


def read_array(group: zarr.Group, path: str, rows: slice | npt.NDArray[np.int64] = slice(None)) -> Values:
    """Return the values of an array of a group, all of them or those at some rows."""
    array = require_array(group, path)
    return np.asarray(array[rows] if isinstance(rows, slice) else array.oindex[rows])


def pad_bytes(contents: Sequence[bytes], width: int) -> npt.NDArray[np.uint8]:
    """Return bytes of at most `width` as an array of shape (n, width), padded with zeros."""
    return np.array(contents, dtype=f"S{width}").view(np.uint8).reshape(-1, width)


def rows_of_chunk(chunk: Chunk) -> slice:
    """Return the rows of a chunk. Those of the last chunk may exceed the array."""
    array, number = chunk
    return slice(number * array.chunks[0], (number + 1) * array.chunks[0])


def read_chunks(chunks: Sequence[Chunk]) -> list[Values]:
    """Read chunks concurrently. Each has the chunk shape of its array, or less at the end.

    A damaged chunk raises `StoreError`.
    """
    return [
        content if isinstance(content, np.ndarray) else _decode(chunk, content)
        for chunk, content in zip(chunks, sync(_fetch_all(chunks)), strict=True)
    ]


def read_chunks_into(
    array: AnyArray, rows: npt.NDArray[np.int64], out: Values, scale: np.float32 | None = None
) -> None:
    """Read rows of an array. A chunk of which all rows are wanted is decoded into its place in `out`.

    `rows` ascend and are unique, shape (n,); `out` is C-contiguous, (n, ...); `scale` multiplies the stored values. A
    damaged chunk raises `StoreError`.
    """
    length = array.chunks[0]
    numbers, starts = np.unique(rows // length, return_index=True)
    stops = [*starts.tolist()[1:], rows.size]
    chunks = [(array, number) for number in numbers.tolist()]
    scratch: Values | None = None
    for chunk, start, stop, content in zip(chunks, starts.tolist(), stops, sync(_fetch_all(chunks)), strict=True):
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


async def _fetch_all(chunks: Sequence[Chunk]) -> list[Buffer | Values | None]:
    return await asyncio.gather(*map(_fetch, chunks))


async def _fetch(chunk: Chunk) -> Buffer | Values | None:
    """Return a chunk as stored, decoded if its codecs are not the cube's, or None if it was never written."""
    array, number = chunk
    # those of the cube: little-endian values, compressed by Blosc, with a CRC-32C
    if [type(codec) for codec in getattr(array.metadata, "codecs", ())] != [BytesCodec, BloscCodec, Crc32cCodec]:
        return np.asarray(await array.async_array.getitem(rows_of_chunk(chunk)))
    key = array.metadata.encode_chunk_key((number, *[0] * (array.ndim - 1)))
    return await array.store.get(f"{array.path}/{key}", default_buffer_prototype())


def _decode(chunk: Chunk, stored: Buffer | None, out: Values | None = None) -> Values:
    array, number = chunk
    out = np.empty(array.chunks, dtype=array.dtype) if out is None else out
    if stored is None:
        out[...] = array.fill_value
        return out
    content = stored.as_numpy_array()
    body = content[:-CHECKSUM_BYTES]
    if google_crc32c.value(body) != int.from_bytes(content[-CHECKSUM_BYTES:].tobytes(), "little"):
        raise StoreError(
            f"chunk {number} of {array.path} is damaged (its checksum differs): run `galstore verify` to find all "
            "damage, and `galstore rebuild` to repair it"
        )
    Blosc().decode(body, out)
    return out
