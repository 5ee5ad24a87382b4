"""Capabilities: a closed list, of which some are derived, and to which plugins are held."""

from __future__ import annotations

from pathlib import Path

import pytest

from personabench.api import registry
from personabench.api.capabilities import CAPABILITIES, DERIVED, explain_missing, offered
from personabench.errors import PluginError, UsageError

METHOD = """
from personabench import Method


class Mine(Method):
    name = "mine"
    {declaration}

    async def predict(self, sample, state, ctx):
        return "x"
"""


def load(folder: Path, declaration: str) -> type:
    path = folder / "mine.py"
    path.write_text(METHOD.format(declaration=declaration))
    return registry.load_class("method", str(path))


def test_every_capability_has_a_meaning_and_a_reason() -> None:
    for name, capability in CAPABILITIES.items():
        assert name.isalpha()
        assert len(capability.meaning.split()) >= 3, name
        assert len(capability.missing.split()) >= 3, name
    assert set().union(*DERIVED.values()) <= CAPABILITIES.keys()


@pytest.mark.parametrize(
    ("declared", "derived"),
    [
        ({"kind": "text"}, {"texts"}),
        ({"kind": "category"}, {"labels", "choices"}),
        ({"kind": "ordinal"}, {"labels", "scores", "choices"}),
        ({"kind": "category", "labels": ()}, {"labels", "choices", "options"}),
        ({"kind": "category", "labels": ("a",)}, {"labels", "choices"}),
        ({"offers": ("options",)}, {"texts", "choices", "options"}),
        ({"offers": ("pairs",)}, {"texts", "choices", "pairs"}),
        ({"protocol": "online"}, {"texts", "feedback"}),
        ({"protocol": "dialogue"}, {"texts", "dialogue"}),
    ],
)
def test_kinds_imply_capabilities(declared: dict, derived: set[str]) -> None:
    assert offered(declared, ()) == derived


def test_alternatives_are_met_by_either() -> None:
    assert explain_missing(("history|feedback",), {"feedback"}) == ""
    assert explain_missing(("history|feedback",), {"dialogue"}) == CAPABILITIES["history"].missing


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ('needs = ("histroy",)', "names 'histroy', which is no capability; expected one of his"),
        ('needs = ("history|feedbak",)', "needs names 'feedbak', which is no capability"),
        ('needs = "history"', "needs .*: expected a tuple of capabilities"),
        ("needs = (3,)", "needs .*: expected a tuple of capabilities"),
        ('refuses = {"lamp4": "no"}', "`refuses` has no effect; declare in `needs`"),
    ],
)
def test_a_plugin_with_an_unknown_capability_is_refused_with_the_list(
    tmp_path: Path, declaration: str, message: str
) -> None:
    with pytest.raises((PluginError, UsageError), match=message):
        load(tmp_path, declaration)
    assert load(tmp_path, 'needs = ("history|feedback", "dates")').needs


def test_the_documentation_lists_every_capability() -> None:
    page = (Path(__file__).parents[2] / "docs" / "capabilities.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert rows.keys() == CAPABILITIES.keys()
    assert all(CAPABILITIES[name].meaning in row for name, row in rows.items())
