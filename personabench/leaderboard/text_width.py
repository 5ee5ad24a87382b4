"""Widths of texts in Computer Modern, by which a LaTeX table is made to fit its column.

They are the advances of cmr10, scaled; bold is cmbx10, 15 % wider at most.  Times, which many
styles use, is narrower.
"""

from __future__ import annotations

_BOLD = 1.15
# Of an em in thousandths; an unknown character counts as the widest.
_WIDEST = 1028
_WIDTHS = {
    1028: "W",
    917: "M",
    833: "m%#",
    778: "GKOQ+=&@<>±−−↑↓≤Δ",
    765: "DAHNUVXY",
    737: "BCRwT",
    681: "EFPZL",
    556: "bdhknpquvxyS",
    528: "JI",
    500: "aego0123456789/*$",
    472: "czs?",
    445: "r§",
    400: "ft()†‡",
    334: "- j",
    278: "il.,:;'!|[]·",
}
_WIDTH_OF = {character: width for width, characters in _WIDTHS.items() for character in characters}
# Written by LaTeX as further characters.
_WIDTH_OF |= {"–": 500, "_": 500, "—": 1000, "…": 1000}


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """The width of a text in points, at a font size in points; never too small."""
    thousandths = sum(_WIDTH_OF.get(character, _WIDEST) for character in text)
    return thousandths * size / 1000 * (_BOLD if bold else 1.0)
