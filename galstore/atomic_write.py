"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` when the block ends without an error.

    Parent folders are created. Readers see the old file or the new one, never a part.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "new" / "table.csv"
    >>> with atomic_file(path) as draft:
    ...     _ = draft.write_text("a,b")
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('a,b', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_path(path)
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which is renamed to `path` when the block ends without an error.

    Raises
    ------
    OSError
        `path` is a file or a folder with content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_path(path)
    draft.mkdir()
    try:
        yield draft
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _draft_path(path: Path) -> Path:
    # hidden, with the process id: cleaning up can tell drafts of dead processes
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}")
