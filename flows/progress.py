"""Run progress: how far a long run is, as Prefect's UI shows it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from rich.console import Console

PROGRESS_EVERY_S = 10.0
"""Between two updates of a progress bar in the UI: a night's work is some thousands of small requests."""


class ProgressArtifact:
    """A progress bar in the UI of a long run; work that is over within seconds never shows one.

    Any thread may tell it.

    Parameters
    ----------
    title
        Of the work; the artifact's key is made from it.
    total
        When it is done.
    every_s
        Between two updates of the bar.
    """

    def __init__(self, title: str, total: int, *, every_s: float = PROGRESS_EVERY_S) -> None:
        self._title, self._total, self._done = title, max(1, total), 0
        self._lock = threading.Lock()
        self._every_s, self._told_s = every_s, time.monotonic()
        self._artifact: UUID | None = None
        # a thread that tells later has no run of its own
        self._run = run_ids() if in_flow_run() else None

    def advance(self, n: int) -> None:
        """So many more are done."""
        with self._lock:
            self._done += n
            now_s = time.monotonic()
            if self._run is None or now_s - self._told_s < self._every_s:
                return
            self._told_s = now_s
            self._tell()

    def close(self) -> None:
        """The work is over, one way or the other."""
        with self._lock:
            if self._artifact is not None:
                self._tell()

    def _tell(self) -> None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

        share = min(100.0, 100 * self._done / self._total)
        told = f"{self._done:,} of {self._total:,}"
        with forgiven("progress"), get_client(sync_client=True) as client:
            if self._artifact is None:
                artifact = ArtifactCreate(
                    key=_key(self._title), type="progress", description=f"{self._title}: {told}", data=share,
                    **(self._run or {}),
                )  # fmt: skip
                self._artifact = client.create_artifact(artifact).id
            else:
                update = ArtifactUpdate(data=share, description=f"{self._title}: {told}")
                client.update_artifact(self._artifact, update)


def in_flow_run() -> bool:
    """Whether Prefect runs this, so that there is a server and a run to tell something about."""
    # a command without a flow, such as verify, is spared Prefect's import
    context = sys.modules.get("prefect.context")
    return context is not None and bool(context.FlowRunContext.get() or context.TaskRunContext.get())


def run_ids() -> dict[str, Any]:
    """Ids of the flow run and task run under way, as an artifact names them."""
    from prefect.utilities.context import get_task_and_flow_run_ids

    task_run_id, flow_run_id = get_task_and_flow_run_ids()
    return {"task_run_id": task_run_id, "flow_run_id": flow_run_id}


def _key(title: str) -> str:
    """One key for each kind of work, lower case, digits and dashes, as Prefect wants keys.

    Examples
    --------
    >>> _key("scoring, mean over 8 views")
    'progress-scoring'
    """
    words = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in title.lower()).split()
    return "-".join(["progress", *words[:1]])


@contextmanager
def forgiven(key: str) -> Iterator[None]:
    """What is told to the server meanwhile may get lost: a server that hiccups must not cost a night's work."""
    import httpx
    from prefect.exceptions import PrefectException

    try:
        yield
    except (PrefectException, httpx.HTTPError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"Prefect's server did not take artifact {key}: {error}")
