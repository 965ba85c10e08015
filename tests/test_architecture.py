from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "prefect", "dask", "zarr", "galsim")


def modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import galstore, schemas, modeling, flows",
        "sys.argv = ['galstore', '--help']\nfrom flows.cli import app\napp(standalone_mode=False)",
        "from flows.runtime import load_recipe\nload_recipe('demo')",
    ],
    ids=["packages", "galstore --help", "a recipe"],
)
def test_light_things_load_nothing_heavy(code: str) -> None:
    assert modules_after(code).isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["galstore.ingest.fill", "galstore.cube.inventory", "galstore.cube.predictions"])
def test_the_data_plane_loads_neither_torch_nor_prefect(module: str) -> None:
    assert modules_after(f"import {module}").isdisjoint({"torch", "prefect"})
