"""Fingerprints: names that identify content, equal on every machine."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel

LENGTH = 12
"""Hexadecimal digits: 48 bits, so a collision among a thousand models has a probability of 2e-9."""


def fingerprint(**parts: object) -> str:
    """Return a short hash of the values that determine a thing.

    Parameters
    ----------
    **parts
        JSON values or pydantic models (recipe sections), by name; their order does not matter.

    Returns
    -------
    str
        Twelve hexadecimal digits of a SHA-256 over their canonical JSON.

    Examples
    --------
    >>> fingerprint(target="oh_p50", seed=1) == fingerprint(seed=1, target="oh_p50")
    True
    >>> fingerprint(target="oh_p50", seed=1) == fingerprint(target="oh_p50", seed=2)
    False
    """
    plain = {
        name: part.model_dump(mode="json") if isinstance(part, BaseModel) else part for name, part in parts.items()
    }
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]
