"""What every flow needs around it: the recipe, the survey's address, Dask workers, progress on the terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flows.progress import ProgressArtifact
from schemas.errors import RecipeError, ServiceError
from schemas.recipes import EMULATOR, DaskSection, Recipe, parse_recipe

if TYPE_CHECKING:
    import distributed

EMULATOR_START_S = 60

PASSING_FAILURES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "retry_condition_fn": lambda _task, _run, state: isinstance(state.result(raise_on_failure=False), ServiceError),
}
"""Task options: try again when a service failed, not when the input is wrong."""

console = Console(stderr=True, highlight=False)
"""Progress and notes go to stderr; results, for pipes, to stdout."""


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with galstore."""
    return tuple(sorted(Path(file.name).stem for file in _recipe_folder().iterdir() if file.name.endswith(".toml")))


def load_recipe(recipe: str, overrides: Sequence[str] | None = None) -> Recipe:
    """A recipe by name or path, with `section.key=value` put over it.

    Raises
    ------
    RecipeError
        No such recipe, or a bad one.
    """
    path = Path(recipe)
    # a folder of the same name as a recipe, such as the demo's own output, does not hide the recipe
    if recipe not in recipe_names() and (path.suffix == ".toml" or path.exists()):
        if not path.is_file():
            raise RecipeError(f"recipe {recipe} does not exist: give a TOML file or one of {', '.join(recipe_names())}")
        return parse_recipe(path.read_text(encoding="utf-8"), origin=recipe, overrides=overrides or ())
    if recipe not in recipe_names():
        raise RecipeError(f"recipe {recipe!r} is unknown: give a TOML file or one of {', '.join(recipe_names())}")
    text = (_recipe_folder() / f"{recipe}.toml").read_text(encoding="utf-8")
    return parse_recipe(text, origin=f"recipe {recipe}", overrides=overrides or ())


def _recipe_folder() -> resources.abc.Traversable:
    return resources.files("flows") / "recipes"


def output_path(recipe: Recipe, *parts: str) -> Path:
    """A file in the recipe's output folder; the folders on the way to it exist afterwards."""
    path = recipe.output.folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


_open_address: ContextVar[str | None] = ContextVar("survey_address", default=None)


@contextmanager
def survey_address(recipe: str, overrides: Sequence[str] | None = None) -> Iterator[str]:
    """Base URL of the recipe's survey; a emulator's emulator runs on loopback for as long as the context lasts.

    Inside another such context, as in a run of all the flows, it is the same address and no second emulator.
    """
    already = _open_address.get()
    if already is not None:
        yield already
        return
    loaded = load_recipe(recipe, overrides)
    if loaded.survey.base_url != EMULATOR:
        yield loaded.survey.base_url.rstrip("/")
        return
    sets = [argument for override in overrides or () for argument in ("--set", override)]
    command = [sys.executable, "-m", "flows.cli", "emulate", "--recipe", recipe, *sets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as emulator:  # noqa: S603 - our own program
        try:
            address = _first_line(emulator)
            token = _open_address.set(address)
            try:
                yield address
            finally:
                _open_address.reset(token)
        finally:
            emulator.terminate()


def _first_line(emulator: subprocess.Popen[str]) -> str:
    address = emulator.stdout.readline().strip() if emulator.stdout else ""
    if not address.startswith("http://"):
        code = emulator.wait(EMULATOR_START_S)
        raise ServiceError(f"the survey emulator did not start (exit code {code}): its own message stands above")
    return address


@contextmanager
def dask_client(section: DaskSection, *, n_tasks: int, threads_per_worker: int = 1) -> Iterator[distributed.Client]:
    """A Dask client: of the scheduler that the recipe names, or of a cluster of this machine's own for the time being.

    Parameters
    ----------
    n_tasks
        No more workers than tasks are started.
    threads_per_worker
        Of a cluster of this machine's own.
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
            dashboard_address="127.0.0.1:0",  # any free port: two runs on one machine must not meet
            silence_logs=logging.ERROR,
        )
    with cluster, distributed.Client(cluster) as client:
        yield client


def current_run_id() -> str:
    """Id of the Prefect flow run under way, kept with every commit; a random one where none is."""
    from prefect.runtime import flow_run

    return str(flow_run.root_flow_run_id or flow_run.id or uuid4())


class ProgressBar:
    """One bar on the terminal, with a note beside it, and in Prefect's UI where the work is long."""

    def __init__(self, progress: Progress, title: str, total: int, artifact: ProgressArtifact) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, note="")
        self._artifact = artifact

    def advance(self, n: int) -> None:
        """So many more are done."""
        self._progress.advance(self._task, n)
        self._artifact.advance(n)

    def note(self, text: str) -> None:
        """Say how it goes."""
        self._progress.update(self._task, note=text)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[ProgressBar]:
    """A progress bar with rate and time left; where no terminal listens, one line at the end."""
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
