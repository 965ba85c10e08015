from __future__ import annotations

from schemas.catalog import COLUMN, COLUMNS
from schemas.cube import BLOCK_ROWS, LEVEL, LEVELS, STATE_COLUMNS
from schemas.selection import QUERY_COLUMNS


def test_chunks_divide_blocks_so_that_two_tasks_never_share_one() -> None:
    assert all(BLOCK_ROWS % level.chunk_rows == 0 for level in LEVEL.values())


def test_levels_halve_from_128_to_1() -> None:
    assert list(LEVELS) == [2**n for n in range(7, -1, -1)]


def test_fixed_point_levels_hold_every_average() -> None:
    for level in LEVEL.values():
        largest = 255 / level.scale_factor
        assert largest <= {"uint8": 2**8 - 1, "uint16": 2**16 - 1}[level.dtype]


def test_every_column_of_the_query_has_a_contract() -> None:
    assert {"object_id" if name == "objID" else name for name in QUERY_COLUMNS} <= set(COLUMN)


def test_columns_are_described_once_with_a_range() -> None:
    assert len(COLUMN) == len(COLUMNS)
    assert all(column.description and column.valid_min < column.valid_max for column in COLUMNS)


def test_flag_columns_have_distinct_codes_that_fit() -> None:
    for column in STATE_COLUMNS:
        if column.flags is not None:
            codes = [int(code) for code in column.flags]
            assert len(set(codes)) == len(codes)
            assert max(codes) < 256
