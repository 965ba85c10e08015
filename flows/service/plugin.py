"""Prefect plugin that completes bare deployment names: `prefect deployment run ingest` means `ingest/ingest`.

Prefect loads this module through its entry point `prefect.plugins` if `prefect.toml` has `[plugins] enabled = true`,
as written by `galstore up`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prefect.plugins import register_hook

_COMMANDS_WITH_A_NAME = frozenset({"run", "inspect", "delete"})


@register_hook
def setup_environment(*, ctx: object) -> None:  # noqa: ARG001 - Prefect's signature
    """Complete the deployment name in the command line of this process."""
    sys.argv[:] = complete_deployment_name(sys.argv)


def complete_deployment_name(command: list[str]) -> list[str]:
    """Complete the deployment name of a Prefect command line; return other command lines unchanged.

    Examples
    --------
    >>> complete_deployment_name(["prefect", "deployment", "run", "ingest", "-p", "recipe=sdss"])
    ['prefect', 'deployment', 'run', 'ingest/ingest', '-p', 'recipe=sdss']
    >>> complete_deployment_name(["prefect", "deployment", "run", "ingest/ingest"])
    ['prefect', 'deployment', 'run', 'ingest/ingest']
    >>> complete_deployment_name(["prefect", "flow-run", "inspect", "ingest"])
    ['prefect', 'flow-run', 'inspect', 'ingest']
    """
    if len(command) < 4 or Path(command[0]).name not in {"prefect", "__main__.py", "-m"} or command[1] != "deployment":
        return command
    name = command[3]
    if command[2] not in _COMMANDS_WITH_A_NAME or name.startswith("-") or "/" in name:
        return command
    return [*command[:3], f"{name}/{name}", *command[4:]]
