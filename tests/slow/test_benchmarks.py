"""Benchmarks run and print their comparisons; the figures themselves are not checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.facts import facts_near

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_loader_benchmark_compares_the_cube_with_a_file_and_a_folder() -> None:
    # two batches, one of them incomplete; in a separate process, because the folder's loader forks workers
    words = ["--images", "300", "--repeats", "1", "--only", "32"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "loader.py"), *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| galstore")]
    compared = [(name, other.split(":")[0], float(ratio)) for name, _, other, ratio, *_ in rows]
    for way in ("galstore, resident, 32 px", "galstore, streamed, 32 px"):
        for other in ("the memmap limit", "torch DataLoader, folder of JPEGs"):
            assert any(row[:2] == (way, other) and row[2] > 0 for row in compared), done


def test_loaders_without_their_package_are_skipped_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import loader

    def missing(_: object) -> object:
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    monkeypatch.setitem(loader.WAYS, "nothing", (missing, "nowhere-package"))
    assert loader.open_ways(None, ["nothing"]) == {}
    assert facts_near(capsys.readouterr().out, "nothing", "'nowhere'", "pip install nowhere-package")


@pytest.mark.long
def test_scoring_benchmark_compares_the_cube_with_the_bare_network_and_few_objects_with_many() -> None:
    words = ["--images", "300", "--level", "32", "--views", "1", "--repeats", "1", "--few", "100", "--many", "200"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "scoring.py"), *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    ratios = {row[0].split(",")[0]: float(row[3]) for row in rows[1:] if len(row) > 3}
    assert set(ratios) == {"scoring from the cube", "peak memory"}, done
    assert all(ratio > 0 for ratio in ratios.values())


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
    results = json.loads(done.stdout)
    assert results["images"] == 320
    for name in ("loading_images_per_s", "forward_passes_per_s", "paper_training_s", "paper_scoring_s", "limit_tflops"):
        assert results[name] > 0, name
    # the order of galaxies does not depend on the loader: the errors are equal to the last digit
    assert results["resident"]["rmse_dex"] == results["streamed"]["rmse_dex"]
    assert 0 <= results["streamed"]["waiting_share"] < 1
