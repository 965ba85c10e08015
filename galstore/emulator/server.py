"""A SkyServer and a Legacy Surveys viewer for emulators: their URLs and answers on loopback, over a simulated sky or a
folder of cutouts.

They answer as the real services were found to answer, the bad answers too; they are not those and hold no data of
theirs.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator

from aiohttp import web

from galstore.emulator.cutout_folder import FolderSurvey
from galstore.emulator.cutout_routes import CutoutRoutes
from galstore.emulator.faults import FaultLog, FaultPlan
from galstore.emulator.query_routes import QueryRoutes
from galstore.emulator.responses import CutoutDelivery
from galstore.emulator.sky.drawing_pool import Painters
from galstore.emulator.sky.simulated import SimulatedSky
from galstore.emulator.survey import Survey
from galstore.emulator.viewer_routes import ViewerRoutes
from galstore.event_loop import run
from schemas.errors import ContractError
from schemas.recipes import EmulatorSection, FaultSection

STALL_TICK_S = 0.01

HOST = "127.0.0.1"
"""The emulator speaks to its own machine alone."""


def emulate(section: EmulatorSection, *, port: int = 0, queries_per_minute: int | None = None) -> None:
    """Serve a survey until SIGINT or SIGTERM; the first line on stdout is the base URL.

    Parameters
    ----------
    section
        What is played.
    port
        Where to listen on 127.0.0.1; 0 takes a free port.
    queries_per_minute
        SQL queries allowed in a minute, as the real service allows 60; None allows any number.

    Raises
    ------
    ContractError
        The port is taken, GalSim is missing, or the section cannot be played.
    CatalogError
        The folder or its catalog is not what it should be.
    """
    listener = _listen(port)
    with listener:
        survey = open_survey(section)
        if section.new_catalog is not None and isinstance(survey, SimulatedSky):
            section.new_catalog.parent.mkdir(parents=True, exist_ok=True)
            survey.new_catalog().to_csv(section.new_catalog, index=False)
        plan = FaultPlan(seed=section.seed, section=section.faults)
        with Painters(idle=not isinstance(survey, SimulatedSky)) as painters:
            app = build_app(survey, painters, faults=plan, queries_per_minute=queries_per_minute)
            run(_serve(app, listener))


def open_survey(section: EmulatorSection) -> Survey:
    """The sky or the folder that a section of a recipe describes.

    Raises
    ------
    CatalogError
        The folder or its catalog is not what it should be.
    """
    if section.catalog is not None and section.cutouts is not None:
        return FolderSurvey(catalog=section.catalog, cutouts=section.cutouts)
    return SimulatedSky(seed=section.seed, n_galaxies=section.n_galaxies, n_new=section.n_new)


def build_app(
    survey: Survey, painters: Painters, *, faults: FaultPlan | None = None, queries_per_minute: int | None = None
) -> web.Application:
    """The emulator's routes over one survey, to be run by any aiohttp runner.

    Parameters
    ----------
    survey
        What is served.
    painters
        Who draws the cutouts; not closed with the application.
    faults
        Which answers are spoiled; none by default.
    queries_per_minute
        As of `emulate`.
    """
    log = FaultLog()
    plan = faults or FaultPlan(seed=0, section=FaultSection())
    queries = QueryRoutes(survey.catalog(), queries_per_minute=queries_per_minute)
    delivery = CutoutDelivery(survey, painters, plan, log)

    async def tell_log(_: web.Request) -> web.Response:
        return web.json_response(log.as_json())

    async def look_after(_: web.Application) -> AsyncIterator[None]:
        watch = asyncio.create_task(_watch_stalls(log))
        yield
        watch.cancel()
        queries.close()
        delivery.close()

    app = web.Application()
    app.add_routes(
        [
            web.get(r"/dr{release:1\d}/SkyServerWS/ImgCutout/getjpeg", CutoutRoutes(delivery).getjpeg),
            web.get(r"/dr{release:1\d}/SkyServerWS/SearchTools/SqlSearch", queries.search),
            web.get(r"/dr{release:1\d}/en/tools/search/x_results.aspx", queries.search),
            web.get("/viewer/cutout.jpg", ViewerRoutes(delivery).cutout),
            web.get("/emulator/log", tell_log),
        ]
    )
    app.cleanup_ctx.append(look_after)
    return app


async def _watch_stalls(log: FaultLog) -> None:
    """Note how late a clock of the event loop rings."""
    while True:
        due_s = time.monotonic() + STALL_TICK_S
        await asyncio.sleep(STALL_TICK_S)
        log.longest_stall_s = max(log.longest_stall_s, time.monotonic() - due_s)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(1024)  # from here on the port is ours, also against another emulator that starts now
    except OSError as error:
        listener.close()
        raise ContractError(
            f"port {port} of {HOST} cannot be listened on ({error.strerror}): choose another, or 0 for any free port"
        ) from error
    return listener


async def _serve(app: web.Application, listener: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=1024).start()
        sys.stdout.write(f"http://{HOST}:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
