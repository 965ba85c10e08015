"""Settings of the `prefect` command in a user's terminal: a `prefect.toml` in the folder, or shell variables."""

from __future__ import annotations

from pathlib import Path

from flows.service.directory import api_url

SETTINGS_FILE = "prefect.toml"
FIRST_LINE = "# written by `galstore up`; `galstore down` removes it"


def settings_text(port: int) -> str:
    """Return a `prefect.toml` with the server's address and the plugin that completes deployment names."""
    return f'{FIRST_LINE}\n[api]\nurl = "{api_url(port)}"\n\n[plugins]\nenabled = true\n'


def write_settings(folder: Path, port: int) -> bool:
    """Write the folder's `prefect.toml`; return False if the user has one, which is not changed."""
    path = folder / SETTINGS_FILE
    if path.exists() and not _is_generated(path):
        return False
    path.write_text(settings_text(port), encoding="utf-8")
    return True


def remove_settings(folder: Path) -> None:
    """Remove the folder's `prefect.toml` if `galstore up` wrote it."""
    path = folder / SETTINGS_FILE
    if path.exists() and _is_generated(path):
        path.unlink()


def _is_generated(path: Path) -> bool:
    return path.read_text(encoding="utf-8", errors="replace").startswith(FIRST_LINE)


def shell_variables(port: int) -> str:
    """Return the settings as `export` lines for a shell."""
    return f"export PREFECT_API_URL={api_url(port)}\nexport PREFECT_PLUGINS_ENABLED=true"
