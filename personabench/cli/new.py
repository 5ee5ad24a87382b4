"""`personabench new`: write a working method and its test, to start from."""

from __future__ import annotations

import keyword
import sys
from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.help import PlainCommand

app = typer.Typer(help="Start your own method.", no_args_is_help=True)

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

TEST = """from {name} import {title}

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


@app.callback()
def _root() -> None:
    """Start your own method."""


@app.command("method", cls=PlainCommand)
def method(
    name: Annotated[str, typer.Argument(help="Method name, such as my_method.", metavar="NAME")],
    folder: Annotated[
        Path, typer.Option("--folder", metavar="FOLDER", help="Folder for the two files.")
    ] = Path(),
) -> None:
    """Write NAME.py and test_NAME.py, which run as they are."""
    from personabench.api.registry import example_task, list_entries
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
    if name in sys.stdlib_module_names:
        raise UsageError(f"{name}.py would hide Python's module '{name}'; choose another name")
    if name in list_entries("method"):
        raise UsageError(
            f"a method '{name}' exists already (personabench list methods); choose another name"
        )
    files = {folder / f"{name}.py": METHOD, folder / f"test_{name}.py": TEST}
    for path in files:
        if path.exists():
            raise UsageError(f"{path} exists; choose another name or folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text.format(name=name, title=title), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from error
    module = folder / f"{name}.py"
    typer.echo(f"wrote {module} and {folder / f'test_{name}.py'}\n")
    typer.echo(f"  pytest {folder / f'test_{name}.py'}")
    typer.echo(f"  personabench check method {module}")
    typer.echo(f"  personabench run --method none,{module} --task {example_task()}")
