"""Launcher of ingest runs: `python -m tests.slow.crash.program OPTIONS`.

With `--serve` it imports libraries once and forks a run for each line on stdin, which saves seconds per kill.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence

LIBRARIES = ("aiohttp", "distributed", "numba", "numcodecs", "pandas", "pandera", "pydantic", "scipy.spatial", "zarr")
"""Imported before forks. Icechunk 2 starts threads when it is imported, and a process with threads must not fork."""


def serve() -> None:
    """Fork a run for each line `{"arguments": […], "environment": {…}}`; print its pid, then its exit status."""
    for library in LIBRARIES:
        importlib.import_module(library)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        imported, announce = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run_forked(request["arguments"], request["environment"], announce)
        os.close(announce)
        os.read(imported, 1)  # kills are timed from here
        os.close(imported)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run_forked(arguments: Sequence[str], environment: dict[str, str], announce: int) -> None:
    code = 1
    try:
        os.setsid()
        os.environ.update(environment)
        from tests.slow.crash.ingest_run import main

        os.close(announce)
        main(arguments)
        code = 0
    except BaseException:
        logging.getLogger("tests.slow.crash").exception("the run failed")
        raise
    finally:
        # the parent process cleans up, not the fork
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        importlib.import_module("tests.slow.crash.ingest_run").main(sys.argv[1:])
