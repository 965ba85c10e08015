from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galstore.cube.blocks import Block, blocks_with


@given(st.integers(0, 5000), st.data())
def test_blocks_cover_every_marked_row_once(n_rows: int, data: st.DataObject) -> None:
    marked = np.zeros(n_rows, dtype=bool)
    marked[data.draw(st.lists(st.integers(0, max(n_rows - 1, 0)), max_size=20 if n_rows else 0))] = True
    blocks = blocks_with(marked)
    covered = np.zeros(n_rows, dtype=int)
    for block in blocks:
        covered[block.rows] += 1
        assert marked[block.rows].any()
    assert covered.max(initial=0) <= 1
    assert (covered[marked] == 1).all()


@pytest.mark.parametrize(("start", "stop"), [(1, 1024), (0, 0), (0, 1025), (1024, 1000)])
def test_a_run_of_rows_that_is_no_block_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=rf"\b{start}-{stop}\b"):
        Block(start, stop)
