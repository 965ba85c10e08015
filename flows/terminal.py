"""The terminal: results go to stdout, for pipes; what comes from elsewhere is printed as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def stdout() -> Console:
    """Where results are printed."""
    from rich.console import Console

    return Console(highlight=False)


def escaped(message: object) -> str:
    """Text without markup, whatever it contains."""
    from rich.markup import escape

    return escape(str(message))
