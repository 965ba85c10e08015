"""Mutations of bytes in any format: functions of a random generator, the bytes, and other bytes of the same kind."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
"""Values at which counts, lengths and offsets of one to eight bytes overflow."""

WORDS = (
    b"", b"nan", b"inf", b"-inf", b"-9999", b"1e400", b"-1", b"0x10", b"1_000", b"99999999999999999999", b"\x00",
    b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"'", b'"', b"null", b"true", b"1e18", b"9" * 400, b"A" * 5000,
)  # fmt: skip
"""Replacements for a number or a name."""

_NUMBER = re.compile(rb"\d+")

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def flip_bits(rng: random.Random, source: bytes, _: bytes) -> bytes:
    mutant = bytearray(source)
    for _unused in range(rng.choice((1, 1, 2, 8, 64))):
        mutant[rng.randrange(len(mutant))] ^= 1 << rng.randrange(8)
    return bytes(mutant)


def truncate(rng: random.Random, source: bytes, _: bytes) -> bytes:
    return source[: rng.randrange(len(source))]


def splice(rng: random.Random, source: bytes, other: bytes) -> bytes:
    """Join the beginning of one input and the end of another."""
    return source[: rng.randrange(len(source))] + other[rng.randrange(len(other)) :]


def overwrite(rng: random.Random, source: bytes, _: bytes) -> bytes:
    first = rng.randrange(len(source))
    return source[:first] + rng.randbytes(min(rng.choice((1, 4, 16, 256)), len(source) - first)) + source[first + 256 :]


def delete(rng: random.Random, source: bytes, _: bytes) -> bytes:
    first = rng.randrange(len(source))
    return source[:first] + source[first + rng.choice((1, 2, 8, 80, 512)) :]


def insert(rng: random.Random, source: bytes, _: bytes) -> bytes:
    first = rng.randrange(len(source))
    return source[:first] + rng.choice((rng.randbytes(rng.randrange(1, 64)), rng.choice(WORDS))) + source[first:]


def repeat(rng: random.Random, source: bytes, _: bytes) -> bytes:
    first = rng.randrange(len(source))
    return source[:first] + source[first : first + rng.randrange(1, 512)] * rng.choice((2, 3, 50)) + source[first:]


def append(rng: random.Random, source: bytes, other: bytes) -> bytes:
    return source + rng.choice((b"\x00", b"\n", rng.randbytes(rng.randrange(1, 3000)), other))


def put_extreme(rng: random.Random, source: bytes, _: bytes) -> bytes:
    """Write an extreme integer of random width and byte order at a random position."""
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice([extreme for extreme in EXTREMES if extreme < 1 << 8 * width])
    first = rng.randrange(len(source))
    return source[:first] + value.to_bytes(width, rng.choice(("big", "little"))) + source[first + width :]


def put_word(rng: random.Random, source: bytes, _: bytes) -> bytes:
    """Replace a number in a text by another number or word."""
    numbers = list(_NUMBER.finditer(source))
    if not numbers:
        return source + rng.choice(WORDS)
    found = rng.choice(numbers)
    word = rng.choice((rng.choice(WORDS), str(rng.choice(EXTREMES)).encode()))
    return source[: found.start()] + word + source[found.end() :]


def make_noise(rng: random.Random, source: bytes, _: bytes) -> bytes:
    """Make random bytes, sometimes after a valid beginning."""
    return source[: rng.choice((0, 2, 4, 8, 80))] + rng.randbytes(rng.choice((0, 1, 10, 1000, 4000)))


BYTE_MUTATIONS: Mapping[str, Mutation] = {
    "bits": flip_bits,
    "truncated": truncate,
    "spliced": splice,
    "overwritten": overwrite,
    "deleted": delete,
    "inserted": insert,
    "repeated": repeat,
    "appended": append,
    "extreme": put_extreme,
    "word": put_word,
    "noise": make_noise,
}
