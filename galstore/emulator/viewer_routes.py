"""The cutout page of the Legacy Surveys viewer, with its own wrong answers and those that a fault plan spoils."""

from __future__ import annotations

from aiohttp import web

from galstore.emulator import fault_effects
from galstore.emulator.cutout_routes import clamped, parse_number
from galstore.emulator.responses import Asked, CutoutDelivery, jpeg, page
from schemas.cutouts import Composite

DEFAULT_SCALE_ARCSEC, SCALE_RANGE_ARCSEC = 0.262, (0.01, 100.0)
DEFAULT_SIDE_PX, SIDE_RANGE_PX = 256, (1, 3000)

DEFAULT_LAYER = "ls-dr9"
LAYERS = {"ls-dr9": Composite.LS_DR9, "sdss": Composite.LEGACY_SDSS}

_NO_LAYER = "no such layer"
_ERROR_PAGE = "<html><head><title>Server Error (500)</title></head><body><h1>Server Error (500)</h1></body></html>\n"


class ViewerRoutes:
    """Handler of `viewer/cutout.jpg`, over the cutouts of a delivery."""

    def __init__(self, delivery: CutoutDelivery) -> None:
        self._delivery = delivery

    async def cutout(self, request: web.Request) -> web.Response:
        """Answer `?ra&dec&size&layer&pixscale`; larger sizes are cut to 3000 px without a word."""
        self._delivery.note_arrival()
        query, manners = request.query, ViewerManners()
        try:
            place = parse_number(query, "ra"), parse_number(query, "dec")
            scale_arcsec = clamped(parse_number(query, "pixscale", DEFAULT_SCALE_ARCSEC), *SCALE_RANGE_ARCSEC)
            side_px = int(clamped(parse_number(query, "size", DEFAULT_SIDE_PX), *SIDE_RANGE_PX))
        except ValueError:
            return manners.bad_request()
        composite = LAYERS.get(query.get("layer", DEFAULT_LAYER))
        if composite is None:
            return manners.refusal(0)
        asked = Asked(place=place, scale_arcsec=scale_arcsec, size_px=(side_px, side_px), composite=composite)
        return await self._delivery.answer(request, asked, manners)


class ViewerManners:
    """How the viewer says what is not an image."""

    def outside(self, request: web.Request, asked: Asked) -> web.Response:  # noqa: ARG002 - as other services' manners
        """200 with a tile of one colour."""
        return jpeg(fault_effects.flat_tile(*asked.size_px))

    def internal_error(self, asked: Asked) -> web.Response:  # noqa: ARG002
        """500 with a page."""
        return page(_ERROR_PAGE, status=500)

    def refusal(self, object_id: int) -> web.Response:  # noqa: ARG002
        """200 with a text."""
        return web.Response(text=_NO_LAYER)

    def bad_request(self) -> web.Response:
        """400 with a text."""
        return web.Response(status=400, text="Need ra,dec keywords")
