"""Processes that draw cutouts while the server goes on answering."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from galstore.emulator.sky.drawing import load_tools, require_galsim
from schemas.errors import ContractError


class Painters:
    """A pool of drawing processes, one a core; a context manager.

    Parameters
    ----------
    n_processes
        How many; one a core by default.
    idle
        True starts none: for surveys whose cutouts need no drawing.

    Raises
    ------
    ContractError
        GalSim is not installed.
    """

    def __init__(self, *, n_processes: int | None = None, idle: bool = False) -> None:
        self._pool: ProcessPoolExecutor | None = None
        if idle:
            return
        require_galsim()
        n = n_processes or os.cpu_count() or 1
        # spawned, not forked: a fork of a process with threads can hang
        self._pool = ProcessPoolExecutor(
            n, mp_context=multiprocessing.get_context("spawn"), initializer=_become_painter
        )
        for _ in range(n):
            self._pool.submit(os.getpid)  # a process starts with its first job: start them now

    async def paint(self, job: bytes | Callable[[], bytes]) -> bytes:
        """The bytes of a job: those given, or drawn in another process."""
        if isinstance(job, bytes):
            return job
        if self._pool is None:
            raise ContractError("these painters are idle and cannot draw: start them with idle=False")
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def close(self) -> None:
        """Finish what is being drawn, drop the rest, and end the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _become_painter() -> None:
    """Prepare a drawing process: how it ends, how many threads it has, and GalSim loaded before the first request."""
    # Ctrl-C reaches the whole group of processes; the server alone decides when painters end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    load_tools()
    from threadpoolctl import threadpool_limits

    # BLAS threads fight over busy cores: 13 cutouts a second and core with them, 250 without (two cores, measured)
    threadpool_limits(1)


def _leave_with_parent() -> None:
    """End this process when the server is gone, however it went: a killed server cannot tell its pool."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)
