"""What a survey sent in place of an image, as somebody can look at it: a picture where there is one, else its text."""

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
"""A larger image is not decoded: no service sends one in earnest."""

MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Some answers of one reason."""

    pictures: tuple[Thumbnail, ...]
    texts: tuple[tuple[str, str], ...]
    """Label and text of those that are no image."""


def show_refused(answers: pd.DataFrame) -> dict[str, Shown]:
    """Answers by reason.

    Parameters
    ----------
    answers
        `object_id`, `reason` (its name) and `body` (bytes).
    """
    return {str(reason): _shown(some) for reason, some in answers.groupby("reason", sort=False)}


def _shown(answers: pd.DataFrame) -> Shown:
    pictures: list[Thumbnail] = []
    texts = []
    for object_id, body in zip(answers["object_id"], answers["body"], strict=True):
        image = decode_loosely(body)
        if image is None:
            texts.append((str(object_id), _text(body)))
        else:
            # one by one: they differ in size
            pictures += thumbnails(image[None], [str(object_id)])
    return Shown(pictures=tuple(pictures), texts=tuple(texts))


def decode_loosely(body: bytes) -> NDArray[np.uint8] | None:
    """As much of an image as there is, (y, x, 3), at most 128 px wide and high; None where there is none at all."""
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
    """Its first words, or that it is none."""
    text = " ".join(body[: 4 * MOST_CHARACTERS].decode("utf-8", errors="replace").split())
    if not text or sum(not one.isprintable() or one == "\N{REPLACEMENT CHARACTER}" for one in text) > len(text) // 10:
        return f"{len(body):,} bytes that are neither an image nor a text, from {body[:8].hex(' ')}"
    return text[:MOST_CHARACTERS]
