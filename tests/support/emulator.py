"""Services played in a thread of the test's own process, so that each wrong answer costs milliseconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from galstore.emulator.sky.drawing_pool import Painters


class InlinePainters(Painters):
    """Draws in the server's own thread."""

    def __init__(self) -> None:
        super().__init__(idle=True)

    async def paint(self, job: bytes | Callable[[], bytes]) -> bytes:
        return job if isinstance(job, bytes) else job()


@contextmanager
def played(app: web.Application) -> Iterator[str]:
    """Serve an application on a free port; its base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def within(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = within(start())
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        within(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
