"""Display of responses that are not images."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile

from modeling.report.refused_responses import decode_loosely, show_refused
from tests.conftest import draw_blobs, encode
from tests.facts import facts_near

BODY = encode(draw_blobs(1)[0])


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 7).save(buffer, format="png")
    return buffer.getvalue()


def test_half_a_jpeg_is_decoded_as_far_as_possible() -> None:
    whole, half = decode_loosely(BODY), decode_loosely(BODY[: len(BODY) // 2])
    assert half.shape == whole.shape == (128, 128, 3)
    np.testing.assert_array_equal(half[:16], whole[:16])
    assert not np.array_equal(half[96:], whole[96:])
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("width", "height", "shape"), [(64, 64, (64, 64, 3)), (512, 256, (64, 128, 3)), (1, 1, (1, 1, 3))]
)
def test_images_of_any_size_become_thumbnails(width, height, shape) -> None:
    assert decode_loosely(png(width, height)).shape == shape


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xd8", BODY[:20], png(5000, 5000), b"\x89PNG\r\n\x1a\nrubbish"])
def test_other_content_and_huge_images_have_no_picture(body) -> None:
    assert decode_loosely(body) is None


def test_pictures_and_texts_are_separated_for_each_reason() -> None:
    responses = pd.DataFrame(
        {
            "object_id": [1, 2, 3, 4],
            "reason": ["truncated", "html_page", "html_page", "not_a_jpeg"],
            "body": [BODY[:900], b"<html>\n <b>down</b>" + b" for long" * 100, BODY, bytes(range(128, 250))],
        }
    )
    shown = show_refused(responses)
    assert list(shown) == ["truncated", "html_page", "not_a_jpeg"]
    assert [picture.label for picture in shown["truncated"].pictures] == ["1"]
    ((object_id, text),) = shown["html_page"].texts
    assert object_id == "2"
    assert text.startswith("<html> <b>down</b> for long")
    assert len(text) == 200
    assert [picture.label for picture in shown["html_page"].pictures] == ["3"]
    ((label, described),) = shown["not_a_jpeg"].texts
    assert label == "4"
    assert facts_near(described, "122 bytes", "80 81 82 83 84 85 86 87")
