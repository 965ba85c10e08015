from __future__ import annotations

import numpy as np

from galstore.ingest.seen_rows import SeenRows


def test_listed_rows_are_remembered() -> None:
    seen = SeenRows()
    assert not seen.has_accepted(np.array([0, -1])).any()
    nothing = np.array([], dtype=np.int64)
    seen.add(np.array([2, 5]), rejected=nothing)
    seen.add(nothing, rejected=np.array([6]))
    assert seen.has_accepted(np.array([-1, 0, 2, 5, 6, 9])).tolist() == [False, False, True, True, False, False]
    assert seen.listed(8).tolist() == [False, False, True, False, False, True, True, False]
    assert seen.listed(3).tolist() == [False, False, True]
    assert seen.n_accepted == 2
