"""Processes that draw cutouts without blocking the server."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait

from galstore.emulator.sky.drawing import load_seeing, require_galsim
from schemas.errors import ContractError


class DrawingPool:
    """Pool of drawing processes, one per core, or none if `idle`, for surveys whose cutouts are not drawn.

    Raises
    ------
    ContractError
        GalSim is not installed.
    """

    def __init__(self, *, idle: bool = False) -> None:
        self._pool: ProcessPoolExecutor | None = None
        if idle:
            return
        require_galsim()
        n = os.cpu_count() or 1
        # spawn: a fork of a process with threads can hang
        self._pool = ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
        for _ in range(n):
            self._pool.submit(os.getpid)  # a process starts with its first job

    async def draw(self, drawing: bytes | Callable[[], bytes]) -> bytes:
        """Run a drawing in another process; return bytes unchanged."""
        if isinstance(drawing, bytes):
            return drawing
        if self._pool is None:
            raise ContractError("this drawing pool has no processes: create it with idle=False")
        return await asyncio.get_running_loop().run_in_executor(self._pool, drawing)

    def close(self) -> None:
        """Finish running drawings, cancel waiting ones, and end the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C reaches all processes of the group; the server ends the drawing processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    load_seeing()
    from threadpoolctl import threadpool_limits

    # BLAS threads compete for busy cores: 13 cutouts per second and core with them, 250 without (measured on two)
    threadpool_limits(1)


def _exit_with_parent() -> None:
    """End this process when the server ends; a killed server cannot shut its pool down."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)
