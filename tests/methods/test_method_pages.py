"""The page of a method names its parameters."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from personabench.api import registry

PAGES = Path(__file__).parents[2] / "docs" / "methods"
ROW = re.compile(r"^\| `(\w+)` \|.*\[\w+\]\((\w+\.md)\) \|$", re.MULTILINE)
PAGE_OF = dict(ROW.findall((PAGES / "README.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", sorted(registry.list_entries("method")))
def test_every_parameter_of_a_method_is_on_its_page(name: str) -> None:
    cls = registry.load_class("method", name)
    # A method that derives from another has the other's parameters, on the other's page.
    bases = [base for base in cls.__mro__ if getattr(base, "name", None) in PAGE_OF]
    pages = {PAGES / PAGE_OF[base.name] for base in [cls, *bases]}
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    names = {field.name for field in dataclasses.fields(cls.Params)}
    assert [name for name in sorted(names) if not re.search(rf"`(\w+\.)?{name}[`=]", text)] == []
