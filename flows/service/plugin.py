"""`prefect deployment run ingest`: a bare name means the deployment of the flow of that name.

Prefect alone wants `ingest/ingest`. Prefect loads this module through its entry point `prefect.plugins` where
`[plugins] enabled = true` stands in `prefect.toml`, as `galstore up` writes it; nothing happens anywhere else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect.plugins import register_hook

_COMMANDS_WITH_A_NAME = frozenset({"run", "inspect", "delete"})


@register_hook
def setup_environment(*, ctx: Any) -> None:  # noqa: ARG001 - Prefect names it
    """Complete the name in this process's command line, if it is Prefect's own and names a deployment."""
    sys.argv[:] = with_whole_names(sys.argv)


def with_whole_names(command: list[str]) -> list[str]:
    """A Prefect command line whose deployment's name is whole.

    Examples
    --------
    >>> with_whole_names(["prefect", "deployment", "run", "ingest", "-p", "recipe=sdss"])
    ['prefect', 'deployment', 'run', 'ingest/ingest', '-p', 'recipe=sdss']
    >>> with_whole_names(["prefect", "deployment", "run", "ingest/ingest"])
    ['prefect', 'deployment', 'run', 'ingest/ingest']
    >>> with_whole_names(["prefect", "flow-run", "inspect", "ingest"])
    ['prefect', 'flow-run', 'inspect', 'ingest']
    """
    if len(command) < 4 or Path(command[0]).name not in {"prefect", "__main__.py", "-m"} or command[1] != "deployment":
        return command
    name = command[3]
    if command[2] not in _COMMANDS_WITH_A_NAME or name.startswith("-") or "/" in name:
        return command
    return [*command[:3], f"{name}/{name}", *command[4:]]
