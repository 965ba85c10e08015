"""Emulator in a separate process, as the command line starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from schemas.recipes import EmulatorSection

REPOSITORY = Path(__file__).parents[3]

PROGRAM = """
import sys
from galstore.emulator.server import emulate
from schemas.recipes import EmulatorSection
if __name__ == "__main__":
    section, port, queries_per_minute = EmulatorSection.model_validate_json(sys.argv[1]), *map(int, sys.argv[2:])
    emulate(section, port=port, queries_per_minute=queries_per_minute or None)
"""

Started = tuple[str, subprocess.Popen[str]]


@contextmanager
def emulator_process(section: EmulatorSection, port: int = 0, queries_per_minute: int = 0) -> Iterator[Started]:
    command = [sys.executable, "-c", PROGRAM, section.model_dump_json(), str(port), str(queries_per_minute)]
    # one BLAS thread: several compete for the cores of a busy machine
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.fixture(scope="session")
def start_emulator() -> Callable[..., AbstractContextManager[Started]]:
    return emulator_process


@pytest.fixture(scope="session")
def new_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulator") / "new" / "galaxies.csv"


@pytest.fixture(scope="session")
def sky_url(new_catalog: Path) -> Iterator[str]:
    """Serve a simulated sky with seed 3, 600 galaxies with spectra and 20 without."""
    section = EmulatorSection(seed=3, n_galaxies=600, n_new=20, new_catalog=new_catalog)
    with emulator_process(section) as (url, _):
        yield url
