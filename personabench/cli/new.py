"""`personabench new`: write a working method or task and its test, to start from."""

from __future__ import annotations

import importlib.util
import json
import keyword
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.help import PlainCommand

if TYPE_CHECKING:
    from personabench.api.registry import Kind

app = typer.Typer(help="Start your own method or task.", no_args_is_help=True)

METHOD = '''"""{title}: say here what it does and where it comes from."""

from dataclasses import dataclass

from personabench import Context, Method, Sample


class {title}(Method):
    """Answer with the user's newest records as examples."""

    name = "{name}"
    needs = ("history",)

    @dataclass(frozen=True)
    class Params:
        """k: records shown."""

        k: int = 3

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return await ctx.answer(sample, records=sample.history[::-1][: self.params.k])
'''

METHOD_TEST = """from {name} import {title}

from personabench.testing import trial


def test_every_sample_is_answered_in_one_call():
    result = trial({title}(), limit=4)
    assert len(result.predictions) >= 4
    assert all(line.error is None and line.output for line in result.predictions)
    assert all(len(line.calls) == 1 for line in result.predictions)


def test_the_newest_record_is_shown():
    result = trial({title}({title}.Params(k=1)), limit=1)
    assert all(len(request.messages) > 2 for request in result.requests)
"""

TASK = '''"""{title}: say here what is asked and where the data comes from."""

from collections.abc import Iterator
from pathlib import Path

from personabench import Record, Sample, Task, Vocabulary, read_rows


class {title}(Task):
    """How many stars does this reader give a book?"""

    name = "{name}"
    kind = "ordinal"
    labels = ("1", "2", "3", "4", "5")
    words = Vocabulary(person="reader", stimulus="book", response="rating")

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        for row in read_rows(data, split):
            rated = (Record(stimulus=past["book"], response=past["stars"]) for past in row["rated"])
            yield Sample(
                user_id=row["reader"],
                input=f"How many stars would this reader give this book? {row['book']}",
                stimulus=row["book"],
                history=tuple(rated),
                references=(row["stars"],),
            )
'''

TASK_TEST = """from {name} import {title}

from personabench.testing import check_task, trial


def test_every_check_holds():
    failed = [finding for finding in check_task({title}()) if finding.holds is False]
    assert failed == []


def test_an_answer_is_read_and_scored():
    result = trial("rag", {title}(), answer=lambda request: "I would say 4 stars.")
    assert all(line.error is None for line in result.predictions)
    assert all(line.parsed == "4" for line in result.predictions)
    assert 0 < result.summary.metrics["lenient"]["MAE"] < 2


def test_the_history_is_shown():
    result = trial("rag", {title}(), limit=1)
    messages = [message.content for message in result.requests[0].messages]
    assert "How many stars would this reader give this book? {book}" in messages
"""

BOOKS = (
    ("A lighthouse keeper counts the days until spring.", "quiet"),
    ("Three sisters divide the house of their mother.", "quiet"),
    ("A farewell letter that was never sent.", "quiet"),
    ("A gardener remembers one long summer.", "quiet"),
    ("A spy has one night to cross the border.", "fast"),
    ("The last train leaves with a bomb on board.", "fast"),
    ("Two thieves rob the same bank on the same day.", "fast"),
    ("A diver finds what the navy sank in secret.", "fast"),
)
"""Invented books and their pace."""

READERS = (
    ("ada", "quiet"),
    ("ben", "fast"),
    ("cleo", "quiet"),
    ("dan", "fast"),
    ("eve", "quiet"),
    ("finn", "fast"),
)
"""Readers and the pace that they like; six users are enough for an interval."""


def write_examples() -> str:
    """Write the example data of a new task: two questions per reader, as JSON lines."""
    rows = []
    for number, (reader, liked) in enumerate(READERS):
        ratings = [
            {"book": book, "stars": _rate(pace == liked, number + index)}
            for index, (book, pace) in enumerate(BOOKS)
        ]
        # The last book of either pace is the question, the others are the history.
        questions = [ratings[3], ratings[7]]
        rated = [rating for rating in ratings if rating not in questions]
        rows += [{"reader": reader, **question, "rated": rated} for question in questions]
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _rate(is_liked: bool, turn: int) -> str:
    return str((5 if is_liked else 2) - turn % 2)


