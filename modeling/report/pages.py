"""Self-contained HTML pages: figures are data URIs, styles are inline, links are relative."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from galstore.atomic_write import atomic_file
from modeling.figures.style import figure_png

MODEL_PAGE, QUALITY_PAGE, PREDICTIONS_PAGE = "report.html", "quality.html", "predictions.html"

NAVIGATION = {MODEL_PAGE: "Model", QUALITY_PAGE: "Data quality", PREDICTIONS_PAGE: "Predictions"}
"""Titles of the pages by file name, in the order of the navigation bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestCounts:
    """Objects of a cube by state: stored + quarantined + pending = registered."""

    registered: int
    stored: int
    quarantined: int
    pending: int
    quarantined_by_reason: Mapping[str, int] = field(default_factory=dict)
    rejected_by_reason: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """Top of a page; it warns that the numbers of a simulated sky are not about real galaxies."""

    title: str
    survey: str
    simulated: bool
    model_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Figure of a page."""

    source: str
    alt: str
    caption: str


def picture(figure: Figure, *, alt: str, caption: str) -> Picture:
    return Picture(source=_data_uri(figure_png(figure)), alt=alt, caption=caption)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """Cutout of a gallery with the label below it."""

    source: str
    label: str


def thumbnails(cutouts: NDArray[np.uint8], labels: Sequence[str]) -> list[Thumbnail]:
    """Encode cutouts (object, y, x, band), bands red, green, blue, as PNG data URIs without resampling."""
    encoded = []
    for image, label in zip(cutouts, labels, strict=True):
        buffer = io.BytesIO()
        imsave(buffer, image, format="png", metadata={"Software": ""})
        encoded.append(Thumbnail(source=_data_uri(buffer.getvalue()), label=label))
    return encoded


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def write_page(path: Path, template: str, heading: Heading, **content: object) -> None:
    """Render a template with its variables and replace the file, named as in `NAVIGATION`, atomically."""
    loader = PackageLoader("modeling")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "dex": lambda number: "n/a" if math.isnan(number) else f"{number:.4f}",
        "share": share_text,
        "short": short_text,
        "words": lambda name: name.replace("_", " "),
    }
    html = environment.get_template(template).render(heading=heading, navigation=NAVIGATION, here=path.name, **content)
    with atomic_file(path) as draft:
        draft.write_text(html, encoding="utf-8")


def share_text(share: float) -> str:
    """Format a share as a percentage; a share other than 0 or 1 is never rounded to 0 % or 100 %.

    Examples
    --------
    >>> share_text(0.5), share_text(0.0), share_text(0.0004), share_text(0.9996), share_text(float("nan"))
    ('50 %', '0 %', '< 0.1 %', '> 99.9 %', 'n/a')
    """
    if math.isnan(share):
        return "n/a"
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.3g} %"


def short_text(number: float) -> str:
    """Format a number of any size in few characters.

    Examples
    --------
    >>> short_text(17.1234), short_text(0.00012), short_text(123456.0), short_text(float("nan"))
    ('17.12', '1.2e-04', '123,456', 'n/a')
    """
    if not math.isfinite(number):
        return "n/a"
    if number and abs(number) < 0.01:
        return f"{number:.1e}"
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.4g}"
