"""Spoiling: answers in place of a cutout, as real services were found to give them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import struct
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

OUTAGE_PAGE = """<!DOCTYPE html>
<html><head><title>Service unavailable</title></head>
<body><h1>503 Service Unavailable</h1><p>SkyServer (emulator) is down for maintenance.</p></body></html>
"""

_REFUSAL = "Maximum 60 queries allowed per minute. Rejected query: try later"
_BOMB_SIDE_PX = 30_000
_LOOK_S = 0.1  # how often a silent answer looks whether the client is still there


def too_many_requests(object_id: int, retry_after_s: int) -> web.Response:
    """429 with Retry-After in seconds for even ids, as a date for odd ones."""
    # a date has whole seconds: the next one, so that no client comes back early
    date = datetime.now(UTC) + timedelta(seconds=retry_after_s + 1 if retry_after_s else 0)
    asked = format_datetime(date, usegmt=True) if object_id % 2 else str(retry_after_s)
    return web.Response(status=429, text="Too many requests", headers={"Retry-After": asked})


def error_message(object_id: int) -> web.Response:
    """200 with SkyServer's refusal, as CSV for even ids, as JSON for odd ones."""
    if object_id % 2:
        return web.json_response([{"TableName": "Table1", "Rows": [{"error_message": _REFUSAL}]}])
    return web.Response(text=f"#Table1\nerror_message\n{_REFUSAL}\n", content_type="text/csv")


async def say_nothing(request: web.Request) -> web.Response:
    """Wait until the client hangs up; the end of the server cancels the wait."""
    # aiohttp tells no handler that its client hung up, unless it cancels all of them for it
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)
    return web.Response()


def reset(request: web.Request) -> web.Response:
    """Reset the connection; what is returned reaches nobody."""
    if request.transport is not None:
        # closing with a linger of 0 s sends RST in place of FIN
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


class DeafPort:
    """A port of 127.0.0.1 where connecting takes longer than anybody waits, since its queue is full.

    Linux drops what does not fit into the queue of a listener (backlog 0 holds one connection); other systems may
    refuse it instead.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def redirect(self) -> web.Response:
        """307 to the port."""
        if not self._sockets:
            self._open()
        host, port = self._sockets[0].getsockname()
        return web.Response(status=307, headers={"Location": f"http://{host}:{port}/"})

    def _open(self) -> None:
        listener = socket.socket()
        self._sockets.append(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = socket.socket()
            self._sockets.append(filler)
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())

    def close(self) -> None:
        while self._sockets:
            self._sockets.pop().close()


@cache
def black_tile(message: str, width_px: int, height_px: int) -> bytes:
    """A black JPEG with a line of text, as SkyServer sends where it has no image."""
    from PIL import Image, ImageDraw

    tile = Image.new("RGB", (width_px, height_px))
    ImageDraw.Draw(tile).text((4, height_px // 2 - 6), message, fill=(255, 255, 255))
    return _encode(tile, "JPEG")


@cache
def flat_tile(width_px: int, height_px: int, *, style: str = "JPEG") -> bytes:
    """A dark grey tile, as the Legacy Surveys viewer sends where it has no coverage."""
    from PIL import Image

    return _encode(Image.new("RGB", (width_px, height_px), (32, 32, 32)), style)


@cache
def bomb() -> bytes:
    """A small JPEG whose header claims 30,000 x 30,000 pixels, 2.7 GB."""
    body = flat_tile(128, 128)
    size = body.index(b"\xff\xc0") + 5
    return body[:size] + struct.pack(">HH", _BOMB_SIDE_PX, _BOMB_SIDE_PX) + body[size + 4 :]


def quarter(body: bytes) -> bytes:
    """The upper left quarter of a JPEG, as a JPEG."""
    from PIL import Image

    with Image.open(io.BytesIO(body)) as whole:
        return _encode(whole.crop((0, 0, whole.width // 2, whole.height // 2)), "JPEG")


def _encode(image: Picture, style: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, style, quality=85)
    return buffer.getvalue()
