"""Responses to cutout requests: the cutout of the object, or its planned fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from galstore.emulator import fault_effects as effects
from galstore.emulator.faults import Fault, FaultPlan, RequestLog
from galstore.emulator.sky.drawing_pool import DrawingPool
from galstore.emulator.survey import CutoutQuery, Survey

_IMAGE_FAULTS: dict[Fault, Callable[[bytes], bytes]] = {
    Fault.TRUNCATED: lambda body: body[: len(body) // 2],
    Fault.WRONG_SIZE: effects.crop_to_quarter,
    Fault.TRAILING_BYTES: lambda body: body + b"\r\n0\r\n\r\n",
}
"""Faults that damage the image of the object."""


class ErrorReplies(Protocol):
    """Replies of one service when it sends no image."""

    def outside_footprint(self, request: web.Request, query: CutoutQuery) -> web.Response: ...

    def server_error(self, query: CutoutQuery) -> web.Response: ...

    def error_message(self, object_id: int) -> web.Response: ...

    def client_error(self) -> web.Response: ...


class CutoutResponder:
    """Source of the cutout responses of all emulated services; requests and faults are added to `log`."""

    def __init__(self, survey: Survey, drawing_pool: DrawingPool, plan: FaultPlan, log: RequestLog) -> None:
        self.log = log
        self._survey = survey
        self._drawing_pool = drawing_pool
        self._plan = plan
        self._unresponsive_port = effects.UnresponsivePort()
        # good images of the last two objects: at least one belongs to another object, as a stuck cache needs
        self._sent: list[tuple[int, bytes]] = []

    def close(self) -> None:
        self._unresponsive_port.close()

    async def respond(self, request: web.Request, query: CutoutQuery, replies: ErrorReplies) -> web.Response:
        """Return the cutout, or the error reply of the service."""
        if effects.REDIRECTED in request.query:
            return effects.redirect_to_itself(request)
        object_id = self._survey.find(*query.position_deg)
        if object_id is None:
            if not self._survey.covers(*query.position_deg):
                return replies.outside_footprint(request, query)
            return effects.jpeg(await self._drawing_pool.draw(self._survey.cutout(None, query)))
        fault, cached_body = self._next_fault(object_id)
        if fault is Fault.READ_TIMEOUT:
            return await effects.wait_for_hangup(request)
        if fault is not None and fault not in _IMAGE_FAULTS:
            return self._faulty_response(fault, request, object_id, query, cached_body, replies)
        body = await self._drawing_pool.draw(self._survey.cutout(object_id, query))
        if fault is not None:
            return effects.jpeg(_IMAGE_FAULTS[fault](body))
        self._sent = [*self._sent_others(object_id), (object_id, body)][-2:]
        return effects.jpeg(body)

    def _sent_others(self, object_id: int) -> list[tuple[int, bytes]]:
        return [(other_id, body) for other_id, body in self._sent if other_id != object_id]

    def _next_fault(self, object_id: int) -> tuple[Fault | None, bytes]:
        """Count the attempt, log its fault, and return the fault with the body of a stuck cache."""
        attempt = self.log.count_attempt(object_id)
        planned = self._plan.object_fault(object_id)
        fault, body_of, body = planned.at(attempt), None, b""
        if fault is None:
            return None, b""
        if fault is Fault.STUCK_CACHE:
            others = self._sent_others(object_id)
            if not others:
                return None, b""
            body_of, body = others[-1]
        self.log.record_fault(object_id, attempt, planned, body_of)
        return fault, body

    def _faulty_response(
        self, fault: Fault, request: web.Request, object_id: int, query: CutoutQuery, body: bytes, replies: ErrorReplies
    ) -> web.Response:
        jpeg, html_page = effects.jpeg, effects.html_page
        responses: dict[Fault, Callable[[], web.Response]] = {
            Fault.TOO_MANY_REQUESTS: lambda: effects.too_many_requests(object_id, self._plan.section.retry_after_s),
            Fault.SERVER_ERROR: lambda: replies.server_error(query),
            Fault.OUTAGE_PAGE: lambda: html_page(effects.OUTAGE_PAGE, status=503),
            Fault.OUT_OF_FOOTPRINT: lambda: replies.outside_footprint(request, query),
            Fault.BLACK_TILE: lambda: jpeg(effects.black_tile("outside the footprint", *query.size_px)),
            Fault.FLAT_TILE: lambda: jpeg(effects.flat_tile(*query.size_px)),
            Fault.HTML_PAGE: lambda: html_page(effects.OUTAGE_PAGE, status=200),
            Fault.ERROR_MESSAGE: lambda: replies.error_message(object_id),
            Fault.NOT_A_JPEG: lambda: jpeg(effects.flat_tile(*query.size_px, file_format="PNG")),
            Fault.BOMB: lambda: jpeg(effects.decompression_bomb()),
            Fault.CONNECT_TIMEOUT: self._unresponsive_port.redirect,
            Fault.CONNECTION_RESET: lambda: effects.reset_connection(request),
            Fault.STUCK_CACHE: lambda: jpeg(body),
            Fault.CLIENT_ERROR: replies.client_error,
            Fault.REDIRECT_LOOP: lambda: effects.redirect_to_itself(request),
        }
        return responses[fault]()
