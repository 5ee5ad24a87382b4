"""The options of `run` for one's own tables: from columns to a task file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from personabench.cli.completion import complete_tasks
from personabench.cli.console import echo
from personabench.cli.help import CONTROLS_PANEL, DATA_PANEL
from personabench.cli.parsing import split_names
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.api.own_data.declaration import Declaration

_TASK_FILE = ".toml"
# The file endings by which a value of --history is a table and no control.
_TABLES = (".csv", ".json", ".jsonl", ".parquet", ".gz")


class AnswerKind(StrEnum):
    """The kind of answers in one's own data."""

    choice = "choice"
    label = "label"
    rating = "rating"
    text = "text"


OwnTasks = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK,..",
        autocompletion=complete_tasks,
        help="Tasks, separated by commas; each a name, file.py[:Class] or file.toml. Not needed "
        "for your own tables (--data, --map).",
        rich_help_panel=DATA_PANEL,
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="ROLE=COLUMN,..",
        help="Columns of your own tables: question, user, answer, time, choices, id, item; and "
        "history.response, history.user, history.stimulus, history.time. Repeatable.",
        rich_help_panel=DATA_PANEL,
    ),
]
Kind = Annotated[
    AnswerKind | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="Answers of your own tables: choice, label, rating or text (default: inferred).",
        rich_help_panel=DATA_PANEL,
    ),
]
SaveTask = Annotated[
    Path | None,
    typer.Option(
        "--save-task",
        metavar="FILE",
        help="Task file to write for your own tables (default: under the results folder).",
        dir_okay=False,
        rich_help_panel=DATA_PANEL,
    ),
]
HistoryOrTable = Annotated[
    list[str] | None,
    typer.Option(
        "--history",
        metavar="CONTROL|FILE",
        help="History given to the method: own (default), none, shuffled (another user's) or "
        "size=N. A file is the table of past records of your own data.",
        rich_help_panel=CONTROLS_PANEL,
    ),
]


class DataOptions(NamedTuple):
    """The data of a command: names of tasks, `--data`, and the history control."""

    tasks: str
    data: Path | None
    history: str


def read_data_options(
    task: str | None,
    data: Path | None,
    history: Sequence[str],
    columns: Sequence[str],
    kind: AnswerKind | None,
    save: Path | None,
    results: Path,
) -> DataOptions:
    """Read the options about data; one's own tables become a task file.

    Raises:
        UsageError: options that exclude each other, no task and no data, or an unknown column.
        DataError: the tables have problems; the message lists all of them.
    """
    tables = [value for value in history if value.endswith(_TABLES)]
    controls = [value for value in history if value not in tables]
    if len(tables) > 1 or len(controls) > 1:
        raise UsageError(f"--history {', '.join(history)}: at most one control and one file")
    control = controls[0] if controls else "own"

    is_own = bool(columns or tables or kind or save) or task is None
    if not is_own:
        for name in split_names(task or ""):
            if name.endswith(_TASK_FILE):
                _keep(Path(name), results)
        return DataOptions(task or "", data, control)
    if task is not None:
        raise UsageError(
            "--map, --kind, --save-task and --history FILE describe your own tables; leave out "
            f"--task {task}, or leave them out"
        )
    if data is None:
        raise UsageError(
            "name a task with --task (`personabench list tasks` shows them), or your own table of "
            "questions with --data FILE --map question=COLUMN,user=COLUMN,answer=COLUMN"
        )
    if data.is_dir():
        raise UsageError(f"--data {data} is a folder; name the table of questions, or a --task")
    table = Path(tables[0]) if tables else None
    if table is not None and not table.is_file():
        raise UsageError(f"--history {table}: no such file")
    path = _declare(data, table, _read_roles(columns), kind, save, results)
    return DataOptions(str(path), None, control)


def _read_roles(texts: Sequence[str]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for text in texts:
        for part in split_names(text):
            role, equals, column = part.partition("=")
            if not (role and equals and column):
                raise UsageError(f"--map {part}: write ROLE=COLUMN, such as question=text")
            roles[role.strip()] = column.strip()
    return roles


def _declare(
    data: Path,
    history: Path | None,
    roles: dict[str, str],
    kind: AnswerKind | None,
    save: Path | None,
    results: Path,
) -> Path:
    """Infer and check a declaration, describe and write it; return the task file."""
    from personabench.api.own_data.declaration import write_declaration
    from personabench.api.own_data.inference import infer_declaration

    inferred = infer_declaration(
        data.resolve(),
        history.resolve() if history else None,
        roles,
        name=_choose_name(save or data),
        kind=kind.value if kind else None,
    )
    declaration = inferred.declaration
    for remark in (_check(declaration), *inferred.remarks):
        echo(f"your data: {remark}", err=True)

    path = save or _kept_path(declaration, results)
    write_declaration(path, _relative(declaration, path.resolve().parent))
    if save is not None:
        _keep(save, results)
    echo(f"task file  {path}; name it again with --task {path}", err=True)
    return path


def _kept_path(declaration: Declaration, results: Path) -> Path:
    return results / "tasks" / f"{declaration.name}-{declaration.identity[:8]}.toml"


def _keep(path: Path, results: Path) -> None:
    """Keep a copy of a task file with the results, so that readers need not be given it."""
    import msgspec

    from personabench.api.own_data.declaration import read_declaration, write_declaration

    declaration = read_declaration(path)
    stored_path = _kept_path(declaration, results)
    if stored_path.exists():
        return
    folder = path.resolve().parent
    replace = msgspec.structs.replace
    questions, history = declaration.questions, declaration.history
    questions = replace(questions, file=str(folder / questions.file))
    if history.file:
        history = replace(history, file=str(folder / history.file))
    write_declaration(stored_path, replace(declaration, questions=questions, history=history))


def _choose_name(path: Path) -> str:
    """The task's name: that of its file, unless an installed task has it."""
    from personabench.api.registry import list_entries

    stem = path.name.partition(".")[0]
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower() or "own_data"
    return f"own_{name}" if name in list_entries("task") else name


def _check(declaration: Declaration) -> str:
    """Read all rows; return their numbers in words.

    Raises:
        DataError: the tables have problems; the message lists all of them.
    """
    from personabench.api.own_data.problems import Problems
    from personabench.api.own_data.samples import Files, read_samples

    history = Path(declaration.history.file) if declaration.history.file else None
    problems = Problems()
    users: dict[str, int] = {}
    questions = answered = 0
    for sample in read_samples(
        declaration, Files(Path(declaration.questions.file), history), problems
    ):
        questions += 1
        answered += bool(sample.references)
        users[sample.user_id] = max(users.get(sample.user_id, 0), len(sample.history))
    problems.check()
    counts = f"{questions} questions ({answered} with an answer) of {len(users)} users"
    if not declaration.has_history:
        return f"{counts}, without records of their past"
    sizes = sorted(users.values())
    if sizes[0] == sizes[-1]:
        return f"{counts}, who have {sizes[0]} record{'s' * (sizes[0] != 1)} each"
    return f"{counts}, who have {sizes[0]} to {sizes[-1]} records"


def _relative(declaration: Declaration, folder: Path) -> Declaration:
    """The declaration with paths relative to its folder, for tables in it or below it."""
    import msgspec

    def shorten(file: str) -> str:
        return os.path.relpath(file, folder) if Path(file).is_relative_to(folder) else file

    replace = msgspec.structs.replace
    questions = replace(declaration.questions, file=shorten(declaration.questions.file))
    history = declaration.history
    if history.file:
        history = replace(history, file=shorten(history.file))
    return replace(declaration, questions=questions, history=history)
