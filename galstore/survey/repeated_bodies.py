"""Witness: who remembers which image bytes were delivered for which request, to notice a cache that is stuck.

Two places on the sky never give the same bytes. The witness of one process is `LocalWitness`; the Dask scheduler of a
run holds one `RecentBodies` for all of its workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

REMEMBERED_BODIES = 65_536
"""64 blocks; about 30 MB. A cache that is stuck repeats what it sent a moment ago, not yesterday."""

NO_IMAGE = b""
"""In place of a digest: the request has no image."""


class Claim(NamedTuple):
    """A request's image.

    Attributes
    ----------
    key
        What was asked for, as of `CutoutRequest.query`.
    digest
        SHA-256 of the image's bytes, or `NO_IMAGE`.
    examined
        It was asked for again, with another object between, and came again.
    """

    key: str
    digest: bytes
    examined: bool = False


class Witness(Protocol):
    """Whoever hears of all images of a run."""

    async def seen_elsewhere(self, claims: Sequence[Claim]) -> Sequence[bool]:
        """Note some claims, then tell of each whether it is doubtful, as of `RecentBodies`."""


class RecentBodies:
    """The last images of a run, and the requests that claim them.

    A claim is doubtful where another request claims the same image, or did before; an examined one only where the other
    was examined too. Then nobody can tell whose image it is, from now on.

    Parameters
    ----------
    n_remembered
        How many; the oldest are forgotten first.

    Examples
    --------
    >>> bodies = RecentBodies()
    >>> bodies.seen_elsewhere([Claim("ra=1", b"a"), Claim("ra=2", b"a")])
    [True, True]
    >>> bodies.seen_elsewhere([Claim("ra=1", b"a", examined=True), Claim("ra=2", b"a"), Claim("ra=3", b"c")])
    [False, True, False]
    """

    def __init__(self, n_remembered: int = REMEMBERED_BODIES) -> None:
        self._n_remembered = n_remembered
        self._claims: dict[str, Claim] = {}
        self._keys_of: dict[bytes, set[str]] = {}
        self._shared: set[bytes] = set()
        self._contested: set[bytes] = set()

    def seen_elsewhere(self, claims: Sequence[Claim]) -> list[bool]:
        """Note some claims, then tell of each whether it is doubtful."""
        for claim in claims:
            self._let_go(claim.key)
            if claim.digest != NO_IMAGE:
                self._note(claim)
        answers = [self._is_doubtful(claim) for claim in claims]
        while len(self._claims) > self._n_remembered:
            self._let_go(next(iter(self._claims)))
        return answers

    def _note(self, claim: Claim) -> None:
        keys = self._keys_of.setdefault(claim.digest, set())
        if keys:
            self._shared.add(claim.digest)
        if claim.examined and any(self._claims[key].examined for key in keys):
            self._contested.add(claim.digest)
        keys.add(claim.key)
        self._claims[claim.key] = claim

    def _let_go(self, key: str) -> None:
        claim = self._claims.pop(key, None)
        if claim is not None:
            keys = self._keys_of[claim.digest]
            keys.discard(key)
            if not keys:
                del self._keys_of[claim.digest]

    def _is_doubtful(self, claim: Claim) -> bool:
        return claim.digest in (self._contested if claim.examined else self._shared)

    def __len__(self) -> int:
        return len(self._claims)


class LocalWitness:
    """The witness of one process."""

    def __init__(self) -> None:
        self._bodies = RecentBodies()

    async def seen_elsewhere(self, claims: Sequence[Claim]) -> Sequence[bool]:
        return self._bodies.seen_elsewhere(claims)
