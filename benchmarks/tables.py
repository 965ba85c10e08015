"""What benchmarks print: a Markdown table, and times in milliseconds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """Rows of a Markdown table, printed as they come."""

    n_failed: int = 0
    rows: list[str] = field(default_factory=list)

    def add(
        self,
        what: str,
        measured: str,
        compared: str = "",
        ratio: float | None = None,
        aim: str = "",
        *,
        met: bool = True,
    ) -> None:
        verdict = "" if not aim else f"{aim}: {'met' if met else '**missed**'}"
        shown = "" if ratio is None else f"{ratio:.2f}"
        self.rows.append(f"| {what} | {measured} | {compared} | {shown} | {verdict} |")
        self.n_failed += not met
        print(f"  {self.rows[-1]}", flush=True)

    def show(self) -> None:
        print("\n| what | measured | compared with | ratio | limit or aim |\n|---|---|---|---|---|")
        print("\n".join(self.rows))


def ms(seconds: Sequence[float], decimals: int = 0) -> str:
    """Median of some times, and the shortest and the longest."""
    middle, *ends = (f"{1e3 * one:,.{decimals}f}" for one in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{middle} ms ({'-'.join(ends)})"
