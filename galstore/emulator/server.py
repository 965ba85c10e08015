"""HTTP server of the emulator: SkyServer and the Legacy Surveys viewer on loopback.

It replies as the real services were found to reply, wrong responses included, over a simulated sky or a folder of
cutouts. It contains no data of these services.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing

from aiohttp import web

from galstore.emulator.cutout_folder import CutoutFolder
from galstore.emulator.cutout_responder import CutoutResponder
from galstore.emulator.cutout_routes import SkyServerCutouts, ViewerCutouts
from galstore.emulator.database import QueryRoutes
from galstore.emulator.faults import FaultPlan, RequestLog
from galstore.emulator.sky.drawing_pool import DrawingPool
from galstore.emulator.sky.simulated import SimulatedSky
from galstore.emulator.survey import Survey
from galstore.event_loop import run
from schemas.errors import ContractError
from schemas.recipes import EmulatorSection, FaultSection

HOST = "127.0.0.1"

_CLOCK_TICK_S = 0.01

logger = logging.getLogger(__name__)


def emulate(section: EmulatorSection, *, port: int = 0, queries_per_minute: int | None = None) -> None:
    """Serve a survey until SIGINT or SIGTERM; the first line on stdout is the base URL.

    Parameters
    ----------
    port
        Port of 127.0.0.1; 0 takes a free one.
    queries_per_minute
        Limit of SQL queries per minute (60 on the real service); None means no limit.

    Raises
    ------
    ContractError
        The port is taken, GalSim is missing, or the section cannot be served.
    CatalogError
        The folder or its catalog is invalid.
    """
    with _listen(port) as listener:
        if section.catalog is not None and section.cutouts is not None:
            survey: Survey = CutoutFolder(catalog=section.catalog, cutouts=section.cutouts)
        else:
            survey = SimulatedSky(seed=section.seed, n_galaxies=section.n_galaxies, n_new=section.n_new)
        if section.new_catalog is not None and isinstance(survey, SimulatedSky):
            section.new_catalog.parent.mkdir(parents=True, exist_ok=True)
            survey.new_catalog().to_csv(section.new_catalog, index=False)
        plan = FaultPlan(seed=section.seed, section=section.faults)
        with closing(DrawingPool(idle=not isinstance(survey, SimulatedSky))) as pool:
            run(_serve(build_app(survey, pool, faults=plan, queries_per_minute=queries_per_minute), listener))


def build_app(
    survey: Survey, drawing_pool: DrawingPool, *, faults: FaultPlan | None = None, queries_per_minute: int | None = None
) -> web.Application:
    """Build the aiohttp application that serves a survey; `drawing_pool` is not closed with it."""
    log = RequestLog()
    plan = faults or FaultPlan(seed=0, section=FaultSection())
    queries = QueryRoutes(survey.catalog(), queries_per_minute=queries_per_minute)
    responder = CutoutResponder(survey, drawing_pool, plan, log)

    async def send_log(_: web.Request) -> web.Response:
        return web.json_response(log.as_json())

    async def run_background(_: web.Application) -> AsyncIterator[None]:
        stall_watch = asyncio.create_task(_measure_stalls(log))
        yield
        stall_watch.cancel()
        queries.close()
        responder.close()
        logger.info("emulator stopped after %d requests, %d of them faulty", log.attempts.total(), len(log.events))

    app = web.Application()
    for path, handler in (
        (r"/dr{release:1\d}/SkyServerWS/ImgCutout/getjpeg", SkyServerCutouts(responder).getjpeg),
        (r"/dr{release:1\d}/SkyServerWS/SearchTools/SqlSearch", queries.search),
        (r"/dr{release:1\d}/en/tools/search/x_results.aspx", queries.search),
        ("/viewer/cutout.jpg", ViewerCutouts(responder).cutout),
        ("/emulator/log", send_log),
    ):
        app.router.add_get(path, handler)
    app.cleanup_ctx.append(run_background)
    return app


async def _measure_stalls(log: RequestLog) -> None:
    while True:
        due_s = time.monotonic() + _CLOCK_TICK_S
        await asyncio.sleep(_CLOCK_TICK_S)
        log.longest_stall_s = max(log.longest_stall_s, time.monotonic() - due_s)


def _listen(port: int) -> socket.socket:
    try:
        # listening reserves the port, also against another emulator that starts now
        return socket.create_server((HOST, port), backlog=1024)
    except OSError as error:
        raise ContractError(
            f"port {port} of {HOST} cannot be opened ({error.strerror}): choose another one, or 0 for any free port"
        ) from error


async def _serve(app: web.Application, listener: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=1024).start()
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        logger.info("emulator started at %s", url)
        await stop.wait()
    finally:
        await runner.cleanup()
