"""Commands `up`, `down`, `status` and `notify` of a service: Prefect server, worker and deployments of one machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import Overrides
from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from flows.service.directory import ServiceDirectory

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
        typer.Option(help="Recipe of all deployments; default: the previous one, or that in prefect.yaml"),
    ] = None,
    overrides: Overrides = None,
    home: HomeOption = HOME,
    port: Annotated[
        int | None, typer.Option(help="Port on 127.0.0.1, 0 = any free one; default: 4200 or another free one")
    ] = None,
) -> None:
    """Start a Prefect server, a worker and the deployments of prefect.yaml, unless they run already.

    A further call deploys changes of prefect.yaml, and restarts services after a crash or a reboot.

    Example: galstore up --recipe sdss
    """
    from flows.runtime import load_recipe, recipe_names
    from flows.service.deploy import DeployedRecipe, absolute_recipe
    from flows.service.up import start_services
    from schemas.errors import GalstoreError, ServiceError

    directory, folder = _directory(home), Path.cwd()
    directory.create()
    deployed = DeployedRecipe.load(directory)
    if recipe is not None:
        recipe = absolute_recipe(recipe, recipe_names())
    if recipe is not None or overrides is not None:
        deployed = DeployedRecipe(recipe=recipe or deployed.recipe, overrides=tuple(overrides or ()))
    if deployed.recipe is not None:
        load_recipe(deployed.recipe, deployed.overrides)
    out = stdout()
    try:
        running = start_services(directory, folder, deployed, port=port, report=lambda text: out.print(escaped(text)))
    except OSError as error:
        if isinstance(error, GalstoreError):
            raise
        raise ServiceError(
            f"{error.filename or directory.folder} cannot be written or read ({error.strerror}): make room or choose "
            "another --home, then run `galstore up` again; running services continue"
        ) from error
    prefect = (
        "prefect deployment run"
        if running.prefect_is_configured
        else 'eval "$(galstore status --env)"; prefect deployment run'
    )
    out.print(f"\nThe UI is at [bold]{running.ui_url}[/]. Next, in this folder:\n", soft_wrap=True)
    for words in ("ingest --watch", "train --watch", "score -p catalog=new.csv --watch", "report --watch"):
        out.print(f"  {prefect} {words}", soft_wrap=True)
    out.print(
        f"\nCatalogs that you put into {running.inbox} are scored automatically. `galstore status` shows the state of "
        "all runs; `galstore down` stops the service and keeps the data.",
        soft_wrap=True,
    )


def down(
    home: HomeOption = HOME,
    wait: Annotated[
        float, typer.Option(help="Seconds that active runs get to finish before they are cancelled")
    ] = 30.0,
) -> None:
    """Stop the worker, the server and all runs; keep database, cube and predictions.

    Example: galstore down --wait 600
    """
    from flows.service.up import stop_services

    out = stdout()
    n = stop_services(_directory(home), Path.cwd(), wait_s=wait, report=lambda text: out.print(escaped(text)))
    out.print("nothing was running" if n == 0 else "stopped; no process is running")


def status(
    home: HomeOption = HOME,
    env: Annotated[
        bool, typer.Option("--env", help='Lines for a shell, as in: eval "$(galstore status --env)"')
    ] = False,
) -> None:
    """Show the processes of the service, and the last, active and next runs of each deployment.

    The exit code is 0 if server and worker run, else 3.

    Example: galstore status
    """
    from flows.service.prefect_settings import shell_variables
    from flows.service.services import SERVER, SUPERVISOR, WORKER, running_service, server_answers, server_port
    from schemas.errors import ServiceError

    directory, out = _directory(home), stdout()
    port = server_port(directory)
    if env:
        if port is None:
            raise ServiceError(f"no service was started in {directory.folder}: run `galstore up` first")
        out.print(shell_variables(port), soft_wrap=True)
        return
    processes = {service: running_service(directory, service) for service in (SERVER, WORKER, SUPERVISOR)}
    for service, process in processes.items():
        out.print(f"{service:11s}" + (f"running (process {process.pid})" if process else "not running"))
    healthy = port is not None and server_answers(directory, port)
    if port is not None and healthy:
        os.environ.update(directory.environment(port))
        from flows.service.status import deployment_table

        out.print(f"UI         http://127.0.0.1:{port}\n")
        out.print(deployment_table())
    if not healthy or None in (processes[SERVER], processes[WORKER]):
        out.print("\n`galstore up` starts the missing services")
        sys.exit(3)


def notify(
    address: Annotated[
        str, typer.Argument(metavar="URL", help="Address to which a JSON message is posted when a run fails")
    ],
    home: HomeOption = HOME,
) -> None:
    """Post a message to a webhook when a run fails, crashes or times out: Slack, Mattermost or another program.

    This is a Prefect automation with a webhook block, which can be changed in the UI. A further call replaces the
    address.

    Example: galstore notify https://hooks.slack.com/services/...
    """
    from flows.service.services import server_answers, server_port
    from schemas.errors import ServiceError

    directory = _directory(home)
    port = server_port(directory)
    if port is None or not server_answers(directory, port):
        raise ServiceError(f"the server of {directory.folder} does not answer: run `galstore up` first")
    os.environ.update(directory.environment(port))
    from flows.service.deploy import notify_by_webhook

    notify_by_webhook(address)
    stdout().print("failures are posted from now on; the automation is in the UI under Automations")


def _directory(folder: Path) -> ServiceDirectory:
    from flows.service.directory import ServiceDirectory

    return ServiceDirectory(folder=folder.absolute())
