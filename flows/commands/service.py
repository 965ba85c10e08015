"""`galstore up`, `down` and `status`: the Prefect server, worker and deployments of one machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from flows.service.directory import Home

HomeOption = Annotated[
    Path, typer.Option("--home", help="Folder of the service: its database, logs and records of processes")
]
HOME = Path(".galstore")


def register_commands(app: typer.Typer) -> None:
    """Add the commands to `galstore`."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(notify)


def up(
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe of every deployment; as the last time, or as prefect.yaml says, by default"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value of the recipe; may be repeated"),
    ] = None,
    home: HomeOption = HOME,
    port: Annotated[
        int | None, typer.Option(help="Port on 127.0.0.1, 0 for any free one; 4200 or another by default")
    ] = None,
) -> None:
    """Start a Prefect server, a worker and the deployments of prefect.yaml; what runs already is left running.

    Called again it deploys what has changed and starts again what has ended, after a crash or a reboot.

    Example: galstore up --recipe sdss
    """
    from flows.runtime import load_recipe, recipe_names
    from flows.service.deploy import Choice, absolute_recipe
    from flows.service.up import start_services
    from schemas.errors import GalstoreError, ServiceError

    place, folder = _home(home), Path.cwd()
    place.create()
    choice = Choice.remembered(place)
    if recipe is not None:
        recipe = absolute_recipe(recipe, recipe_names())
    if recipe is not None or overrides is not None:
        choice = Choice(recipe=recipe or choice.recipe, overrides=tuple(overrides or ()))
    if choice.recipe is not None:
        load_recipe(choice.recipe, choice.overrides)
    out = stdout()
    try:
        started = start_services(place, folder, choice, port=port, tell=lambda text: out.print(escaped(text)))
    except OSError as error:
        if isinstance(error, GalstoreError):
            raise
        raise ServiceError(
            f"{error.filename or place.folder} cannot be written or read ({error.strerror}): make room or choose "
            "another --home, then `galstore up` again; what runs was left running"
        ) from error
    prefect = (
        "prefect deployment run" if started.shell_is_set else 'eval "$(galstore status --env)"; prefect deployment run'
    )
    out.print(f"\nThe UI is at [bold]{started.ui_url}[/]. Next, in this folder:\n", soft_wrap=True)
    for words in ("ingest --watch", "train --watch", "score -p catalog=new.csv --watch", "report --watch"):
        out.print(f"  {prefect} {words}", soft_wrap=True)
    out.print(
        f"\nCatalogs that you put into {started.inbox} are scored by themselves. `galstore status` shows what goes on; "
        "`galstore down` ends it all and keeps the data.",
        soft_wrap=True,
    )


def down(
    home: HomeOption = HOME,
    wait: Annotated[
        float, typer.Option(help="Seconds that runs under way get to finish before they are cancelled")
    ] = 30.0,
) -> None:
    """End the worker, the server and every run; database, cube and predictions stay.

    Example: galstore down --wait 600
    """
    from flows.service.up import stop_services

    out = stdout()
    n = stop_services(_home(home), Path.cwd(), wait_s=wait, tell=lambda text: out.print(escaped(text)))
    out.print("nothing was running" if n == 0 else "ended; no process is left")


def status(
    home: HomeOption = HOME,
    env: Annotated[
        bool, typer.Option("--env", help='Lines for a shell, as in: eval "$(galstore status --env)"')
    ] = False,
) -> None:
    """Say what runs, what is under way, what comes next and how the last runs ended.

    The exit code is 0 where server and worker run, else 3.

    Example: galstore status
    """
    from flows.service.prefect_settings import shell_variables
    from flows.service.services import KEEPER, SERVER, WORKER, living_service, port_of, server_answers
    from schemas.errors import ServiceError

    place, out = _home(home), stdout()
    port = port_of(place)
    if env:
        if port is None:
            raise ServiceError(f"nothing was ever started in {place.folder}: `galstore up` does")
        out.print(shell_variables(port), soft_wrap=True)
        return
    processes = {service: living_service(place, service) for service in (SERVER, WORKER, KEEPER)}
    for service, process in processes.items():
        out.print(f"{service:8s}" + (f"runs (process {process.pid})" if process else "does not run"))
    healthy = port is not None and server_answers(place, port)
    if port is not None and healthy:
        os.environ.update(place.environment(port))
        from flows.service.status import overview

        out.print(f"UI      http://127.0.0.1:{port}\n")
        out.print(overview())
    if not healthy or None in (processes[SERVER], processes[WORKER]):
        out.print("\n`galstore up` starts what does not run")
        sys.exit(3)


def notify(
    address: Annotated[str, typer.Argument(metavar="URL", help="Where a JSON text is posted to when a run has failed")],
    home: HomeOption = HOME,
) -> None:
    """Have every run that fails, crashes or times out told to a web address: Slack, Mattermost or a program of yours.

    It is a Prefect automation with a webhook block, to be seen and changed in the UI; called again, it gets the new
    address.

    Example: galstore notify https://hooks.slack.com/services/...
    """
    from flows.service.services import port_of, server_answers
    from schemas.errors import ServiceError

    place = _home(home)
    port = port_of(place)
    if port is None or not server_answers(place, port):
        raise ServiceError(f"no server of {place.folder} answers: `galstore up` first")
    os.environ.update(place.environment(port))
    from flows.service.notifications import notify_by_webhook

    notify_by_webhook(address)
    stdout().print("failures are told from now on; the automation is in the UI under Automations")


def _home(folder: Path) -> Home:
    from flows.service.directory import Home

    return Home(folder=folder.absolute())
