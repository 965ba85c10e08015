"""Inputs with every kind of failure, for the test of the fuzzing process."""

from __future__ import annotations

import os
import random
import time
from typing import ClassVar

import numpy as np

from schemas.errors import CatalogError
from tests.slow.fuzz.target import Mutant, Target


class Traps(Target):
    """Target with one mutant per kind, in the order of `kinds`."""

    name: ClassVar[str] = "traps"
    slowest_s: ClassVar[float] = 2.0
    largest_growth_bytes: ClassVar[int] = 64 << 20
    n_warm_up: ClassVar[int] = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("harmless", "escapes", "hangs", "grows", "crashes", "wants too much", "refused")

    def _make(self, rng: random.Random, kind: str) -> Mutant:
        return Mutant(kind=kind, content=rng.randbytes(300))

    def try_out(self, mutant: Mutant) -> str:
        if mutant.kind == "escapes":
            raise KeyError(mutant.kind)
        if mutant.kind == "hangs":
            time.sleep(60)
        if mutant.kind == "grows":
            assert np.ones(100 << 20, dtype=np.uint8).all()
        if mutant.kind == "crashes":
            os.abort()
        if mutant.kind == "wants too much":
            _want_too_much()
        if mutant.kind == "refused":
            raise CatalogError("not this one")
        return "fine"


def _want_too_much() -> None:
    try:
        np.zeros(1 << 40, dtype=np.uint8)
    except MemoryError as error:
        raise CatalogError("as a reader reports a failed allocation") from error
