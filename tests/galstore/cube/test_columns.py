from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from galstore.cube import columns as module
from galstore.cube.columns import ColumnCache
from galstore.cube.layout import CHECKSUM, COLUMN_CODEC
from galstore.cube.reader import Cube, open_cube
from schemas.errors import StoreError

N = 10_000


def made(dtype: str, *, width: int = 0, chunk: int = 512, store: Any = None, **options: Any) -> zarr.Array[Any]:
    """Make an array with noise in all chunks but the third, which was never written."""
    shape, chunks = ((N, width), (chunk, width)) if width else ((N,), (chunk,))
    options = {"compressors": (COLUMN_CODEC, CHECKSUM)} | options
    array = zarr.create_array(
        {} if store is None else store, name=f"a/{dtype}-{width}-{chunk}", shape=shape, chunks=chunks, dtype=dtype,
        fill_value=7, **options,
    )  # fmt: skip
    values = np.random.default_rng(1).integers(0, 250, shape).astype(dtype)
    array[: 2 * chunk] = values[: 2 * chunk]
    array[3 * chunk :] = values[3 * chunk :]
    return array


@given(
    st.sampled_from(["uint8", "int64", "float32"]),
    st.sampled_from([0, 32]),
    st.lists(st.integers(0, N - 1), max_size=300),
    st.sampled_from([1, 30_000, 2**28]),
    st.booleans(),
)
def test_values_equal_zarr_s_for_any_cache_size(
    dtype: str, width: int, rows: list[int], max_bytes: int, plain: bool
) -> None:
    store: dict[str, Any] = {}
    arrays = [made(dtype, width=width, store=store), made("float64", chunk=97, store=store)]
    if not plain:
        arrays.append(made("int32", store=store, compressors=None))
    columns = ColumnCache(max_bytes=max_bytes)
    for part in (rows, rows[::-1], rows[:3]):
        for array, values in zip(arrays, columns.take(arrays, np.array(part, dtype=np.int64)), strict=True):
            assert values.dtype == array.dtype
            assert np.array_equal(values, np.asarray(array[:])[part])
    pieces = [(array, slice(min(rows, default=0), max(rows, default=0))) for array in arrays]
    for (array, piece), values in zip(pieces, columns.read(pieces), strict=True):
        assert np.array_equal(values, np.asarray(array[piece]))


def test_chunks_are_read_once_while_they_fit_into_the_cache(monkeypatch) -> None:
    read: list[int] = []
    inner = module.read_chunks
    monkeypatch.setattr(module, "read_chunks", lambda wanted: read.append(len(wanted)) or inner(wanted))
    store: dict[str, Any] = {}
    floats, integers = made("float64", store=store), made("int64", store=store)
    columns = ColumnCache(max_bytes=8 * N)
    rows = np.arange(0, N, 700)
    for _ in range(3):
        columns.take([floats], rows)
    assert read == [np.unique(rows // 512).size]
    columns.take([integers], np.array([3]))
    columns.take([floats], rows)
    assert len(read) == 2
    # both together are too large: the last one used stays
    columns.read([(integers, slice(0, N))])
    columns.take([integers], rows)
    assert len(read) == 3
    columns.take([floats], rows)
    assert len(read) == 4


def test_read_parts_cannot_be_written_to() -> None:
    array = made("int64")
    (piece,) = ColumnCache().read([(array, slice(0, 5))])
    with pytest.raises(ValueError, match="read-only"):
        piece[0] = 1


def test_threads_read_the_same() -> None:
    store: dict[str, Any] = {}
    arrays = [made("float32", store=store), made("int64", store=store)]
    wanted = [np.random.default_rng(n).integers(0, N, 200) for n in range(40)]
    columns = ColumnCache(max_bytes=50_000)
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda rows: columns.take(arrays, rows), wanted))
    for rows, values in zip(wanted, taken, strict=True):
        assert all(
            np.array_equal(taken_values, np.asarray(array[:])[rows])
            for taken_values, array in zip(values, arrays, strict=True)
        )


def test_an_error_names_the_damaged_chunk(tmp_path: Path) -> None:
    array = made("float32", store=zarr.storage.LocalStore(tmp_path))
    file = next(path for path in tmp_path.rglob("c/4") if path.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    columns = ColumnCache()
    assert columns.take([array], np.array([0, 5 * 512]))[0].size == 2
    with pytest.raises(StoreError, match=r"(?=.*chunk 4\b)(?=.*a/float32-0-512)(?=.*galstore verify)"):
        columns.take([array], np.array([4 * 512 + 1]))


def test_every_column_of_a_cube_is_read_as_zarr_reads_it(filled_cube: Cube) -> None:
    cube = open_cube(filled_cube.path)
    names = [f"{group}/{name}" for group in ("catalog", "state", "labels/galspec") for name in cube.array_names(group)]
    rows = np.arange(cube.n_objects)[::-1]
    for name, values in cube.read_values(names, rows).items():
        assert np.array_equal(values, np.asarray(cube.array(name)[:])[rows], equal_nan=values.dtype.kind == "f"), name
