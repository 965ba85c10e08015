"""What writing processes run; apart from the tests, so that they start without the tests' imports."""

from __future__ import annotations

from functools import partial

import icechunk
import zarr

from galstore.cube.commits import commit


def add_group(name: str, session: icechunk.Session) -> None:
    """A change that conflicts with nothing but another commit."""
    zarr.open_group(session.store, mode="a").create_group(name, attributes={"name": name})


def commit_groups(path: str, writer: int, n_commits: int) -> None:
    """Commit one group after the other, however many others do the same."""
    for number in range(n_commits):
        name = f"w{writer}-{number}"
        commit(path, partial(add_group, name), message=f"add {name}", metadata={"writer": writer, "number": number})
