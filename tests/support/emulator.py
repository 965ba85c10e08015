"""Emulator in a thread of the test process, so that each faulty response takes milliseconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar

from aiohttp import web

from galstore.emulator.sky.drawing_pool import DrawingPool

_Result = TypeVar("_Result")


class InlineDrawingPool(DrawingPool):
    """Drawing pool that draws in the thread of the server."""

    def __init__(self) -> None:
        super().__init__(idle=True)

    async def draw(self, drawing: bytes | Callable[[], bytes]) -> bytes:
        return drawing if isinstance(drawing, bytes) else drawing()


@contextmanager
def serve_in_thread(app: web.Application) -> Iterator[str]:
    """Serve an application on a free port and yield its base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[None, None, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = run(start())
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        run(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
