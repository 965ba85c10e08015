"""What is fuzzed: a target makes the mutant of an index, the same one each time, and tells what became of it."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

SEED = 2019


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One input.

    Attributes
    ----------
    kind
        How it was made, as tallies call it.
    content
        The bytes to be judged or read.
    status
        HTTP status with which they come; 0 where they come from a file.
    """

    kind: str
    content: bytes
    status: int = 0


class Target(ABC):
    """A way into galstore for bytes from outside."""

    name: ClassVar[str]

    slowest_s: ClassVar[float] = 20.0
    """Wall time of one input. The slowest takes a second alone; on a busy machine it has to share."""

    largest_growth_bytes: ClassVar[int] = 256 << 20
    """Memory in use (RSS) at its peak, above what the process has before the input."""

    n_warm_up: ClassVar[int] = 60
    """Inputs before memory is measured: imports, compiled code, caches."""

    def make(self, index: int) -> Mutant:
        """The mutant of this index; it depends on nothing else."""
        kinds = self.kinds
        return self._make(random.Random(f"{SEED} {self.name} {index}"), kinds[index % len(kinds)])

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """All kinds of mutants; indices take them in turn."""

    @abstractmethod
    def _make(self, rng: random.Random, kind: str) -> Mutant: ...

    @abstractmethod
    def try_out(self, mutant: Mutant) -> str:
        """Give a mutant to galstore; returns what came of it in a word.

        Raises
        ------
        GalstoreError
            The input was refused, as it may be.
        Exception
            Anything else is a failure of the code under test.
        """
