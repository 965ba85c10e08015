"""Detection of repeated images, which a stuck cache delivers: two positions on the sky never give the same bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

MAX_REMEMBERED = 65_536
"""64 blocks, about 30 MB. A stuck cache repeats recent images, not those of yesterday."""

NO_IMAGE = b""
"""Digest of a request without an image."""


class ReceivedImage(NamedTuple):
    """Image received for a request: `CutoutRequest.query`, and the SHA-256 of the bytes or `NO_IMAGE`.

    `confirmed` means that a recheck, with another object in between, brought the same image again.
    """

    key: str
    digest: bytes
    confirmed: bool = False


RepeatDetector = Callable[[Sequence[ReceivedImage]], Awaitable[list[bool]]]
"""Coroutine function that records images of a run and returns which of them are repeats, see `RecentDigests`."""


class RecentDigests:
    """Digests of the latest images of a run, with the requests that received them.

    An image is a repeat if another request received it too, before or later. A confirmed image is a repeat only if the
    other one is confirmed as well: its owner is then unknown, from now on.

    Parameters
    ----------
    n_remembered
        Number of images; the oldest are forgotten first.

    Examples
    --------
    >>> digests = RecentDigests()
    >>> digests.find_repeats([ReceivedImage("ra=1", b"a"), ReceivedImage("ra=2", b"a")])
    [True, True]
    >>> confirmed = ReceivedImage("ra=1", b"a", confirmed=True)
    >>> digests.find_repeats([confirmed, ReceivedImage("ra=2", b"a"), ReceivedImage("ra=3", b"c")])
    [False, True, False]
    """

    def __init__(self, n_remembered: int = MAX_REMEMBERED) -> None:
        self._n_remembered = n_remembered
        self._images: dict[str, ReceivedImage] = {}
        self._keys_of: dict[bytes, set[str]] = {}
        self._shared: set[bytes] = set()
        self._contested: set[bytes] = set()

    def find_repeats(self, images: Sequence[ReceivedImage]) -> list[bool]:
        """Record images and return which of them are repeats."""
        for image in images:
            self._forget(image.key)
            if image.digest != NO_IMAGE:
                self._record(image)
        repeats = [image.digest in (self._contested if image.confirmed else self._shared) for image in images]
        while len(self._images) > self._n_remembered:
            self._forget(next(iter(self._images)))
        return repeats

    def _record(self, image: ReceivedImage) -> None:
        keys = self._keys_of.setdefault(image.digest, set())
        if keys:
            self._shared.add(image.digest)
        if image.confirmed and any(self._images[key].confirmed for key in keys):
            self._contested.add(image.digest)
        keys.add(image.key)
        self._images[image.key] = image

    def _forget(self, key: str) -> None:
        image = self._images.pop(key, None)
        if image is not None:
            keys = self._keys_of[image.digest]
            keys.discard(key)
            if not keys:
                del self._keys_of[image.digest]


def local_repeat_detector() -> RepeatDetector:
    """Return a repeat detector that starts empty."""
    digests = RecentDigests()

    async def find_repeats(images: Sequence[ReceivedImage]) -> list[bool]:
        return digests.find_repeats(images)

    return find_repeats
