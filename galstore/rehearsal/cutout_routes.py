"""The image cutout service as SkyServer offers it, with the answers that a fault plan spoils."""

from __future__ import annotations

import io
import math
from functools import cache

from aiohttp import web

from galstore.rehearsal.faults import Fault, FaultLog, FaultPlan
from galstore.rehearsal.painters import Painters
from galstore.rehearsal.query_routes import json_error
from galstore.rehearsal.survey import Survey

DEFAULT_SCALE_ARCSEC, SCALE_RANGE_ARCSEC = 0.396127, (0.015, 2400.0)
DEFAULT_SIDE_PX, SIDE_RANGE_PX = 128, (64, 2048)

FIRST_RELEASE_WITH_404 = 14
"""Older releases answer 200 with the black tile outside the footprint."""

RETRY_AFTER_S = 1

_OUTAGE_PAGE = """<!DOCTYPE html>
<html><head><title>Service unavailable</title></head>
<body><h1>503 Service Unavailable</h1><p>SkyServer (rehearsal) is down for maintenance.</p></body></html>
"""


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

    async def getjpeg(self, request: web.Request) -> web.Response:
        """Answer `?ra&dec&scale&width&height`; numbers out of range are clamped without a word."""
        query = {name.lower(): value for name, value in request.query.items()}
        try:
            ra, dec = _number(query, "ra"), _number(query, "dec")
            scale = _clamped(_number(query, "scale", DEFAULT_SCALE_ARCSEC), *SCALE_RANGE_ARCSEC)
            width = int(_clamped(_number(query, "width", DEFAULT_SIDE_PX), *SIDE_RANGE_PX))
            height = int(_clamped(_number(query, "height", DEFAULT_SIDE_PX), *SIDE_RANGE_PX))
        except ValueError as error:
            return json_error(400, str(error))
        object_id = self._survey.find(ra, dec)
        fault = None if object_id is None else self._fate(object_id)
        if fault is Fault.OUT_OF_FOOTPRINT or (object_id is None and not self._survey.covers(ra, dec)):
            older = int(request.match_info["release"]) < FIRST_RELEASE_WITH_404
            return _jpeg(black_tile("outside the footprint", width, height), status=200 if older else 404)
        if fault is Fault.TOO_MANY_REQUESTS:
            return web.Response(status=429, text="Too many requests", headers={"Retry-After": str(RETRY_AFTER_S)})
        if fault is Fault.OUTAGE_PAGE:
            return web.Response(status=503, text=_OUTAGE_PAGE, content_type="text/html")
        if fault is Fault.SERVER_ERROR:
            return _jpeg(black_tile("internal error", width, height), status=500)
        body = await self._painters.paint(self._survey.cutout(object_id, (ra, dec), scale, width, height))
        return _jpeg(body[: len(body) // 2] if fault is Fault.TRUNCATED else body)

    def _fate(self, object_id: int) -> Fault | None:
        attempt = self._log.count_attempt(object_id)
        fault = self._plan.fault(object_id, attempt=attempt)
        if fault is not None:
            self._log.spoiled.append((object_id, attempt, fault))
        return fault


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


def _jpeg(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="image/jpeg")


@cache
def black_tile(message: str, width_px: int, height_px: int) -> bytes:
    """A black JPEG with a line of text, as SkyServer sends where it has no image."""
    from PIL import Image, ImageDraw

    tile = Image.new("RGB", (width_px, height_px))
    ImageDraw.Draw(tile).text((4, height_px // 2 - 6), message, fill=(255, 255, 255))
    buffer = io.BytesIO()
    tile.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
