"""The loader's benchmark runs and compares what it says; how fast it is here proves nothing."""

from __future__ import annotations

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
