"""Output of `galstore probe`."""

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
from tests.facts import facts_near
from tests.support.emulator import InlineDrawingPool, serve_in_thread

SKY = SimulatedSky(seed=3, n_galaxies=40, n_new=0)


@pytest.mark.parametrize("survey", ["sdss", "legacy"])
def test_a_sound_survey_has_exit_code_0(survey: str) -> None:
    with serve_in_thread(build_app(SKY, InlineDrawingPool())) as url:
        result = CliRunner().invoke(app, ["probe", "--survey", survey, "--base-url", url], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "differs" not in result.output
    assert facts_near(result.output, "layer") == (survey == "legacy")


def test_a_difference_has_exit_code_1_and_is_in_the_json(tmp_path: Path) -> None:
    plan = FaultPlan(seed=0, section=FaultSection(wrong_size=1.0, lasting=1.0))
    with serve_in_thread(build_app(SKY, InlineDrawingPool(), faults=plan)) as url:
        result = CliRunner().invoke(app, ["probe", "--base-url", url, "--json"])
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["agree"] is False
    (cutout,) = [check for check in printed["checks"] if check["name"] == "cutout"]
    assert (cutout["verdict"], cutout["got"].split(":")[0]) == ("differs", "wrong_size")
