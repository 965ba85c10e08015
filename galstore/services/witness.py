"""Witness: who remembers which image bytes were delivered for which request, to notice a cache that is stuck.

Two places on the sky never give the same bytes. The witness of one process is `LocalWitness`; the Dask scheduler of a
run holds one `RecentBodies` for all of its workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

REMEMBERED_BODIES = 65_536
"""64 blocks; about 30 MB. A cache that is stuck repeats what it sent a moment ago, not yesterday."""

GIVEN_BACK = b""
"""In place of a digest: the image is doubted, and asked for once more."""


class Witness(Protocol):
    """Whoever hears of all images of a run."""

    async def seen_elsewhere(self, requests_and_digests: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        """Whether another request has an image too, for each pair of a request's key and its image's SHA-256."""


@dataclass(slots=True)
class _Claim:
    """Which image a request got last, how many answers in a row brought it, and whether it ever got another."""

    digest: bytes
    n_times: int = 0
    changed: bool = False
    given_back: bool = True

    @property
    def proven(self) -> bool:
        return self.n_times > 1 and not self.changed


class RecentBodies:
    """The last images of a run: SHA-256 of the body, and the keys of the requests that got it last.

    A request that is told of another one gives its image back and asks again: then what it gets is noted as a further
    answer. Whoever got nothing but this image, several times, may keep it, unless that holds for two.

    Parameters
    ----------
    n_remembered
        How many; the oldest are forgotten first.

    Examples
    --------
    >>> bodies = RecentBodies()
    >>> bodies.seen_elsewhere([("ra=1", b"a"), ("ra=2", b"a")])
    [True, True]
    >>> bodies.seen_elsewhere([("ra=1", GIVEN_BACK), ("ra=1", b"a"), ("ra=2", b"a"), ("ra=3", b"c")])
    [False, False, True, False]
    """

    def __init__(self, n_remembered: int = REMEMBERED_BODIES) -> None:
        self._n_remembered = n_remembered
        self._claims: dict[str, _Claim] = {}
        self._keys_of: dict[bytes, set[str]] = {}

    def seen_elsewhere(self, requests_and_digests: Sequence[tuple[str, bytes]]) -> list[bool]:
        """Note who got which image, and tell which of them another request has too."""
        for key, digest in requests_and_digests:
            self._note(key, digest)
        answers = [self._is_elsewhere(key, digest) for key, digest in requests_and_digests]
        while len(self._claims) > self._n_remembered:
            oldest = next(iter(self._claims))
            self._let_go(oldest, self._claims.pop(oldest).digest)
        return answers

    def _note(self, key: str, digest: bytes) -> None:
        claim = self._claims.get(key)
        if digest == GIVEN_BACK:
            if claim is not None:
                claim.given_back = True
            return
        if claim is None:
            claim = self._claims[key] = _Claim(digest)
        elif claim.digest != digest:
            self._let_go(key, claim.digest)
            claim = self._claims[key] = _Claim(digest, changed=True)
        self._keys_of.setdefault(digest, set()).add(key)
        claim.n_times += claim.given_back
        claim.given_back = False

    def _let_go(self, key: str, digest: bytes) -> None:
        keys = self._keys_of[digest]
        keys.discard(key)
        if not keys:
            del self._keys_of[digest]

    def _is_elsewhere(self, key: str, digest: bytes) -> bool:
        others = self._keys_of.get(digest, set()) - {key}
        claim = self._claims.get(key)
        mine = claim is not None and claim.proven and not any(self._claims[other].proven for other in others)
        return bool(others) and not mine

    def __len__(self) -> int:
        return len(self._claims)


class LocalWitness:
    """The witness of one process."""

    def __init__(self) -> None:
        self._bodies = RecentBodies()

    async def seen_elsewhere(self, requests_and_digests: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        return self._bodies.seen_elsewhere(requests_and_digests)


def key_of(params: Mapping[str, str]) -> str:
    """What a request asks for, as one string, whatever the order of its parameters.

    Examples
    --------
    >>> key_of({"ra": "1.5", "dec": "-2"})
    'dec=-2&ra=1.5'
    """
    return urlencode(sorted(params.items()))
