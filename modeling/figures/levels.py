"""Figure of the resolution pyramid of one object; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray


def draw_levels(images: Mapping[int, NDArray[np.uint8] | NDArray[np.float32]], title: str, path: Path) -> None:
    """Write a PNG with all levels of one object side by side, drawn at the same size.

    Images are counts by side in px, shape (side, side, band), bands in the order red, green, blue.
    """
    figure = Figure(figsize=(1.6 * len(images), 2.1), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9)
    for axis, (side, counts) in zip(np.atleast_1d(figure.subplots(1, len(images))), images.items(), strict=True):
        axis.imshow(counts.clip(0, 255) / 255, interpolation="nearest")
        axis.set_title(f"{side} px", fontsize=8)
        axis.set_axis_off()
    figure.savefig(path, dpi=160)