@app.callback()
def _root() -> None:
    """Start your own method or task."""


Folder = Annotated[
    Path, typer.Option("--folder", metavar="FOLDER", help="Folder for the new files.")
]


@app.command("method", cls=PlainCommand)
def method(
    name: Annotated[str, typer.Argument(help="Method name, such as my_method.", metavar="NAME")],
    folder: Folder = Path(),
) -> None:
    """Write NAME.py and test_NAME.py, which run as they are."""
    from personabench.api.registry import example_task

    title = _class_name("method", name)
    module, test = folder / f"{name}.py", folder / f"test_{name}.py"
    _write_files({module: _fill(METHOD, name, title), test: _fill(METHOD_TEST, name, title)})
    _print_next_steps(
        [module, test],
        f"pytest {quote(str(test))}",
        f"personabench check method {quote(str(module))}",
        f"personabench run --method {quote(f'none,{module}')} --task {example_task()}",
    )


@app.command("task", cls=PlainCommand)
def task(
    name: Annotated[str, typer.Argument(help="Task name, such as my_task.", metavar="NAME")],
    folder: Folder = Path(),
) -> None:
    """Write a task, its example data and a test, which run as they are."""
    title = _class_name("task", name)
    module, examples, test = (
        folder / f"{name}.py",
        folder / f"{name}.jsonl",
        folder / f"test_{name}.py",
    )
    _write_files(
        {
            module: _fill(TASK, name, title),
            examples: write_examples(),
            test: _fill(TASK_TEST, name, title),
        }
    )
    _print_next_steps(
        [module, examples, test],
        f"pytest {quote(str(test))}",
        f"personabench check task {quote(str(module))}",
        f"personabench run --task {quote(str(module))} --method none,rag",
        f"personabench run --task {quote(str(module))} --method none,rag --data FILE",
    )


def _class_name(kind: Kind, name: str) -> str:
    """Return the class name of a new method or task.

    Raises:
        UsageError: the name cannot be that of a file and a class, or is taken.
    """
    from personabench.api.registry import list_entries
    from personabench.errors import UsageError

    if not name.isidentifier() or not name.islower():
        raise UsageError(
            f"'{name}' cannot name a file and a class; "
            "use lower-case letters, digits and underscores"
        )
    title = "".join(part.capitalize() for part in name.split("_"))
    if keyword.iskeyword(name) or keyword.iskeyword(title):
        raise UsageError(
            f"'{name}' is a Python keyword, as file or as class name; choose another name"
        )
    if title in _imported_names(kind):
        raise UsageError(f"class {title} would hide the {title} that it uses; choose another name")
    if name in sys.stdlib_module_names:
        raise UsageError(f"{name}.py would hide Python's module '{name}'; choose another name")
    if name in list_entries(kind):
        raise UsageError(
            f"a {kind} '{name}' exists already (personabench list {kind}s); choose another name"
        )
    return title


def _imported_names(kind: Kind) -> Sequence[str]:
    if kind == "method":
        return ("Context", "Method", "Sample")
    return ("Iterator", "Path", "Record", "Sample", "Task", "Vocabulary")


def _fill(template: str, name: str, title: str) -> str:
    values = {"name": name, "title": title, "book": BOOKS[2][0]}
    for field, value in values.items():
        template = template.replace(f"{{{field}}}", value)
    return template


def _write_files(files: Mapping[Path, str]) -> None:
    """Write new files.

    Raises:
        UsageError: one exists, or the folder cannot be written.
    """
    from personabench.errors import UsageError

    for path in files:
        if path.exists():
            raise UsageError(f"{path} exists; choose another name or folder")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be written: {error.strerror}") from error


def _print_next_steps(paths: Sequence[Path], *commands: str) -> None:
    *first, last = map(str, paths)
    echo(f"wrote {', '.join(first)} and {last}\n")
    if importlib.util.find_spec("pytest") is None:
        commands = (f"{quote(sys.executable)} -m pip install pytest", *commands)
    for command in commands:
        echo(f"  {command}")
