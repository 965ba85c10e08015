"""The image cutout service as SkyServer offers it, with the answers that a fault plan spoils."""

from __future__ import annotations

import math
from collections.abc import Callable

from aiohttp import web

from galstore.rehearsal import spoiling
from galstore.rehearsal.faults import Fault, FaultLog, FaultPlan, Spoiled
from galstore.rehearsal.painters import Painters
from galstore.rehearsal.query_routes import json_error
from galstore.rehearsal.spoiling import black_tile
from galstore.rehearsal.survey import Survey

DEFAULT_SCALE_ARCSEC, SCALE_RANGE_ARCSEC = 0.396127, (0.015, 2400.0)
DEFAULT_SIDE_PX, SIDE_RANGE_PX = 128, (64, 2048)

FIRST_RELEASE_WITH_404 = 14
"""Older releases answer 200 with the black tile outside the footprint."""

_DAMAGES: dict[Fault, Callable[[bytes], bytes]] = {
    Fault.TRUNCATED: lambda body: body[: len(body) // 2],
    Fault.WRONG_SIZE: spoiling.quarter,
    Fault.TRAILING_BYTES: lambda body: body + b"\r\n0\r\n\r\n",
}
"""What is done to an object's own image."""


class CutoutRoutes:
    """Handler of `ImgCutout/getjpeg`.

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
        self._deaf_port = spoiling.DeafPort()
        # images that were delivered well, of the last two objects: one of them is always somebody else's
        self._delivered: list[tuple[int, bytes]] = []

    def close(self) -> None:
        """Close the port that takes no connections."""
        self._deaf_port.close()

    async def getjpeg(self, request: web.Request) -> web.Response:
        """Answer `?ra&dec&scale&width&height`; numbers out of range are clamped without a word."""
        self._log.note_arrival()
        query = {name.lower(): value for name, value in request.query.items()}
        try:
            ra, dec = _number(query, "ra"), _number(query, "dec")
            scale = _clamped(_number(query, "scale", DEFAULT_SCALE_ARCSEC), *SCALE_RANGE_ARCSEC)
            width = int(_clamped(_number(query, "width", DEFAULT_SIDE_PX), *SIDE_RANGE_PX))
            height = int(_clamped(_number(query, "height", DEFAULT_SIDE_PX), *SIDE_RANGE_PX))
        except ValueError as error:
            return json_error(400, str(error))
        object_id = self._survey.find(ra, dec)
        if object_id is None and not self._survey.covers(ra, dec):
            return _outside(request, width, height)
        fault, other_body = (None, b"") if object_id is None else self._fate(object_id)
        if object_id is not None and fault is not None and fault not in _DAMAGES:
            return await self._spoil(fault, request, object_id, (width, height), other_body)
        body = await self._painters.paint(self._survey.cutout(object_id, (ra, dec), scale, width, height))
        if fault is not None:
            return _jpeg(_DAMAGES[fault](body))
        if object_id is not None:
            self._delivered = [*(one for one in self._delivered if one[0] != object_id), (object_id, body)][-2:]
        return _jpeg(body)

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
        self, fault: Fault, request: web.Request, object_id: int, size_px: tuple[int, int], other_body: bytes
    ) -> web.Response:
        """The answer in place of the object's image; `size_px` is the width and height that were asked for."""
        answers: dict[Fault, Callable[[], web.Response]] = {
            Fault.TOO_MANY_REQUESTS: lambda: spoiling.too_many_requests(object_id, self._plan.section.retry_after_s),
            Fault.SERVER_ERROR: lambda: _jpeg(black_tile("internal error", *size_px), status=500),
            Fault.OUTAGE_PAGE: lambda: _page(status=503),
            Fault.OUT_OF_FOOTPRINT: lambda: _outside(request, *size_px),
            Fault.BLACK_TILE: lambda: _jpeg(black_tile("outside the footprint", *size_px)),
            Fault.FLAT_TILE: lambda: _jpeg(spoiling.flat_tile(*size_px)),
            Fault.HTML_PAGE: lambda: _page(status=200),
            Fault.ERROR_MESSAGE: lambda: spoiling.error_message(object_id),
            Fault.NOT_A_JPEG: lambda: _jpeg(spoiling.flat_tile(*size_px, style="PNG")),
            Fault.BOMB: lambda: _jpeg(spoiling.bomb()),
            Fault.CONNECT_TIMEOUT: self._deaf_port.redirect,
            Fault.CONNECTION_RESET: lambda: spoiling.reset(request),
            Fault.STUCK_CACHE: lambda: _jpeg(other_body),
            Fault.CLIENT_ERROR: lambda: json_error(400, "parameter ra is missing: give ra and dec in degrees"),
        }
        return await spoiling.say_nothing(request) if fault is Fault.READ_TIMEOUT else answers[fault]()


def _number(query: dict[str, str], name: str, default: float | None = None) -> float:
    text = query.get(name)
    if text is None:
        if default is None:
            raise ValueError(f"parameter {name} is missing: give ra and dec in degrees")
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"parameter {name} = {text!r} is not a number") from error
    if not math.isfinite(value) or (name == "dec" and abs(value) > 90):
        raise ValueError(f"parameter {name} = {text!r} is out of range")
    return value


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _outside(request: web.Request, width_px: int, height_px: int) -> web.Response:
    older = int(request.match_info["release"]) < FIRST_RELEASE_WITH_404
    return _jpeg(black_tile("outside the footprint", width_px, height_px), status=200 if older else 404)


def _page(*, status: int) -> web.Response:
    return web.Response(status=status, text=spoiling.OUTAGE_PAGE, content_type="text/html")


def _jpeg(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="image/jpeg")
