"""`check method` finds methods that read gold answers, in whichever way they come by them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.errors import PluginError
from personabench.testing.checks import check_method
from personabench.testing.data_access import DataAccessError, Loaded, refuse_data_access

GOLDS = Path(str(find_spec("personabench.tasks").submodule_search_locations[0])) / (
    "lamp/sample/lamp4/dev_outputs.json"
)
READS = "the method reads no task's data"
CANARY = "no prompt or answer contains a reference"
HEAD = """import sys

from personabench import Method
from personabench.api.registry import load_class
from personabench.api.users import open_split


class Cheat(Method):
    "Reads the golds."

    name = "cheat"

    async def predict(self, sample, state, ctx):
"""
ONE_CALL = """        golds = {{s.id: s.references[0] for s in {data}.samples()}}
        return golds[sample.id]
"""
CAUGHT = """        try:
            return {{s.id: s.references[0] for s in {data}.samples()}}[sample.id]
        except Exception:
            return "nothing"
"""


def check(folder: Path, body: str, head: str = HEAD) -> dict[str, tuple[bool | None, str]]:
    path = folder / "cheat.py"
    path.write_text(head + body)
    with refuse_data_access() as calls:
        method = registry.load_class("method", str(path))()
    findings = check_method(method, "lamp4", limit=2, refused_calls=calls)
    return {finding.what: (finding.holds, finding.detail) for finding in findings}


@pytest.mark.variants
@pytest.mark.parametrize("form", [ONE_CALL, CAUGHT], ids=["plain", "caught"])
@pytest.mark.parametrize(
    ("data", "call"),
    [
        ('ctx.task.open("user/dev", None)', "ctx.task.open is read"),
        ('load_class("task", ctx.task.name)().open("user/dev", None)', "Lamp.open is called"),
        ('load_class("task", "lamp2m")().open("user/dev", None)', "Lamp.open is called"),
        ('open_split(load_class("task", "lamp4")(), "user/dev", None)', "Lamp.open is called"),
        ('load_class("task", "reviews")().open("test", None)', "Reviews.open is called"),
        (
            'sys.modules["personabench.api.wording"]._tasks[ctx.task].open("user/dev", None)',
            "Lamp.open is called",
        ),
        (
            '__import__("personabench.tasks.lamp.records", fromlist=["x"])'
            '.LampData("lamp4", "user/dev", None)',
            "Dataset.samples is called",
        ),
        (f"open({str(GOLDS)!r}).read()", "dev_outputs.json is opened"),
        (f"__import__('pathlib').Path({str(GOLDS)!r}).read_text()", "dev_outputs.json is opened"),
    ],
)
def test_a_call_that_opens_a_tasks_data_is_named(
    tmp_path: Path, form: str, data: str, call: str
) -> None:
    holds, detail = check(tmp_path, form.format(data=data))[READS]
    assert holds is False
    assert call in detail
    assert f"in {tmp_path / 'cheat.py'}, line 1" in detail
    assert data in detail


@pytest.mark.variants
def test_a_call_while_the_file_is_imported_is_named(tmp_path: Path) -> None:
    reading = 'DATA = load_class("task", "lamp4")().open("user/dev", None)'
    head = HEAD.replace(
        "\n\nclass", f"\ntry:\n    {reading}\nexcept Exception:\n    DATA = None\n\n\nclass"
    )
    holds, detail = check(tmp_path, '        return "nothing"\n', head)[READS]
    assert holds is False
    assert f"line 8: `{reading}`" in detail

    (tmp_path / "cheat.py").write_text(
        HEAD.replace("\n\nclass", f"\n{reading}\n\n\nclass") + "        pass\n"
    )
    said = "cheat.py, line 7.*must not read the data of a task"
    with pytest.raises(PluginError, match=said), refuse_data_access():
        registry.load_class("method", str(tmp_path / "cheat.py"))


@pytest.mark.variants
def test_a_task_that_only_loads_samples_is_covered(tmp_path: Path) -> None:
    (tmp_path / "days.py").write_text(
        "from personabench import Sample, Task, Vocabulary\n\n\n"
        "class Days(Task):\n"
        '    words = Vocabulary(person="guest", stimulus="day", response="reply")\n\n'
        "    def load(self, split, data):\n"
        '        yield Sample(id="a", user_id="ann", input="Dinner?", references=("no",))\n'
    )
    opening = f'load_class("task", {str(tmp_path / "days.py")!r})().open("dev", None)'
    holds, detail = check(tmp_path, CAUGHT.format(data=opening))[READS]
    assert holds is False
    assert ".open is called" in detail


@pytest.mark.variants
def test_the_example_data_of_a_plugin_is_covered(tmp_path: Path) -> None:
    (tmp_path / "days.py").write_text(
        "from personabench import Sample, Task, Vocabulary\n\n\n"
        "class Days(Task):\n"
        '    words = Vocabulary(person="guest", stimulus="day", response="reply")\n'
    )
    data = tmp_path / "days.jsonl"
    data.write_text('{"day": "1"}\n')
    registry.load_class("task", str(tmp_path / "days.py"))
    reading = f"sys.modules['personabench'].read_rows(__import__('pathlib').Path({str(data)!r}))"
    holds, detail = check(tmp_path, CAUGHT.format(data=f"list({reading})"))[READS]
    assert holds is False
    assert "days.jsonl is opened" in detail


@pytest.mark.variants
def test_a_reference_from_a_frame_of_the_engine_is_detected(tmp_path: Path) -> None:
    body = """        frame = sys._getframe()
        while frame:
            full = frame.f_locals.get("sample")
            if full is not None and full.references:
                return full.references[0]
            frame = frame.f_back
        return "nothing"
"""
    assert check(tmp_path, body)[CANARY] == (False, "3 answers")


def test_an_honest_method_passes(tmp_path: Path) -> None:
    body = """        records = await ctx.retrieve(sample, 3)
        return await ctx.answer(sample, records)
"""
    findings = check(tmp_path, body)
    assert {holds for holds, _ in findings.values()} == {True}
    assert READS in findings


def test_data_can_be_read_again_after_the_block() -> None:
    opened = Task.__subclasses__(), Dataset.__subclasses__()
    task = registry.load_class("task", "lamp4")()
    loaded = Loaded(task.open("user/dev", None))
    with refuse_data_access():
        with pytest.raises(DataAccessError):
            task.open("user/dev", None)
        assert loaded.load(0).references

        class Late(type(task)):  # type: ignore[misc]
            name = "late"

            def open(self, split, data):  # type: ignore[no-untyped-def]
                return loaded

        with pytest.raises(DataAccessError, match=r"Late\.open is called"):
            Late().open("user/dev", None)

    assert list(task.open("user/dev", None).samples()) == list(loaded.samples())
    assert Late().open("user/dev", None) is loaded
    assert all(opened)
