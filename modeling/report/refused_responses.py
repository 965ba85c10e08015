"""Refused responses of a survey, as a page shows them: pictures as far as they can be decoded, else text."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from modeling.report.pages import Thumbnail, thumbnails
from schemas.cutouts import SIDE_PX

MOST_PIXELS = 4096 * 4096
"""Larger images are not decoded."""

MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedResponses:
    """Responses that were refused for one reason."""

    pictures: tuple[Thumbnail, ...]
    texts: tuple[tuple[str, str], ...]  # object id and text of each response that is not an image


def show_refused(responses: pd.DataFrame) -> dict[str, RefusedResponses]:
    """Group responses, with the columns `object_id`, `reason` (its name) and `body` (bytes), by reason."""
    return {str(reason): _show(group) for reason, group in responses.groupby("reason", sort=False)}


def _show(responses: pd.DataFrame) -> RefusedResponses:
    pictures: list[Thumbnail] = []
    texts = []
    for object_id, body in zip(responses["object_id"], responses["body"], strict=True):
        image = decode_loosely(body)
        if image is None:
            texts.append((str(object_id), _text(body)))
        else:
            # one at a time: they differ in size
            pictures += thumbnails(image[None], [str(object_id)])
    return RefusedResponses(pictures=tuple(pictures), texts=tuple(texts))


def decode_loosely(body: bytes) -> NDArray[np.uint8] | None:
    """Decode an image as far as possible: (y, x, 3), at most 128 px wide and high, or None if it is not an image."""
    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        with Image.open(io.BytesIO(body)) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            image.thumbnail((SIDE_PX, SIDE_PX))
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def _text(body: bytes) -> str:
    text = " ".join(body[: 4 * MOST_CHARACTERS].decode("utf-8", errors="replace").split())
    n_odd = sum(not letter.isprintable() or letter == "\N{REPLACEMENT CHARACTER}" for letter in text)
    if not text or n_odd > len(text) // 10:
        return f"{len(body):,} bytes that are neither an image nor text, starting with {body[:8].hex(' ')}"
    return text[:MOST_CHARACTERS]
