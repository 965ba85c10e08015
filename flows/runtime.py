"""Runtime of the flows: recipe, survey address, Dask workers, and progress bars."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flows.prefect_artifacts import ProgressArtifact
from flows.terminal import console
from schemas.errors import RecipeError, ServiceError
from schemas.recipes import EMULATOR, DaskSection, Recipe, parse_recipe

if TYPE_CHECKING:
    import distributed

logger = logging.getLogger(__name__)

Summary = dict[str, Any]
"""Result of a flow: JSON values."""

EMULATOR_START_S = 60

TRANSIENT_FAILURES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "retry_condition_fn": lambda _task, _run, state: isinstance(state.result(raise_on_failure=False), ServiceError),
}
"""Task options: retry when a service failed, not when the input is wrong."""

PREFECT_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # the command line prints errors once, without a traceback, and our log lines through its own handler
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    # the temporary server needs 10 s; on a busy machine more than the default of 20
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def configure_prefect() -> None:
    """Keep Prefect quiet and offline in this process, unless the user's environment says otherwise.

    Call it before Prefect is imported.
    """
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with galstore."""
    return tuple(sorted(Path(file.name).stem for file in _recipe_folder().iterdir() if file.name.endswith(".toml")))


def load_recipe(recipe: str, overrides: Sequence[str] | None = None) -> Recipe:
    """Load a recipe by name or path, and apply `section.key=value` overrides.

    Raises
    ------
    RecipeError
        The recipe does not exist or is invalid.
    """
    path = Path(recipe)
    known = recipe_names()
    # a folder with the name of a recipe, such as the demo's own output, does not hide the recipe
    if recipe not in known and (path.suffix == ".toml" or path.exists()):
        if not path.is_file():
            raise RecipeError(f"recipe {recipe} does not exist: give a TOML file or one of {', '.join(known)}")
        return parse_recipe(path.read_text(encoding="utf-8"), origin=recipe, overrides=overrides or ())
    if recipe not in known:
        raise RecipeError(f"recipe {recipe!r} is unknown: give a TOML file or one of {', '.join(known)}")
    text = (_recipe_folder() / f"{recipe}.toml").read_text(encoding="utf-8")
    return parse_recipe(text, origin=f"recipe {recipe}", overrides=overrides or ())


def _recipe_folder() -> Traversable:
    return resources.files("flows") / "recipes"


def recipe_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML, defaults included."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def output_path(recipe: Recipe, *parts: str) -> Path:
    """Return a path in the recipe's output folder; parent folders are created."""
    path = recipe.output.folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def survey_address(recipe: Recipe, running: str | None = None) -> Iterator[str]:
    """Yield the base URL of a recipe's survey; for `base_url = "emulator"` an emulator runs inside the context.

    Parameters
    ----------
    recipe
        Recipe with the survey.
    running
        Address of an emulator of this recipe that runs already.
    """
    if recipe.survey.base_url != EMULATOR:
        yield recipe.survey.base_url.rstrip("/")
        return
    if running is not None:
        yield running
        return
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(recipe_toml(recipe))
        file.flush()
        command = [sys.executable, "-m", "flows.cli", "emulate", "--recipe", file.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as emulator:  # noqa: S603 - our own program
            try:
                yield _read_address(emulator)
            finally:
                emulator.terminate()


def _read_address(emulator: subprocess.Popen[str]) -> str:
    address = emulator.stdout.readline().strip() if emulator.stdout else ""
    if not address.startswith("http://"):
        code = emulator.wait(EMULATOR_START_S)
        raise ServiceError(f"the survey emulator did not start (exit code {code}): see its message above")
    return address


@contextmanager
def dask_client(section: DaskSection, *, n_tasks: int, threads_per_worker: int = 1) -> Iterator[distributed.Client]:
    """Yield a Dask client, of the scheduler in the recipe or of a temporary cluster on this machine.

    Parameters
    ----------
    section
        Section `[dask]` of a recipe.
    n_tasks
        Maximum number of workers to start.
    threads_per_worker
        For a temporary cluster.
    """
    import dask
    import distributed

    if section.scheduler:
        with distributed.Client(section.scheduler) as client:
            yield client
        return
    logging.getLogger("distributed").setLevel(logging.ERROR)
    n_workers = min(section.workers or os.cpu_count() or 1, max(1, n_tasks))
    # Dask's default makes glibc map and fault every large buffer anew: writing a block takes twice the CPU
    # Dask's profiler can stop a worker for good on Python 3.11: the collector runs under a lock (CPython gh-106883)
    settings = {
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
        "distributed.worker.profile.enabled": False,
    }
    with dask.config.set(settings):
        cluster = distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=threads_per_worker,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: two runs on one machine must not collide
            silence_logs=logging.ERROR,
        )
    with cluster, distributed.Client(cluster) as client:
        yield client


class ProgressBar:
    """Progress bar on the terminal, with a note beside it, and in Prefect's UI for long work."""

    def __init__(self, progress: Progress, title: str, total: int, artifact: ProgressArtifact) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, note="")
        self._artifact = artifact

    def advance(self, n: int) -> None:
        """Add finished units."""
        self._progress.advance(self._task, n)
        self._artifact.advance(n)

    def note(self, text: str) -> None:
        """Replace the note."""
        self._progress.update(self._task, note=text)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[ProgressBar]:
    """Yield a progress bar with elapsed and remaining time; without a terminal it prints one line at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, closing(ProgressArtifact(title, total)) as artifact:
        yield ProgressBar(progress, title, total, artifact)
