"""Facts of a text, whatever sentence they stand in: tests ask for numbers, names and ids, not for wording."""

from __future__ import annotations

import re


def told_together(text: str, *facts: str, within: int = 80) -> bool:
    """Whether all facts stand in a text, in any order and case, within so many characters of the first of them.

    A number is found whole: 88 is not in 1,088.
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
