"""Tests of the code blocks in README and docs/, and of the tables in the data model.

An HTML comment before each block marks it as `run`, `written: NAME` (a file that later blocks need), `run by: TEST` or
`not run: REASON`. A comment at the top of a page marks all of its blocks. Blocks run in the order of `PAGES`, in one
folder.
"""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
import typer

from flows.cli import app, main
from flows.runtime import load_recipe, survey_address
from tests.conftest import ROOT
from tests.flows.conftest import prefect_server
from tests.support.data_model_page import PAGE, with_tables

__all__ = ["prefect_server"]

PAGES = ("docs/tutorial.md", "docs/adding-a-survey.md", "docs/data-model.md", "README.md")
BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```(python|sh|toml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WHOLE_PAGE = re.compile(r"^<!-- all blocks (.*?) -->$", re.MULTILINE)
MARK = re.compile(r"run|written: \S+|run by: tests/\S+|not run: .{10,}", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBlock:
    page: str
    mark: str
    language: str
    code: str

    @property
    def commands(self) -> list[list[str]]:
        """Words of each `galstore` command of a shell block."""
        lines = [shlex.split(line, comments=True) for line in self.code.splitlines() if self.language == "sh"]
        return [words[1:] for words in lines if words[:1] == ["galstore"]]


def blocks_of(page: str) -> list[CodeBlock]:
    text = (ROOT / page).read_text(encoding="utf-8")
    whole = WHOLE_PAGE.search(text)
    return [
        CodeBlock(page=page, mark=mark or (whole.group(1) if whole else ""), language=language, code=code)
        for mark, language, code in BLOCK.findall(text)
    ]


def all_pages() -> list[str]:
    return ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", all_pages())
def test_every_block_runs_or_says_why_not(page: str) -> None:
    for block in blocks_of(page):
        assert MARK.fullmatch(block.mark), f"{page}: mark {block.mark!r} is missing or unknown, before\n{block.code}"
        if block.mark.startswith("run by: "):
            assert (ROOT / block.mark.removeprefix("run by: ")).exists()
        assert block.mark != "run" or page in PAGES


@pytest.mark.parametrize("page", all_pages())
def test_every_command_of_a_shell_block_exists_with_these_options(page: str) -> None:
    root = typer.main.get_command(app)
    for block in blocks_of(page):
        for words in block.commands:
            command, rest = root, words
            context = click.Context(command, info_name="galstore")
            # words after a command group are subcommands
            while isinstance(command, click.Group) and rest:
                found = command.get_command(context, rest[0])
                assert found is not None, f"{page}: galstore {shlex.join(words)}"
                command, rest = found, rest[1:]
            rest = [f"{word}=all" if word == "--retry-quarantined" else word for word in rest]
            try:
                command.make_context(command.name, list(rest), parent=context)
            except click.ClickException as error:
                pytest.fail(f"{page}: galstore {shlex.join(words)}: {error.format_message()}")


def test_the_tables_of_the_data_model_are_those_of_the_schemas() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page, "docs/data-model.md is out of date: python -m tests.support.data_model_page"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # commands of a flow start the emulator as a process, in this folder
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.fixture
def emulator_context() -> Iterator[ExitStack]:
    """Context of one emulator for all commands; a user's commands would each start one."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_blocks_run_one_page_after_the_other(
    prefect_server: None,
    folder: Path,
    emulator_context: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # dataclasses of a block look up their module
    names: dict[str, Any] = {"__name__": "__main__"}
    # the README's demo is the tutorial's run
    (folder / "tutorial").mkdir()
    (folder / "demo").symlink_to("tutorial")
    n_run = 0
    blocks = [block for page in PAGES for block in blocks_of(page)]
    for block in blocks:
        if block.mark.startswith("written: "):
            (folder / block.mark.removeprefix("written: ")).write_text(block.code, encoding="utf-8")
    emulator_context.enter_context(survey_address(load_recipe("tutorial.toml")))
    for block in blocks:
        if block.mark != "run":
            continue
        n_run += 1
        if block.language == "python":
            with warnings.catch_warnings():
                # Icechunk warns about local folders at each opening
                warnings.simplefilter("ignore", UserWarning)
                exec(compile(block.code, block.page, "exec"), names)
        for words in block.commands:
            monkeypatch.setattr(sys, "argv", ["galstore", *words])
            with pytest.raises(SystemExit) as end:
                main()
            output = capsys.readouterr()
            assert not end.value.code, f"galstore {shlex.join(words)}\n{output.out}\n{output.err}"
    assert n_run >= 10
    assert len(names["table"].dropna()) > 50
    scored = pd.read_parquet(folder / "tutorial" / "predictions" / "new_catalog.parquet")
    assert len(scored) == 40
    assert {response.reason.name for response in names["collected"].responses} <= {"NONE", "FLAT"}
    assert (folder / "tutorial" / "report" / "report.html").is_file()
    assert (folder / "published").is_dir()
