"""Separate process that tries mutants one after the other, so that hangs and crashes stay isolated.

`python -m tests.slow.fuzz.worker TARGET --show INDEX` prints a mutant as a hex dump and tries it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from schemas.errors import GalstoreError
from tests.slow.fuzz.answers import Answers
from tests.slow.fuzz.bodies import Bodies
from tests.slow.fuzz.catalogs import Catalogs
from tests.slow.fuzz.target import Mutant, Target
from tests.slow.fuzz.traps import Traps

TARGETS: Mapping[str, Callable[[], Target]] = {target.name: target for target in (Bodies, Answers, Catalogs, Traps)}

ADDRESS_SPACE_BYTES = 2 << 30
"""Additional address space (RLIMIT_AS); threads reserve far more than they use."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--show", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    faulthandler.enable()
    target = TARGETS[options.target]()
    # a warning would reach the user without a hint at the file
    warnings.simplefilter("error")
    if options.show is not None:
        mutant = target.make(options.show)
        print(f"{mutant.kind}, status {mutant.status}, {len(mutant.content)} bytes")
        print(hex_dump(mutant.content))
        print(target.try_out(mutant))
        return
    _try_all(target, range(options.first, options.stop), options.folder)


def _try_all(target: Target, indices: range, folder: Path) -> None:
    """Try mutants and write progress and outcomes to files, which survive a crash of the process."""
    for index in range(target.n_warm_up):
        _outcome(target, target.make(index))
    limit_bytes = _status_bytes("VmSize") + ADDRESS_SPACE_BYTES
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    with (
        (folder / "progress").open("wb", buffering=0) as progress,
        (folder / "outcomes").open("a", buffering=1) as outcomes,
    ):
        for index in indices:
            os.pwrite(progress.fileno(), b"%12d" % index, 0)
            mutant = target.make(index)
            before_bytes = _memory_bytes()
            faulthandler.dump_traceback_later(target.slowest_s, exit=True)
            outcome, message = _outcome(target, mutant)
            faulthandler.cancel_dump_traceback_later()
            growth_bytes = _peak_bytes() - before_bytes
            if growth_bytes > target.largest_growth_bytes:
                outcome, message = "TOO MUCH MEMORY", f"{outcome}, and {growth_bytes >> 20} MiB"
            line = {
                "index": index,
                "kind": mutant.kind,
                "outcome": outcome,
                "message": message,
                "growth_bytes": growth_bytes,
            }
            outcomes.write(json.dumps(line) + "\n")


def _outcome(target: Target, mutant: Mutant) -> tuple[str, str]:
    """Return the outcome of a mutant, and the traceback of a failure or an empty text."""
    try:
        outcome = target.try_out(mutant)
    except GalstoreError as error:
        if _is_memory_error(error):
            return "NO MEMORY", "".join(traceback.format_exception(error))
        if not str(error).strip():
            return "NO MESSAGE", "".join(traceback.format_exception(error))
        return type(error).__name__, ""
    except BaseException as error:  # noqa: BLE001 - no other error may escape
        return "ESCAPED", "".join(traceback.format_exception(error))
    return outcome, ""


def _is_memory_error(error: BaseException | None) -> bool:
    """Return True for an error caused by a failed allocation; a timely rejection would not allocate."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def hex_dump(content: bytes, *, most_bytes: int = 512) -> str:
    """Format bytes with offset and characters, 16 per line."""
    lines = []
    for place in range(0, min(len(content), most_bytes), 16):
        row = content[place : place + 16]
        characters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{place:06x}  {row.hex(' '):<47}  {characters}")
    return "\n".join(lines + (["..."] if len(content) > most_bytes else []))


def _memory_bytes() -> int:
    """Return the memory in use and reset the peak, if the system supports it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak_bytes()
    return _status_bytes("VmRSS")


def _peak_bytes() -> int:
    """Return the peak memory in use."""
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status_bytes(name: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main(sys.argv[1:])
