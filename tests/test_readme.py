"""README is one screen, with pictures that load quickly."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = 120
LARGEST = 150_000
"""Bytes of a picture."""


def test_the_readme_is_short_and_its_pictures_are_small() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= LINES
    pictures = re.findall(r"!\[.+\]\((.+)\)", readme)
    assert {Path(picture).suffix for picture in pictures} == {".png", ".svg"}
    assert all(0 < (ROOT / picture).stat().st_size < LARGEST for picture in pictures)
