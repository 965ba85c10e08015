"""Faulty responses and damaged images, as the real services send them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import struct
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache

from aiohttp import web
from PIL import Image, ImageDraw

OUTAGE_PAGE = """<!DOCTYPE html>
<html><head><title>Service unavailable</title></head>
<body><h1>503 Service Unavailable</h1><p>SkyServer (emulator) is down for maintenance.</p></body></html>
"""

REDIRECTED = "circle"
"""Query parameter of a request that follows `redirect_to_itself`."""

_ERROR_MESSAGE = "Maximum 60 queries allowed per minute. Rejected query: try later"
_BOMB_SIDE_PX = 30_000
_POLL_S = 0.1


def html_page(html: str, *, status: int) -> web.Response:
    return web.Response(status=status, text=html, content_type="text/html")


def jpeg(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="image/jpeg")


def json_error(status: int, message: str) -> web.Response:
    """Return an error in SkyServer's JSON layout."""
    kind = {400: "BadRequest", 500: "InternalServerError"}[status]
    return web.json_response({"ErrorCode": status, "ErrorType": kind, "ErrorMessage": message}, status=status)


def too_many_requests(object_id: int, retry_after_s: int) -> web.Response:
    """Return 429 with Retry-After: in seconds for even ids, as a date for odd ones."""
    # a date has whole seconds: round up, so that no client returns early
    date = datetime.now(UTC) + timedelta(seconds=retry_after_s + 1 if retry_after_s else 0)
    retry_after = format_datetime(date, usegmt=True) if object_id % 2 else str(retry_after_s)
    return web.Response(status=429, text="Too many requests", headers={"Retry-After": retry_after})


def error_message(object_id: int) -> web.Response:
    """Return 200 with SkyServer's error_message: as CSV for even ids, as JSON for odd ones."""
    if object_id % 2:
        return web.json_response([{"TableName": "Table1", "Rows": [{"error_message": _ERROR_MESSAGE}]}])
    return web.Response(text=f"#Table1\nerror_message\n{_ERROR_MESSAGE}\n", content_type="text/csv")


async def wait_for_hangup(request: web.Request) -> web.Response:
    """Wait until the client hangs up or the server ends."""
    # by default aiohttp does not notify a handler that its client hung up
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)
    return web.Response()


def reset_connection(request: web.Request) -> web.Response:
    """Reset the connection; the returned response is never sent."""
    if request.transport is not None:
        # closing with a linger time of 0 s sends RST instead of FIN
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


def redirect_to_itself(request: web.Request) -> web.Response:
    """Return 302 to the same address, marked so that following it does not count as another attempt."""
    return web.Response(status=302, headers={"Location": str(request.rel_url.update_query({REDIRECTED: "1"}))})


class UnresponsivePort:
    """Port of 127.0.0.1 that leaves connections pending because its queue is full.

    Linux drops connections beyond the queue of a listener (backlog 0 holds one); other systems may refuse them.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def redirect(self) -> web.Response:
        if not self._sockets:
            self._sockets = [socket.socket() for _ in range(4)]
            listener, *fillers = self._sockets
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for filler in fillers:
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(listener.getsockname())
        host, port = self._sockets[0].getsockname()
        return web.Response(status=307, headers={"Location": f"http://{host}:{port}/"})

    def close(self) -> None:
        while self._sockets:
            self._sockets.pop().close()


@cache
def black_tile(message: str, width_px: int, height_px: int) -> bytes:
    """Return a black JPEG with a line of text, as SkyServer sends without an image."""
    tile = Image.new("RGB", (width_px, height_px))
    ImageDraw.Draw(tile).text((4, height_px // 2 - 6), message, fill=(255, 255, 255))
    return _encode(tile, "JPEG")


@cache
def flat_tile(width_px: int, height_px: int, *, file_format: str = "JPEG") -> bytes:
    """Return a dark grey tile, as the Legacy Surveys viewer sends without coverage."""
    return _encode(Image.new("RGB", (width_px, height_px), (32, 32, 32)), file_format)


@cache
def decompression_bomb() -> bytes:
    """Return a small JPEG whose header claims 30,000 x 30,000 pixels (2.7 GB)."""
    body = flat_tile(128, 128)
    size = body.index(b"\xff\xc0") + 5
    return body[:size] + struct.pack(">HH", _BOMB_SIDE_PX, _BOMB_SIDE_PX) + body[size + 4 :]


def crop_to_quarter(body: bytes) -> bytes:
    """Return the upper left quarter of a JPEG as a JPEG."""
    with Image.open(io.BytesIO(body)) as whole:
        return _encode(whole.crop((0, 0, whole.width // 2, whole.height // 2)), "JPEG")


def _encode(image: Image.Image, file_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=85)
    return buffer.getvalue()
