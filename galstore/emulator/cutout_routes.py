"""The image cutout service as SkyServer offers it, with the answers that a fault plan spoils."""

from __future__ import annotations

import math
from collections.abc import Mapping

from aiohttp import web

from galstore.emulator import fault_effects
from galstore.emulator.fault_effects import black_tile
from galstore.emulator.query_routes import json_error
from galstore.emulator.responses import Asked, CutoutDelivery, jpeg
from schemas.cutouts import Composite

DEFAULT_SCALE_ARCSEC, SCALE_RANGE_ARCSEC = 0.396127, (0.015, 2400.0)
DEFAULT_SIDE_PX, SIDE_RANGE_PX = 128, (64, 2048)

FIRST_RELEASE_WITH_404 = 14
"""Older releases answer 200 with the black tile outside the footprint."""


class CutoutRoutes:
    """Handler of `ImgCutout/getjpeg`, over the cutouts of a delivery."""

    def __init__(self, delivery: CutoutDelivery) -> None:
        self._delivery = delivery

    async def getjpeg(self, request: web.Request) -> web.Response:
        """Answer `?ra&dec&scale&width&height`; numbers out of range are clamped without a word."""
        self._delivery.note_arrival()
        query = {name.lower(): value for name, value in request.query.items()}
        try:
            asked = Asked(
                place=(parse_number(query, "ra"), parse_number(query, "dec")),
                scale_arcsec=clamped(parse_number(query, "scale", DEFAULT_SCALE_ARCSEC), *SCALE_RANGE_ARCSEC),
                size_px=(_side_px(query, "width"), _side_px(query, "height")),
                composite=Composite.SKYSERVER,
            )
        except ValueError as error:
            return json_error(400, str(error))
        return await self._delivery.answer(request, asked, SkyServerManners())


class SkyServerManners:
    """How ImgCutout says what is not an image."""

    def outside(self, request: web.Request, asked: Asked) -> web.Response:
        """404 with a black JPEG; 200 with it from older releases."""
        older = int(request.match_info["release"]) < FIRST_RELEASE_WITH_404
        return jpeg(black_tile("outside the footprint", *asked.size_px), status=200 if older else 404)

    def internal_error(self, asked: Asked) -> web.Response:
        """500 with a JPEG."""
        return jpeg(black_tile("internal error", *asked.size_px), status=500)

    def refusal(self, object_id: int) -> web.Response:
        """200 with error_message."""
        return fault_effects.error_message(object_id)

    def bad_request(self) -> web.Response:
        """400 with JSON."""
        return json_error(400, "parameter ra is missing: give ra and dec in degrees")


def parse_number(query: Mapping[str, str], name: str, default: float | None = None) -> float:
    """A number of a query; ValueError where it is missing, none, or no place on the sky."""
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


def clamped(value: float, low: float, high: float) -> float:
    """The value, or the end of the range that it is beyond."""
    return min(max(value, low), high)


def _side_px(query: Mapping[str, str], name: str) -> int:
    return int(clamped(parse_number(query, name, DEFAULT_SIDE_PX), *SIDE_RANGE_PX))
