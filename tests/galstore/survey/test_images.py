from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from galstore.survey.images import check_image
from schemas.cutouts import Reason
from tests.conftest import draw_blobs, encode

GOOD = encode(draw_blobs(1)[0])
GREY = simplejpeg.encode_jpeg(np.ascontiguousarray(draw_blobs(1)[0, :, :, :1]), colorspace="GRAY")


def test_a_good_body_gives_its_pixels() -> None:
    result = check_image(GOOD)
    assert result.reason is Reason.NONE
    assert np.array_equal(result.pixels, simplejpeg.decode_jpeg(GOOD))


def black_tile() -> bytes:
    pixels = np.zeros((128, 128, 3), dtype=np.uint8)
    pixels[50:60, 20:100] = 200  # the service adds a line of text
    return encode(pixels)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.NOT_A_JPEG),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), Reason.NOT_A_JPEG),
        (b"no such layer", Reason.ERROR_MESSAGE),
        (b'[{"TableName": "Table1", "Rows": [{"error_message": "too many"}]}]', Reason.ERROR_MESSAGE),
        ("Zugriff für kurze Zeit gesperrt".encode("latin-1"), Reason.ERROR_MESSAGE),
        (b"<html><body>Service unavailable</body></html>", Reason.HTML_PAGE),
        (b"\r\n<!DOCTYPE html>\n<HTML>", Reason.HTML_PAGE),
        (GOOD + b"\r\n", Reason.TRAILING_BYTES),
        (GOOD + GOOD, Reason.TRAILING_BYTES),
        (GOOD[:-200], Reason.TRUNCATED),
        (GOOD[:-200] + b"\xff\xd9", Reason.TRUNCATED),
        (GOOD[:40] + b"\xff\xd9", Reason.TRUNCATED),
        (encode(draw_blobs(1)[0, :64, :64]), Reason.WRONG_SIZE),
        (GREY, Reason.WRONG_SIZE),
        (black_tile(), Reason.OUT_OF_FOOTPRINT),
        (encode(np.full((128, 128, 3), 90, dtype=np.uint8)), Reason.FLAT),
        (GOOD[:-2] + bytes(20_000) + b"\xff\xd9", Reason.TOO_LARGE),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
def test_a_bad_body_has_its_reason(body: bytes, reason: Reason) -> None:
    result = check_image(body)
    assert result.reason is reason
    assert result.pixels is None


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_no_damage_raises(position: int, damage: bytes) -> None:
    result = check_image(GOOD[:position] + damage + GOOD[position + len(damage) :])
    assert (result.pixels is None) == (result.reason is not Reason.NONE)


def test_a_huge_image_in_a_small_file_gets_no_memory() -> None:
    header = bytearray(GOOD)
    frame = header.index(b"\xff\xc0")
    header[frame + 5 : frame + 9] = (65_000).to_bytes(2, "big") * 2
    assert check_image(bytes(header)).reason is Reason.DECOMPRESSION_BOMB


def test_every_real_cutout_is_good(real_bodies: list[bytes]) -> None:
    assert {check_image(body).reason for body in real_bodies} == {Reason.NONE}
