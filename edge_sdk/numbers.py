"""Numbers in texts that come from outside."""

from __future__ import annotations

_DIGITS = 18  # int() refuses thousands of them with an error of its own


def whole_number(text: str) -> int | None:
    """A number from 0 in digits of ASCII, at most 18; None for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None


def dbfs(level_db: float) -> str:
    """A level for people, ``-23 dBFS``: whole decibels, and no ``-0`` just below full scale."""
    return f"{round(level_db, 0) + 0.0:.0f} dBFS"
