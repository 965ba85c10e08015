"""Interface of a fuzzing target, which makes a reproducible mutant for each index and tries it."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

SEED = 2019


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """Input of a fuzzing target.

    Attributes
    ----------
    kind
        Kind of mutation, for the tally.
    content
        Bytes to read.
    status
        HTTP status of the response; 0 for a file.
    """

    kind: str
    content: bytes
    status: int = 0


class Target(ABC):
    """Entry point of galstore for bytes from outside."""

    name: ClassVar[str]

    slowest_s: ClassVar[float] = 20.0
    """Maximum wall time of one input. The slowest takes a second on an idle machine."""

    largest_growth_bytes: ClassVar[int] = 256 << 20
    """Maximum growth of the peak memory in use (RSS) during one input."""

    n_warm_up: ClassVar[int] = 60
    """Inputs before memory is measured, to fill imports, compiled code and caches."""

    def make(self, index: int) -> Mutant:
        """Return the mutant of an index, which depends on nothing else."""
        kinds = self.kinds
        return self._make(random.Random(f"{SEED} {self.name} {index}"), kinds[index % len(kinds)])

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """Kinds of mutants, assigned to the indices in turn."""

    @abstractmethod
    def _make(self, rng: random.Random, kind: str) -> Mutant: ...

    @abstractmethod
    def try_out(self, mutant: Mutant) -> str:
        """Give a mutant to galstore and return the outcome as a word.

        Raises
        ------
        GalstoreError
            The input was rejected, as expected.
        Exception
            Any other error is a failure of the code under test.
        """
