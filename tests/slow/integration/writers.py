"""Code of writing processes, separate from the tests to save their imports."""

from __future__ import annotations

from functools import partial

import icechunk
import zarr

from galstore.cube.commits import commit


def add_group(name: str, session: icechunk.Session) -> None:
    """Create a group; this conflicts only with other commits."""
    zarr.open_group(session.store, mode="a").create_group(name, attributes={"name": name})


def commit_groups(path: str, writer: int, n_commits: int) -> None:
    """Commit groups one after the other."""
    for number in range(n_commits):
        name = f"w{writer}-{number}"
        commit(path, partial(add_group, name), message=f"add {name}", metadata={"writer": writer, "number": number})
