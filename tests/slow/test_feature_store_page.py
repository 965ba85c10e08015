"""The code blocks of docs/feature-store.md, run from top to bottom."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from galstore.cube.reader import Cube
from tests.conftest import ROOT
from tests.galstore.conftest import executor, filled_cube

__all__ = ["executor", "filled_cube"]

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_block_runs(filled_cube: Cube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(filled_cube.path, tmp_path / "demo" / "cube")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall((ROOT / "docs" / "feature-store.md").read_text(encoding="utf-8"))
    assert len(blocks) == 3
    for language, code in blocks:
        if language == "python":
            exec(compile(code, "feature-store.md", "exec"), names)
            continue
        for line in code.strip().splitlines():
            monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
            with pytest.raises(SystemExit) as end:
                main()
            assert not end.value.code, line
    assert len(names["ids"]) > 3
    assert names["dataset"]["image_32"].shape[1:] == (32, 32, 3)
    assert len(names["table"]) == names["dataset"].sizes["object"]
