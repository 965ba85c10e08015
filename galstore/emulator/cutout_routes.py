"""Cutout services of SkyServer and of the Legacy Surveys viewer: parameters and error replies."""

from __future__ import annotations

import math
from collections.abc import Mapping

from aiohttp import web

from galstore.emulator import fault_effects as effects
from galstore.emulator.cutout_responder import CutoutResponder
from galstore.emulator.survey import CutoutQuery
from schemas.cutouts import Composite

FIRST_RELEASE_WITH_404 = 14
"""Older releases reply 200 with a black tile outside the footprint."""

VIEWER_LAYERS = {"ls-dr9": Composite.LS_DR9, "sdss": Composite.LEGACY_SDSS}

_ERROR_PAGE = "<html><head><title>Server Error (500)</title></head><body><h1>Server Error (500)</h1></body></html>\n"


class SkyServerCutouts:
    """Handler and error replies of SkyServer's `ImgCutout/getjpeg`."""

    def __init__(self, responder: CutoutResponder) -> None:
        self._responder = responder

    async def getjpeg(self, request: web.Request) -> web.Response:
        """Respond to `?ra&dec&scale&width&height`; values out of range are clamped silently."""
        self._responder.log.record_arrival()
        parameters = {name.lower(): value for name, value in request.query.items()}
        try:
            position_deg = _position_deg(parameters)
            scale_arcsec = _clamped(parameters, "scale", default=0.396127, low=0.015, high=2400.0)
            width, height = (_clamped(parameters, side, default=128, low=64, high=2048) for side in ("width", "height"))
        except ValueError as error:
            return effects.json_error(400, str(error))
        query = CutoutQuery(position_deg=position_deg, scale_arcsec=scale_arcsec, size_px=(int(width), int(height)))
        return await self._responder.respond(request, query, self)

    def outside_footprint(self, request: web.Request, query: CutoutQuery) -> web.Response:
        is_old = int(request.match_info["release"]) < FIRST_RELEASE_WITH_404
        tile = effects.black_tile("outside the footprint", *query.size_px)
        return effects.jpeg(tile, status=200 if is_old else 404)

    def server_error(self, query: CutoutQuery) -> web.Response:
        return effects.jpeg(effects.black_tile("internal error", *query.size_px), status=500)

    def error_message(self, object_id: int) -> web.Response:
        return effects.error_message(object_id)

    def client_error(self) -> web.Response:
        return effects.json_error(400, "parameter ra is missing: give ra and dec in degrees")


class ViewerCutouts:
    """Handler and error replies of the Legacy Surveys' `viewer/cutout.jpg`."""

    def __init__(self, responder: CutoutResponder) -> None:
        self._responder = responder

    async def cutout(self, request: web.Request) -> web.Response:
        """Respond to `?ra&dec&size&layer&pixscale`; sizes above 3000 px are reduced silently."""
        self._responder.log.record_arrival()
        parameters = request.query
        try:
            position_deg = _position_deg(parameters)
            scale_arcsec = _clamped(parameters, "pixscale", default=0.262, low=0.01, high=100.0)
            side_px = int(_clamped(parameters, "size", default=256, low=1, high=3000))
        except ValueError:
            return self.client_error()
        composite = VIEWER_LAYERS.get(parameters.get("layer", "ls-dr9"))
        if composite is None:
            return self.error_message(0)
        query = CutoutQuery(
            position_deg=position_deg, scale_arcsec=scale_arcsec, size_px=(side_px, side_px), composite=composite
        )
        return await self._responder.respond(request, query, self)

    def outside_footprint(self, request: web.Request, query: CutoutQuery) -> web.Response:  # noqa: ARG002
        return effects.jpeg(effects.flat_tile(*query.size_px))

    def server_error(self, query: CutoutQuery) -> web.Response:  # noqa: ARG002
        return effects.html_page(_ERROR_PAGE, status=500)

    def error_message(self, object_id: int) -> web.Response:  # noqa: ARG002
        return web.Response(text="no such layer")

    def client_error(self) -> web.Response:
        return web.Response(status=400, text="Need ra,dec keywords")


def _parse_number(parameters: Mapping[str, str], name: str, default: float | None = None) -> float:
    if name not in parameters and default is not None:
        return default
    if name not in parameters:
        raise ValueError(f"parameter {name} is missing: give ra and dec in degrees")
    text = parameters[name]
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"parameter {name} = {text!r} is not a number") from error
    if not math.isfinite(value) or (name == "dec" and abs(value) > 90):
        raise ValueError(f"parameter {name} = {text!r} is out of range")
    return value


def _position_deg(parameters: Mapping[str, str]) -> tuple[float, float]:
    return _parse_number(parameters, "ra"), _parse_number(parameters, "dec")


def _clamped(parameters: Mapping[str, str], name: str, *, default: float, low: float, high: float) -> float:
    return min(max(_parse_number(parameters, name, default), low), high)
