"""Spreads: small drawings of a distribution that stand in a line of a table, as SVG that follows the page's colours."""

from __future__ import annotations

from markupsafe import Markup

from galstore.profile.distribution import Distribution
from modeling.figures.quality import shared_edges, shares
from modeling.figures.style import Values

WIDTH, HEIGHT = 120.0, 28.0
MOST_BINS = 30


def draw_spread(now: Distribution, before: Distribution | None = None) -> Markup:
    """A distribution as a line (class `now`), over an earlier one as an area (class `before`)."""
    edges = shared_edges([one for one in (before, now) if one is not None], MOST_BINS)
    drawn = [
        (name, shares(one, edges)) for name, one in (("before", before), ("now", now)) if one is not None and one.n
    ]
    if not drawn:
        return Markup("")
    highest = max(float(values.max()) for _, values in drawn) or 1.0
    told = f"median {now.quantile(0.5):.4g}" if now.n else "no values now"
    if before is not None and before.n:
        told += f", before {before.quantile(0.5):.4g}"
    paths = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(name, _steps(values / highest)) for name, values in drawn
    )
    return Markup(
        '<svg class="spread" viewBox="0 0 {:g} {:g}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, told, paths)


def _steps(heights: Values) -> str:
    """An outline of bars from the base line and back, heights 0 ... 1."""
    width = WIDTH / heights.size
    tops = [f"V{HEIGHT * (1 - 0.95 * height):.1f}H{(place + 1) * width:.1f}" for place, height in enumerate(heights)]
    return f"M0 {HEIGHT:g}{''.join(tops)}V{HEIGHT:g}"
