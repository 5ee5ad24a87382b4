"""Text helpers shared by the built-in methods."""

from __future__ import annotations


def fold(text: str) -> str:
    """A text without differences of case and spacing, for comparisons."""
    return " ".join(text.casefold().split())
