"""Benchmarks run and compare what they say; how fast they are here proves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("level", [128, 32])
def test_loader_benchmark_compares_the_cube_with_a_file_and_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import loader
    from made_up import draw_bodies, make_survey
    from tables import Table

    # two batches, one of them not full
    survey = make_survey(tmp_path / "survey", 300, draw_bodies(10))
    cube = loader.make_cube(str(tmp_path / "cube"), survey)
    material = loader.prepare(cube, survey, level, tmp_path / "copies")
    table = Table()
    folder = "torch DataLoader, folder of JPEGs"
    loader.measure_loading(material, table, 1, [loader.RESIDENT, loader.STREAMED, loader.LIMIT, folder])
    compared = [(row.split(" | ")[0], row.split(" | ")[2].split(":")[0]) for row in table.rows]
    assert compared == [
        (f"| {name}, {level} px", other)
        for name in (loader.RESIDENT, loader.STREAMED)
        for other in (loader.LIMIT, folder)
    ]


def test_ways_without_their_package_are_left_out_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import loader

    def missing(_: object) -> object:
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    monkeypatch.setitem(loader.WAYS, "nothing", (missing, "nowhere-package"))
    assert loader.open_ways(None, ["nothing"]) == {}
    assert (
        "nothing: left out, no module 'nowhere'; to measure it: pip install nowhere-package" in capsys.readouterr().out
    )


def test_gpu_benchmark_runs_small_on_a_cpu() -> None:
    words = [
        "--images",
        "320",
        "--level",
        "32",
        "--arch",
        "resnet10w32",
        "--epochs",
        "1",
        "--scored",
        "64",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), *words], capture_output=True, text=True, timeout=300, check=True
    )
    told = json.loads(done.stdout)
    assert told["images"] == 320
    for name in ("loading_images_per_s", "forward_passes_per_s", "paper_training_s", "paper_scoring_s", "limit_tflops"):
        assert told[name] > 0, name
    # one order of galaxies, whichever way they come: the same error to the last digit
    assert told["resident"]["rmse_dex"] == told["streamed"]["rmse_dex"]
    assert 0 <= told["streamed"]["waiting_share"] < 1
