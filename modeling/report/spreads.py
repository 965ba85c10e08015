"""Distributions in a report: sparklines for table cells, as SVG in the colours of the page, and JSON summaries."""

from __future__ import annotations

import math

from markupsafe import Markup

from galstore.profile.distribution import Distribution
from modeling.figures.quality import shared_edges, shares
from modeling.figures.style import Values

WIDTH, HEIGHT = 120.0, 28.0
MOST_BINS = 30


def draw_spread(now: Distribution, before: Distribution | None = None) -> Markup:
    """Draw a distribution as a line (class `now`) over an earlier one as an area (class `before`)."""
    given = {name: values for name, values in (("before", before), ("now", now)) if values is not None}
    edges = shared_edges(list(given.values()), MOST_BINS)
    drawn = {name: shares(values, edges) for name, values in given.items() if values.n}
    if not drawn:
        return Markup("")
    highest = max(float(heights.max()) for heights in drawn.values()) or 1.0
    label = f"median {now.quantile(0.5):.4g}" if now.n else "no values now"
    if before is not None and before.n:
        label += f", before {before.quantile(0.5):.4g}"
    paths = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(name, _outline(heights / highest)) for name, heights in drawn.items()
    )
    return Markup(
        '<svg class="spread" viewBox="0 0 {:g} {:g}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, label, paths)


def _outline(heights: Values) -> str:
    # path data of bars of height 0 ... 1, from the base line and back to it
    width = WIDTH / heights.size
    tops = [f"V{HEIGHT * (1 - 0.95 * height):.1f}H{(place + 1) * width:.1f}" for place, height in enumerate(heights)]
    return f"M0 {HEIGHT:g}{''.join(tops)}V{HEIGHT:g}"


def summarise_spread(spread: Distribution) -> dict[str, float | None]:
    """Return number of values, number of nulls and quantiles, ready for JSON."""
    shares_below = {"p2_5": 0.025, "p16": 0.16, "p50": 0.5, "p84": 0.84, "p97_5": 0.975}
    quantiles = {name: finite_or_none(spread.quantile(share)) for name, share in shares_below.items()}
    return {"n": spread.n, "n_null": spread.n_null, **quantiles}


def finite_or_none(value: float) -> float | None:
    """Replace NaN and infinity, which JSON lacks, by None."""
    return value if math.isfinite(value) else None
