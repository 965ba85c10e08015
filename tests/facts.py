"""Matching of facts in a text: tests check numbers, names and ids, not sentences."""

from __future__ import annotations

import re


def facts_near(text: str, *facts: str, within: int = 80) -> bool:
    """Return True if all facts occur within `within` characters of the first one, in any order and case.

    Numbers match as a whole: 88 does not match 1,088.
    """
    first, *others = (_pattern(fact) for fact in facts)
    for found in first.finditer(text):
        near = text[max(0, found.start() - within) : found.end() + within]
        if all(other.search(near) for other in others):
            return True
    return False


def _pattern(fact: str) -> re.Pattern[str]:
    before = r"(?<![\w.,])" if fact[0].isdigit() else ""
    after = r"(?!\w|[.,]\d)" if fact[-1].isdigit() else ""
    return re.compile(before + re.escape(fact) + after, re.IGNORECASE)
