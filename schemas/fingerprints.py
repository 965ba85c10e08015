"""Fingerprints: names that identify content, equal on every machine."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel

LENGTH = 12
"""Hexadecimal digits: 48 bits, so a collision among a thousand models has a probability of 2e-9."""


def fingerprint(**parts: object) -> str:
    """Return the first digits of the SHA-256 of JSON values and pydantic models by name, in any order."""
    plain = {
        name: part.model_dump(mode="json") if isinstance(part, BaseModel) else part for name, part in parts.items()
    }
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]
