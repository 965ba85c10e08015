"""The `galstore` command."""

from __future__ import annotations

import sys

import typer

from flows.commands import cube, evaluate, features, ingest, models, run, score, service, studies, survey
from flows.terminal import escaped, log_to_terminal
from schemas.errors import GalstoreError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a galaxy survey to a scored catalog: pull cutouts into a Zarr cube, train on it, score new catalogs.\n\n"
    "Example: [bold]galstore run demo[/bold]",
)
for commands in (run, ingest, score, survey, cube, features, evaluate, models, service, studies):
    commands.register_commands(app)


def main() -> None:
    """Run the command line; report galstore's own errors in one line, with exit code 1."""
    log_to_terminal()
    try:
        app()
    except GalstoreError as error:
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escaped(error)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
