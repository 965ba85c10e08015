"""Tests that any bytes give a result or an error of galstore, in bounded time and memory."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.slow.fuzz.runs import fuzz

N_INPUTS = {"bodies": 900, "answers": 200, "catalogs": 100}
N_INPUTS_LONG = {"bodies": 9000, "answers": 6000, "catalogs": 5000}
"""20,000 in total."""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("target", N_INPUTS)
def test_no_input_escapes_hangs_or_takes_much_memory(target: str, tmp_path: Path, long_run: bool) -> None:
    started_s = time.monotonic()
    n_inputs = (N_INPUTS_LONG if long_run else N_INPUTS)[target]
    report = fuzz(target, n_inputs, tmp_path)
    print(f"\n{report}\n  {time.monotonic() - started_s:.0f} s")
    assert not report.failures, report.explain(tmp_path)
    assert report.n_inputs == n_inputs


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is limited and measured by Linux' /proc")
def test_every_kind_of_failure_is_reported_with_its_input(tmp_path: Path) -> None:
    report = fuzz("traps", 7, tmp_path)
    messages = {failure.kind: failure.message for failure in report.failures}
    assert list(messages) == ["escapes", "hangs", "grows", "crashes", "wants too much"]
    assert "KeyError: 'escapes'" in messages["escapes"]
    assert "in try_out" in messages["hangs"]
    assert re.fullmatch(r"fine, and (9\d|10\d) MiB", messages["grows"])
    assert "Aborted" in messages["crashes"]
    assert "MemoryError" in messages["wants too much"]
    assert dict(report.tally["refused"]) == {"CatalogError": 1}
    assert "python -m tests.slow.fuzz.worker traps --show 1" in report.explain(tmp_path)
    assert len((tmp_path / "traps-2").read_bytes()) == 300
