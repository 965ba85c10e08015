"""Shell: what `prefect` needs to know in a user's terminal, as a `prefect.toml` of the folder or as variables."""

from __future__ import annotations

from pathlib import Path

from flows.service.directory import api_url

SETTINGS_FILE = "prefect.toml"
FIRST_LINE = "# written by `galstore up`; `galstore down` removes it"


def settings_text(port: int) -> str:
    """A `prefect.toml` that names the server and lets deployments be called by a bare name."""
    return f'{FIRST_LINE}\n[api]\nurl = "{api_url(port)}"\n\n[plugins]\nenabled = true\n'


def write_settings(folder: Path, port: int) -> bool:
    """Write the folder's `prefect.toml`, unless there is one of the user's own; whether ours is there."""
    path = folder / SETTINGS_FILE
    if path.exists() and not is_ours(path):
        return False
    path.write_text(settings_text(port), encoding="utf-8")
    return True


def remove_settings(folder: Path) -> None:
    """Remove the folder's `prefect.toml` if it is ours."""
    path = folder / SETTINGS_FILE
    if path.exists() and is_ours(path):
        path.unlink()


def is_ours(path: Path) -> bool:
    """Whether `galstore up` wrote it."""
    return path.read_text(encoding="utf-8", errors="replace").startswith(FIRST_LINE)


def shell_variables(port: int) -> str:
    """The same for any folder, as lines for `eval`."""
    return f"export PREFECT_API_URL={api_url(port)}\nexport PREFECT_PLUGINS_ENABLED=true"
