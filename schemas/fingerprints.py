"""Fingerprints: identity by content. The same parts give the same name, on any machine, in any order."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

LENGTH = 12
"""Hexadecimal digits: 48 bits, so that a thousand models collide with a chance of 2e-9."""


def fingerprint(**parts: Any) -> str:
    """Short name that follows from what determines a thing, and from nothing else.

    Parameters
    ----------
    **parts
        JSON values or pydantic models (recipe sections), by name.

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
