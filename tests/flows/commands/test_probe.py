"""`galstore probe` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from galstore.emulator.faults import FaultPlan
from galstore.emulator.server import build_app
from galstore.emulator.sky.simulated import SimulatedSky
from schemas.recipes import FaultSection
from tests.facts import told_together
from tests.support.emulator import InlineDrawingPool, serve_in_thread

SKY = SimulatedSky(seed=3, n_galaxies=40, n_new=0)


@pytest.mark.parametrize("survey", ["sdss", "legacy"])
def test_a_sound_survey_is_told_with_exit_code_0(survey: str) -> None:
    with serve_in_thread(build_app(SKY, InlineDrawingPool())) as url:
        result = CliRunner().invoke(app, ["probe", "--survey", survey, "--base-url", url], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "differs" not in result.output
    assert told_together(result.output, "layer") == (survey == "legacy")


def test_what_differs_is_told_with_exit_code_1_and_as_json(tmp_path: Path) -> None:
    plan = FaultPlan(seed=0, section=FaultSection(wrong_size=1.0, lasting=1.0))
    with serve_in_thread(build_app(SKY, InlineDrawingPool(), faults=plan)) as url:
        result = CliRunner().invoke(app, ["probe", "--base-url", url, "--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["agree"] is False
    (cutout,) = [check for check in told["checks"] if check["name"] == "cutout"]
    assert (cutout["verdict"], cutout["got"].split(":")[0]) == ("differs", "wrong_size")
