"""docs/reference.md is what its script writes from the docstrings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_as_the_docstrings_are() -> None:
    spec = importlib.util.spec_from_file_location("reference_page", DOCS / "reference_page.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert page == script.write_page(), "run: python docs/reference_page.py"
