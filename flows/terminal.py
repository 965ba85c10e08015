"""Terminal output: results on stdout for pipes, log and progress on stderr."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.markup import escape

console = Console(stderr=True, highlight=False)
"""Console of log lines and progress bars."""


def stdout() -> Console:
    """Return a console for results."""
    return Console(highlight=False)


def escaped(message: object) -> str:
    """Escape rich markup in a message."""
    return escape(str(message))


def log_to_terminal() -> None:
    """Show log lines of the flows, and warnings of the packages below them, on stderr."""
    handler = RichHandler(
        console=console, show_time=False, show_level=False, show_path=False, highlighter=NullHighlighter(), keywords=[]
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("flows").setLevel(logging.INFO)
    for name in ("flows", "modeling", "galstore"):
        if not logging.getLogger(name).handlers:
            logging.getLogger(name).addHandler(handler)
