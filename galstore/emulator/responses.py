"""Delivery: an object's cutout, or what a fault plan sends in its place in the manners of the service played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from galstore.emulator import fault_effects
from galstore.emulator.fault_effects import black_tile
from galstore.emulator.faults import Fault, FaultLog, FaultPlan, Spoiled
from galstore.emulator.sky.drawing_pool import Painters
from galstore.emulator.survey import Survey
from schemas.cutouts import Composite

CIRCLE = "circle"

_DAMAGES: dict[Fault, Callable[[bytes], bytes]] = {
    Fault.TRUNCATED: lambda body: body[: len(body) // 2],
    Fault.WRONG_SIZE: fault_effects.quarter,
    Fault.TRAILING_BYTES: lambda body: body + b"\r\n0\r\n\r\n",
}
"""What is done to an object's own image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A place on the sky (degrees), and how it is to be shown."""

    place: tuple[float, float]
    scale_arcsec: float
    size_px: tuple[int, int]
    """Width and height."""
    composite: Composite


class Manners(Protocol):
    """How one service says what is not an image."""

    def outside(self, request: web.Request, asked: Asked) -> web.Response:
        """There is no image of the place."""

    def internal_error(self, asked: Asked) -> web.Response:
        """500."""

    def refusal(self, object_id: int) -> web.Response:
        """200 with a text."""

    def bad_request(self) -> web.Response:
        """400."""


class CutoutDelivery:
    """Cutouts of a survey, spoiled as planned; all services that are played share one.

    Parameters
    ----------
    survey
        What is served.
    painters
        Who draws.
    plan
        Which answers are spoiled.
    log
        Where requests and spoiled answers are noted.
    """

    def __init__(self, survey: Survey, painters: Painters, plan: FaultPlan, log: FaultLog) -> None:
        self._survey = survey
        self._painters = painters
        self._plan = plan
        self._log = log
        self._deaf_port = fault_effects.DeafPort()
        # images that were delivered well, of the last two objects: one of them is always somebody else's
        self._delivered: list[tuple[int, bytes]] = []

    def close(self) -> None:
        """Close the port that takes no connections."""
        self._deaf_port.close()

    def note_arrival(self) -> None:
        """Note that a cutout was asked for, whatever the request says."""
        self._log.note_arrival()

    async def answer(self, request: web.Request, asked: Asked, manners: Manners) -> web.Response:
        """The cutout, or what is sent in its place."""
        if CIRCLE in request.query:
            return redirected_in_a_circle(request)
        object_id = self._survey.find(*asked.place)
        if object_id is None and not self._survey.covers(*asked.place):
            return manners.outside(request, asked)
        fault, other_body = (None, b"") if object_id is None else self._fate(object_id)
        if object_id is not None and fault is not None and fault not in _DAMAGES:
            return await self._spoil(fault, request, object_id, asked, other_body, manners)
        drawing = self._survey.cutout(
            object_id, asked.place, asked.scale_arcsec, *asked.size_px, composite=asked.composite
        )
        body = await self._painters.paint(drawing)
        if fault is not None:
            return jpeg(_DAMAGES[fault](body))
        if object_id is not None:
            self._delivered = [*(one for one in self._delivered if one[0] != object_id), (object_id, body)][-2:]
        return jpeg(body)

    def _fate(self, object_id: int) -> tuple[Fault | None, bytes]:
        """Count the attempt and note what becomes of it: the fault, and the body that a stuck cache repeats."""
        attempt = self._log.count_attempt(object_id)
        fate = self._plan.fate(object_id)
        fault, body_of, body = fate.at(attempt), None, b""
        if fault is Fault.STUCK_CACHE:
            others = [one for one in self._delivered if one[0] != object_id]
            if not others:
                return None, b""
            body_of, body = others[-1]
        if fault is not None:
            self._log.spoiled.append(
                Spoiled(object_id=object_id, attempt=attempt, fault=fault, lasts=fate.lasts, body_of=body_of)
            )
        return fault, body

    async def _spoil(
        self, fault: Fault, request: web.Request, object_id: int, asked: Asked, other_body: bytes, manners: Manners
    ) -> web.Response:
        """The answer in place of the object's image."""
        size_px = asked.size_px
        answers: dict[Fault, Callable[[], web.Response]] = {
            Fault.TOO_MANY_REQUESTS: lambda: fault_effects.too_many_requests(
                object_id, self._plan.section.retry_after_s
            ),
            Fault.SERVER_ERROR: lambda: manners.internal_error(asked),
            Fault.OUTAGE_PAGE: lambda: page(fault_effects.OUTAGE_PAGE, status=503),
            Fault.OUT_OF_FOOTPRINT: lambda: manners.outside(request, asked),
            Fault.BLACK_TILE: lambda: jpeg(black_tile("outside the footprint", *size_px)),
            Fault.FLAT_TILE: lambda: jpeg(fault_effects.flat_tile(*size_px)),
            Fault.HTML_PAGE: lambda: page(fault_effects.OUTAGE_PAGE, status=200),
            Fault.ERROR_MESSAGE: lambda: manners.refusal(object_id),
            Fault.NOT_A_JPEG: lambda: jpeg(fault_effects.flat_tile(*size_px, style="PNG")),
            Fault.BOMB: lambda: jpeg(fault_effects.bomb()),
            Fault.CONNECT_TIMEOUT: self._deaf_port.redirect,
            Fault.CONNECTION_RESET: lambda: fault_effects.reset(request),
            Fault.STUCK_CACHE: lambda: jpeg(other_body),
            Fault.CLIENT_ERROR: manners.bad_request,
            Fault.REDIRECT_LOOP: lambda: redirected_in_a_circle(request),
        }
        return await fault_effects.say_nothing(request) if fault is Fault.READ_TIMEOUT else answers[fault]()


def redirected_in_a_circle(request: web.Request) -> web.Response:
    """A redirect to the same address, marked so that whoever follows it is not counted as asking again."""
    return web.Response(status=302, headers={"Location": str(request.rel_url.update_query({CIRCLE: "1"}))})


def page(html: str, *, status: int) -> web.Response:
    """An HTML page."""
    return web.Response(status=status, text=html, content_type="text/html")


def jpeg(body: bytes, *, status: int = 200) -> web.Response:
    """A body that is announced as a JPEG."""
    return web.Response(body=body, status=status, content_type="image/jpeg")
