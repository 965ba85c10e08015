"""Mutated cutouts for `galstore.survey.images.check_image`."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import numpy as np
import simplejpeg
from PIL import Image

from galstore.survey.client import MAX_READ_BYTES
from galstore.survey.images import MIN_STANDARD_DEVIATION, check_image
from schemas.cube import DELIVERED_BYTES
from schemas.cutouts import SIDE_PX, Reason
from tests.conftest import SHARED_DATA, draw_blobs, encode
from tests.slow.fuzz.mutations import BYTE_MUTATIONS
from tests.slow.fuzz.target import Mutant, Target

N_REAL = 40
"""Number of real cutouts among the originals, if the shared data is available."""

SIDES = (0, 1, 127, 129, 256, 2048, 2049, 16_384, 65_500, 65_535)
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_FRAME_HEADERS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SOS, _DRI, _COM, _APP0 = 0xDA, 0xDD, 0xFE, 0xE0


def example_bodies() -> list[bytes]:
    """Return JPEGs of many encoders, valid and invalid."""
    blobs = draw_blobs(6)
    pictures = [Image.fromarray(pixels) for pixels in blobs]
    first = pictures[0]
    exif = Image.Exif()
    exif[0x010E] = "a galaxy, with \xff\xd9 in its description"
    thumbnail = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + _saved(first.resize((32, 32)), quality=40)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    black = np.zeros((SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    black[50:60, 20:100] = 200
    return [
        *[encode(pixels) for pixels in blobs],
        *[_saved(picture, quality=75, subsampling=number % 3) for number, picture in enumerate(pictures)],
        _saved(first, quality=75, progressive=True),
        _saved(pictures[1], quality=60, progressive=True, optimize=True, subsampling=2),
        _saved(first, quality=70, restart_marker_blocks=3),
        _saved(first, quality=70, comment=b"made up, \xff\xd9 and \xff\xda"),
        _saved(first, quality=70, exif=exif.tobytes()),
        _SOI + segment + encode(blobs[0])[2:],
        _saved(first.convert("L"), quality=75),
        _saved(first.convert("CMYK"), quality=75),
        _saved(first, quality=75, keep_rgb=True),
        _saved(first.resize((64, 64)), quality=75),
        _saved(first.resize((128, 127)), quality=75),
        _saved(first.resize((512, 512)), quality=30),
        encode(black),
        encode(np.full((SIDE_PX, SIDE_PX, 3), 90, dtype=np.uint8)),
    ]


def _saved(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


class Bodies(Target):
    """Fuzzing target for JPEGs, mutated as bytes and as segments."""

    name: ClassVar[str] = "bodies"
    largest_growth_bytes: ClassVar[int] = 32 << 20

    @cached_property
    def originals(self) -> list[bytes]:
        real = sorted((SHARED_DATA / "sdss_demo" / "cutouts").glob("*.jpg"))[:N_REAL]
        return [*example_bodies(), *(file.read_bytes() for file in real)]

    @property
    def kinds(self) -> tuple[str, ...]:
        return (*BYTE_MUTATIONS, *HEADER_EDITS)

    def _make(self, rng: random.Random, kind: str) -> Mutant:
        body, other = rng.choice(self.originals), rng.choice(self.originals)
        if kind in HEADER_EDITS:
            return Mutant(kind=kind, content=HEADER_EDITS[kind](rng, body))
        return Mutant(kind=kind, content=BYTE_MUTATIONS[kind](rng, body, other))

    def try_out(self, mutant: Mutant) -> str:
        body = mutant.content
        result = check_image(body)
        if len(body) > MAX_READ_BYTES:
            # longer bodies are not read to the end
            assert check_image(body[:MAX_READ_BYTES]).reason is result.reason
        if result.reason is not Reason.NONE:
            assert result.pixels is None
            return result.reason.name.lower()
        pixels = result.pixels
        assert pixels.shape == (SIDE_PX, SIDE_PX, 3)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, simplejpeg.decode_jpeg(body))
        assert pixels.std() >= MIN_STANDARD_DEVIATION
        assert body.startswith(_SOI)
        assert body.endswith(_EOI)
        assert len(body) <= DELIVERED_BYTES
        return "good"


def _split_segments(body: bytes) -> list[bytes]:
    """Split a JPEG into segments; a scan includes its coded bytes, and the last segment is the end of the image."""
    segments, place = [], 2
    while body[place + 1] != _EOI[1]:
        end = place + 2 + int.from_bytes(body[place + 2 : place + 4], "big")
        if body[place + 1] == _SOS:
            while body[end] != 0xFF or body[end + 1] == 0 or 0xD0 <= body[end + 1] <= 0xD7:
                end += 1
        segments.append(body[place:end])
        place = end
    return [*segments, body[place:]]


def _joined(segments: list[bytes]) -> bytes:
    return _SOI + b"".join(segments)


def _with_frame(rng: random.Random, body: bytes, edit: Callable[[bytearray], None]) -> bytes:
    """Return the body with an edited frame header."""
    segments = _split_segments(body)
    for number, segment in enumerate(segments):
        if segment[1] in _FRAME_HEADERS:
            header = bytearray(segment)
            edit(header)
            segments[number] = bytes(header)
    return _joined(segments)


def _edit_sides(rng: random.Random, body: bytes) -> bytes:
    def edit(header: bytearray) -> None:
        header[5:7] = rng.choice((128, *SIDES)).to_bytes(2, "big")
        header[7:9] = rng.choice(SIDES).to_bytes(2, "big")

    return _with_frame(rng, body, edit)


def _edit_channels(rng: random.Random, body: bytes) -> bytes:
    def edit(header: bytearray) -> None:
        header[9] = rng.choice((0, 1, 2, 3, 4, 5, 255))
        if rng.random() < 0.3:
            header[2:4] = (8 + 3 * header[9]).to_bytes(2, "big")
        # sampling factors and tables of the channels
        header[10 + rng.randrange(len(header) - 10)] = rng.choice((0, 1, 0x11, 0x14, 0x41, 0x44, 0xFF))

    return _with_frame(rng, body, edit)


def _edit_frame_kind(rng: random.Random, body: bytes) -> bytes:
    """Claim a process (lossless, hierarchical, arithmetic) or precision that the coded bytes do not have."""

    def edit(header: bytearray) -> None:
        header[1] = rng.choice(_FRAME_HEADERS)
        header[4] = rng.choice((8, 8, 0, 2, 12, 16, 255))

    return _with_frame(rng, body, edit)


def _edit_restarts(rng: random.Random, body: bytes) -> bytes:
    segments = _split_segments(body)
    interval = b"\xff\xdd\x00\x04" + rng.choice((0, 1, 3, 100, 65_535)).to_bytes(2, "big")
    segments.insert(rng.randrange(len(segments)), interval)
    scan = next(number for number, segment in enumerate(segments) if segment[1] == _SOS)
    place = rng.randrange(12, len(segments[scan]))
    restart = bytes([0xFF, 0xD0 + rng.randrange(8)]) * rng.choice((0, 1, 1, 1000))
    segments[scan] = segments[scan][:place] + restart + segments[scan][place:]
    return _joined(segments)


def _repeat_scans(rng: random.Random, body: bytes) -> bytes:
    """Repeat scans; each costs the decoder a pass over all pixels."""
    segments = _split_segments(body)
    scan = rng.choice([number for number, segment in enumerate(segments) if segment[1] == _SOS])
    segment = rng.choice(
        (segments[scan], segments[scan][:14], segments[scan][: rng.randrange(10, len(segments[scan]))])
    )
    repeated = [segment] * rng.choice((1, 50, 99, 100, 2000))
    return _joined([*segments[: scan + 1], *repeated, *segments[scan + 1 :]])


def _edit_lengths(rng: random.Random, body: bytes) -> bytes:
    segments = _split_segments(body)
    number = rng.randrange(len(segments) - 1)
    length = rng.choice((0, 1, 2, 3, 8, 255, 65_535, rng.randrange(65_536)))
    segments[number] = segments[number][:2] + length.to_bytes(2, "big") + segments[number][4:]
    return _joined(segments)


def _shuffle_segments(rng: random.Random, body: bytes) -> bytes:
    """Remove, duplicate or reorder segments."""
    segments = _split_segments(body)
    number = rng.randrange(len(segments))
    segment = segments.pop(number)
    doubled = [*segments[:number], segment, segment, *segments[number:]]
    return _joined(rng.choice((segments, [segment, *segments], [*segments, segment], doubled)))


def _insert_segments(rng: random.Random, body: bytes) -> bytes:
    """Insert comments and application data, with another JPEG inside, with fill bytes, or too many."""
    segments = _split_segments(body)
    inside = rng.choice((b"", b"\xff\xd9", body, rng.randbytes(200), b"Adobe\0\x64\0\0\0\0" + rng.randbytes(1)))
    marker = rng.choice((_COM, _APP0, _APP0 + 1, _APP0 + 14, 0x01, 0xD8, 0xDC, 0xF0))
    segment = b"\xff" * rng.choice((1, 1, 2, 500)) + bytes([marker]) + (len(inside) + 2).to_bytes(2, "big") + inside
    segments.insert(rng.randrange(len(segments)), segment * rng.choice((1, 1, 1, 20)))
    return _joined(segments)


def _pad(rng: random.Random, body: bytes) -> bytes:
    """Pad the body to about the longest that is stored, or the longest that is read."""
    length = rng.choice((DELIVERED_BYTES, MAX_READ_BYTES, 200_000)) + rng.choice((-1, 0, 1))
    missing = max(0, length - len(body))
    filling = rng.choice((bytes(missing), b"\xff" * missing, rng.randbytes(missing)))
    return rng.choice((body + filling, body[:-2] + filling + body[-2:]))


def _graft_end(rng: random.Random, body: bytes) -> bytes:
    """Cut the coded bytes and append an end of the image."""
    return body[: rng.randrange(2, len(body))] + _EOI


HEADER_EDITS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "sides": _edit_sides,
    "channels": _edit_channels,
    "frame kind": _edit_frame_kind,
    "restarts": _edit_restarts,
    "scans": _repeat_scans,
    "lengths": _edit_lengths,
    "segments": _shuffle_segments,
    "further segments": _insert_segments,
    "padded": _pad,
    "early end": _graft_end,
}
