"""Witness: who remembers which image bytes were delivered for which request, to notice a cache that is stuck.

Two places on the sky never give the same bytes. The witness of one process is `LocalWitness`; the Dask scheduler of a
run holds one `RecentBodies` for all of its workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import urlencode

REMEMBERED_BODIES = 65_536
"""64 blocks; about 12 MB. A cache that is stuck repeats what it sent a moment ago, not yesterday."""


class Witness(Protocol):
    """Whoever hears of all images of a run."""

    async def seen_elsewhere(self, requests_and_digests: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        """Whether another request got an image before, for each pair of a request's key and its image's SHA-256."""


class RecentBodies:
    """The last images of a run: SHA-256 of the body, and the key of the request that got it first.

    Parameters
    ----------
    n_remembered
        How many; the oldest are forgotten first.

    Examples
    --------
    >>> bodies = RecentBodies()
    >>> bodies.seen_elsewhere([("ra=1", b"a"), ("ra=2", b"a"), ("ra=2", b"b")])
    [False, True, False]
    >>> bodies.seen_elsewhere([("ra=1", b"a"), ("ra=3", b"b")])
    [False, True]
    """

    def __init__(self, n_remembered: int = REMEMBERED_BODIES) -> None:
        self._n_remembered = n_remembered
        self._key_of: dict[bytes, str] = {}

    def seen_elsewhere(self, requests_and_digests: Sequence[tuple[str, bytes]]) -> list[bool]:
        """Remember the images that are new, and tell which of them another request got before."""
        answers = [self._key_of.setdefault(digest, key) != key for key, digest in requests_and_digests]
        while len(self._key_of) > self._n_remembered:
            del self._key_of[next(iter(self._key_of))]
        return answers

    def __len__(self) -> int:
        return len(self._key_of)


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
