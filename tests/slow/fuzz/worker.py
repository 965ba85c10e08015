"""A process that gives mutants to galstore, one after the other: what hangs it or breaks it costs nobody else.

`python -m tests.slow.fuzz.worker TARGET --show INDEX` prints one mutant as a hex dump and tries it.
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

TARGETS: Mapping[str, Callable[[], Target]] = {one.name: one for one in (Bodies, Answers, Catalogs, Traps)}

ADDRESS_SPACE_BYTES = 2 << 30
"""Address space (RLIMIT_AS) above what the process begins with; threads reserve far more than they use."""


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
    # a warning is what a user sees on the terminal, and says nothing of the file
    warnings.simplefilter("error")
    if options.show is not None:
        mutant = target.make(options.show)
        print(f"{mutant.kind}, status {mutant.status}, {len(mutant.content)} bytes")
        print(hex_dump(mutant.content))
        print(target.try_out(mutant))
        return
    _try_all(target, range(options.first, options.stop), options.folder)


def _try_all(target: Target, indices: range, folder: Path) -> None:
    """Try some mutants; progress, outcomes and failures are files of the folder, whatever becomes of the process."""
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
            outcome, told = _outcome(target, mutant)
            faulthandler.cancel_dump_traceback_later()
            growth_bytes = _peak_bytes() - before_bytes
            if growth_bytes > target.largest_growth_bytes:
                outcome, told = "TOO MUCH MEMORY", f"{outcome}, and {growth_bytes >> 20} MiB"
            line = {"index": index, "kind": mutant.kind, "outcome": outcome, "told": told, "growth_bytes": growth_bytes}
            outcomes.write(json.dumps(line) + "\n")


def _outcome(target: Target, mutant: Mutant) -> tuple[str, str]:
    """What came of a mutant, and what is wrong about that; empty where nothing is."""
    try:
        outcome = target.try_out(mutant)
    except GalstoreError as error:
        if _is_of_memory(error):
            return "NO MEMORY", "".join(traceback.format_exception(error))
        if not str(error).strip():
            return "NO WORD", "".join(traceback.format_exception(error))
        return type(error).__name__, ""
    except BaseException as error:  # noqa: BLE001 - whatever it is, it should not have come here
        return "ESCAPED", "".join(traceback.format_exception(error))
    return outcome, ""


def _is_of_memory(error: BaseException | None) -> bool:
    """Whether an error comes of memory that could not be had: a refusal in time does not ask for it."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def hex_dump(content: bytes, *, most_bytes: int = 512) -> str:
    """Offset, bytes and characters, 16 a line."""
    lines = []
    for place in range(0, min(len(content), most_bytes), 16):
        row = content[place : place + 16]
        told = "".join(chr(one) if 32 <= one < 127 else "." for one in row)
        lines.append(f"{place:06x}  {row.hex(' '):<47}  {told}")
    return "\n".join(lines + (["..."] if len(content) > most_bytes else []))


def _memory_bytes() -> int:
    """Memory in use; from here on the peak is measured anew, where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak_bytes()
    return _status_bytes("VmRSS")


def _peak_bytes() -> int:
    """Most memory in use."""
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status_bytes(name: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main(sys.argv[1:])
