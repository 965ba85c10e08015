"""Output of benchmarks: a Markdown table, medians with their range, and the machine and libraries they came from."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version


@dataclass(slots=True)
class Table:
    """Rows of a Markdown table, each printed when it is added."""

    n_failed: int = 0
    rows: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        measured: str,
        compared: str = "",
        ratio: float | None = None,
        aim: str = "",
        *,
        met: bool = True,
    ) -> None:
        verdict = "" if not aim else f"{aim}: {'met' if met else '**missed**'}"
        ratio_text = "" if ratio is None else f"{ratio:.2f}"
        self.rows.append(f"| {name} | {measured} | {compared} | {ratio_text} | {verdict} |")
        self.n_failed += not met
        print(f"  {self.rows[-1]}", flush=True)

    def show(self) -> None:
        print("\n| what | measured | compared with | ratio | limit or aim |\n|---|---|---|---|---|")
        print("\n".join(self.rows))


def ms(seconds: Sequence[float], decimals: int = 0) -> str:
    """Format the median, minimum and maximum of some times in milliseconds."""
    middle, *ends = (
        f"{1e3 * value:,.{decimals}f}" for value in (statistics.median(seconds), min(seconds), max(seconds))
    )
    return f"{middle} ms ({'-'.join(ends)})"


def images_per_s(speeds: Sequence[float]) -> str:
    """Format the median, minimum and maximum of some speeds."""
    return f"{statistics.median(speeds):,.0f} images/s ({min(speeds):,.0f}-{max(speeds):,.0f})"


def machine(*packages: str) -> str:
    """Describe the machine, Python and the versions of some packages."""
    versions = []
    for name in packages:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {', '.join(versions)}"


def section_parser(sections: Collection[str]) -> Callable[[str], list[str]]:
    """Return an argparse type for a comma-separated choice of sections."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = sorted(set(chosen) - set(sections))
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown section {', '.join(unknown)}: choose from {', '.join(sections)}")
        return chosen

    return parse
