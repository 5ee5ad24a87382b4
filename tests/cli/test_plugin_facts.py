"""`list methods NAME` and `list tasks NAME`: parameters with defaults, plugins included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

from personabench.api import registry
from personabench.cli.plugin_facts import list_parameters, read_meanings

PLUGIN = '''
from dataclasses import dataclass

from personabench import Method


class Mine(Method):
    """Show some records."""

    @dataclass(frozen=True)
    class Params:
        """Attributes:
            k, n: numbers of records,
                as many as fit.
            how: the order.
        """

        k: int = 3
        n: int = 4
        how: str = "newest"

    async def predict(self, sample, state, ctx):
        return sample.input.split()[9999]
'''

LINE = PLUGIN.splitlines().index("        return sample.input.split()[9999]") + 1


def test_meanings_of_several_names_and_lines_are_read() -> None:
    assert read_meanings("Heading.\n\na, b: one\n  more.\nc: two\n\nclosing: words") == {
        "a": "one more.",
        "b": "one more.",
        "c": "two",
        "closing": "words",
    }


def test_parameters_of_a_plugin_are_listed(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    ended = personabench("list", "methods", "mine.py")
    assert ended.code == 0
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["mine.k=3", "int", "numbers", "of", "records,", "as", "many", "as", "fit."] in lines
    assert ["mine.how=newest", "str", "the", "order."] in lines
    facts = personabench("list", "methods", "mine.py", "--json").json
    assert [item["default"] for item in facts["parameters"]] == [3, 4, "newest"]


@pytest.mark.parametrize("kind", ["method", "task"])
def test_every_installed_plugin_has_its_parameters_listed(kind: registry.Kind) -> None:
    for name in registry.list_entries(kind):
        cls = registry.load_class(kind, name)
        names = [parameter.name for parameter in list_parameters(cls)]
        assert names == list(cls.Params.__dataclass_fields__)


def test_unknown_names_are_corrected(refused: Callable[..., str]) -> None:
    assert "did you mean rag" in refused("list", "methods", "rga")


def test_a_failed_run_names_the_line_and_the_log(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    ended = personabench("run", "-m", "mine.py", "-t", "lamp4", "-b", "scripted", "-n", "4")
    assert ended.code == 1
    assert f"Mine.predict ({tmp_path}/mine.py, line {LINE})" in ended.err
    (log,) = [line.split()[1] for line in ended.err.splitlines() if line.startswith("log ")]
    assert "IndexError" in Path(log).read_text()
