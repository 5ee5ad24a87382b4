"""The registry: methods and tasks by path, entry point and file, and its messages."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from personabench import Method, Task
from personabench.api import plugin_files, registry
from personabench.errors import PersonabenchError, UsageError

PLUGIN = """
from personabench import Method

class Shout(Method):
    {name}
    async def predict(self, sample, state, ctx):
        return (await ctx.answer(sample, records=sample.history[-3:])).upper()
"""

TASK = """
from pathlib import Path

from toy_methods import Toy

class Mine(Toy):
    name = "lamp4"
"""


def plugin(folder: Path, text: str, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def test_built_ins_are_described_from_their_source() -> None:
    methods, tasks = registry.list_entries("method"), registry.list_entries("task")
    assert {"none", "random", "recency", "rag", "summary", "dpl"} <= methods.keys()
    assert {f"lamp{n}" for n in ("1", "2m", "2n", "3", "4", "5", "6", "7")} <= tasks.keys()
    assert list(methods) == sorted(methods)
    rag = methods["rag"]
    assert (rag.kind, rag.attribute, rag.origin) == ("method", "Rag", "built-in")
    assert "2304.11406" in rag.facts["paper"] and rag.facts["needs"] == ("history",)
    assert rag.about.startswith("Show the k records")


def test_every_built_in_loads_under_its_name() -> None:
    for kind, base in (("method", Method), ("task", Task)):
        for name in registry.list_entries(kind):  # type: ignore[arg-type]
            cls = registry.load_class(kind, name)  # type: ignore[arg-type]
            assert issubclass(cls, base) and cls.name == name  # type: ignore[type-abstract]


def test_listing_imports_no_method_and_no_task() -> None:
    code = (
        "import sys; from personabench.api import registry\n"
        "registry.list_entries('method'); registry.list_entries('task')\n"
        "prefixes = ('personabench.methods.', 'personabench.tasks.')\n"
        "print([name for name in sys.modules if name.startswith(prefixes)])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        ("method", "sumary", "no method named 'sumary'; did you mean summary"),
        ("task", "lamp2", "no task named 'lamp2'; did you mean lamp2m or lamp2n"),
        ("task", "LaMP-3", "no task named 'LaMP-3'; did you mean lamp3?"),
        ("task", "LaMP_2M", "no task named 'LaMP_2M'; did you mean lamp2m?"),
        ("method", "Persona-DB", "no method named 'Persona-DB'; did you mean persona_db?"),
        ("task", "zzz", "known: or lamp1, lamp2m"),
    ],
)
def test_an_unknown_name_gets_a_hint(kind: registry.Kind, name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.load_class(kind, name)
    assert all(word in str(caught.value) for word in hint.split(" or "))


def test_a_method_by_path_is_named_by_its_class_or_its_file(tmp_path: Path) -> None:
    path = plugin(tmp_path, PLUGIN.format(name="name = 'shout'"))
    assert registry.load_class("method", str(path)).name == "shout"
    assert registry.load_class("method", f"{path}:Shout").name == "shout"
    assert (
        registry.load_class(
            "method", str(plugin(tmp_path, PLUGIN.format(name="pass"), "loud.py"))
        ).name
        == "loud"
    )


def test_methods_that_share_a_file_are_named_by_their_classes(tmp_path: Path) -> None:
    second = (
        PLUGIN.format(name="")
        .replace("Shout", "Scream")
        .replace("from personabench import Method", "")
    )
    path = plugin(tmp_path, PLUGIN.format(name="") + second)
    names = [registry.load_class("method", f"{path}:{name}").name for name in ("Shout", "Scream")]
    assert names == ["Shout", "Scream"]


def test_the_source_hash_follows_the_source(tmp_path: Path) -> None:
    one = registry.load_class("method", str(plugin(tmp_path, PLUGIN.format(name="pass"))))
    first = registry.source_hash(one)
    assert registry.source_hash(registry.load_class("method", str(tmp_path / "mine.py"))) == first
    two = registry.load_class("method", str(plugin(tmp_path, PLUGIN.format(name="version = 2"))))
    assert registry.source_hash(two) != first
    package = registry.load_class("method", "dpl")
    assert registry.source_hash(package) != registry.source_hash(
        registry.load_class("method", "rag")
    )


@pytest.mark.parametrize(
    ("text", "class_name", "message"),
    [
        ("def broken(:\n", "", r"mine\.py, line 1\): .* does not import: SyntaxError"),
        (
            "import nowhere_to_be_found",
            "",
            "does not import: ModuleNotFoundError: No module named 'nowhere",
        ),
        ("1 / 0", "", "does not import: ZeroDivisionError"),
        ("x = 1", "", "expected one subclass of personabench.Method, but it defines none"),
        (
            PLUGIN.format(name="pass") + "class B(Shout): pass\n",
            "",
            "the file defines Shout, B; name one as",
        ),
        (PLUGIN.format(name="pass"), ":Whisper", "defines no method class 'Whisper'; found: Shout"),
        (
            "from personabench import Method\nclass Empty(Method): pass",
            "",
            "does not implement predict",
        ),
    ],
)
def test_a_broken_plugin_is_explained(
    tmp_path: Path, text: str, class_name: str, message: str
) -> None:
    path = plugin(tmp_path, text)
    with pytest.raises(PersonabenchError, match=message):
        registry.load_class("method", f"{path}{class_name}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*absent\.py to load a task from"):
        registry.load_class("task", str(tmp_path / "absent.py"))


def test_entry_points_replace_built_ins_and_broken_ones_fail_only_when_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, PLUGIN.format(name="name = 'rag'"), "plugged_in.py")
    plugin(tmp_path, "raise RuntimeError('no licence')", "plugged_badly.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    group = "personabench.methods"
    points = [
        EntryPoint("rag", "plugged_in:Shout", group),
        EntryPoint("bad", "plugged_badly:Bad", group),
    ]
    monkeypatch.setattr(
        registry, "_find_entry_points", lambda kind: points if kind == "method" else []
    )
    assert registry.load_class("method", "rag").__name__ == "Shout"
    assert {"bad", "none"} <= registry.list_entries("method").keys()
    with pytest.raises(
        PersonabenchError,
        match=r"method 'bad' \(plugin, plugged_badly:Bad\) .*line 1.* import: .*no licence",
    ):
        registry.load_class("method", "bad")
    assert registry.load_class("method", "none").name == "none"


def test_an_entry_point_names_a_class_that_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from personabench import Method\n\n\nclass {title}(Method):\n    {body}\n\n"
    predict = "async def predict(self, sample, state, ctx):\n        return ''"
    source = code.format(title="Bare", body=predict)
    source += code.format(title="Other", body=f"name = 'elsewhere'\n\n    {predict}")
    (tmp_path / "unnamed_plugin.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    group = "personabench.methods"
    points = [
        EntryPoint("bare", "unnamed_plugin:Bare", group),
        EntryPoint("other", "unnamed_plugin:Other", group),
    ]
    monkeypatch.setattr(
        registry, "_find_entry_points", lambda kind: points if kind == "method" else []
    )
    assert registry.load_class("method", "bare").name == "bare"
    with pytest.raises(
        PersonabenchError, match="the entry point is called 'other'; give both one name"
    ):
        registry.load_class("method", "other")


def test_a_broken_file_among_the_built_ins_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = plugin(tmp_path, "class Half(Method)\n    name = 'half'\n")
    with caplog.at_level(logging.WARNING):
        # No folder of built-in methods can be named.
        assert list(registry._described("method", path, "mine", 0)) == []  # noqa: SLF001
    assert "mine.py is skipped: line 1" in caplog.text


def test_a_method_is_not_loaded_as_a_task(tmp_path: Path) -> None:
    path = plugin(tmp_path, PLUGIN.format(name="pass"))
    with pytest.raises(PersonabenchError, match=r"expected one subclass of personabench\.Task"):
        registry.load_class("task", str(path))


@pytest.mark.parametrize(
    ("kind", "text"), [("method", PLUGIN.format(name="name = 'rag'")), ("task", TASK)]
)
def test_a_file_with_the_name_of_an_installed_class_is_refused(
    tmp_path: Path, kind: registry.Kind, text: str
) -> None:
    with pytest.raises(
        UsageError, match=rf"is called '(rag|lamp4)', as an installed {kind} is: .*another `name`"
    ):
        registry.load_class(kind, str(plugin(tmp_path, text)))


@pytest.mark.parametrize("name", ["{folder}/mine.py", "{folder}/mine.py:Shout", "mine.py", "gone"])
def test_names_from_data_never_run_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plugin(
        tmp_path,
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + PLUGIN.format(name="name = 'shout'"),
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"is not installed here; name its file with --method FILE"
    ):
        registry.load_recorded("method", name.format(folder=tmp_path), "")
    assert not (tmp_path / "ran").exists()


def test_a_loaded_file_is_found_by_its_recorded_name(tmp_path: Path) -> None:
    path = plugin(tmp_path, PLUGIN.format(name="name = 'shouted'"))
    cls = registry.load_class("method", str(path))
    source = registry.source_hash(cls)
    assert (
        registry.load_recorded("method", "shouted", source) is cls
        and registry.find_source_hash("method", "shouted") == source
    )
    with pytest.raises(
        UsageError, match=r"mine\.py:Shout is not the code that made the runs of method 'shouted'"
    ):
        registry.load_recorded("method", "shouted", "0" * 64)
    assert (
        registry.find_source_hash("method", "rag"),
        registry.find_source_hash("method", "unheard"),
    ) == (
        "installed",
        "",
    )


def test_a_file_imports_modules_beside_it_which_are_part_of_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugin_files, "_folders", [])
    text = "from loud_words import LOUD\n" + PLUGIN.format(name="loud = LOUD")
    path = plugin(tmp_path / "one", text)
    plugin(tmp_path / "one", "LOUD = 1\n", "loud_words.py")
    first = registry.load_class("method", str(path))
    first_hash = registry.source_hash(first)

    plugin(tmp_path / "one", "LOUD = 200\n", "loud_words.py")
    second = registry.load_class("method", str(path))
    assert (first.loud, second.loud) == (1, 200)
    assert registry.source_hash(second) != first_hash

    twin = plugin(tmp_path / "two", text)
    plugin(tmp_path / "two", "LOUD = 3\n", "loud_words.py")
    assert registry.load_class("method", str(twin)).loud == 3
    assert registry.load_class("method", str(path)).loud == 200


def test_a_file_beside_a_plugin_hides_no_module_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugin_files, "_folders", [])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    plugin(tmp_path, "raise RuntimeError\n", "colorsys.py")
    path = plugin(tmp_path, "import colorsys\n" + PLUGIN.format(name="pass"))
    assert registry.load_class("method", str(path)).__name__ == "Shout"
