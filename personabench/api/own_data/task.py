"""The task behind a declaration: a static task whose samples come from one's own tables."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from personabench.api.dataset import Dataset
from personabench.api.own_data.declaration import Declaration, read_declaration
from personabench.api.own_data.problems import Problems
from personabench.api.own_data.samples import Files, read_samples
from personabench.api.source import PLUGIN
from personabench.api.static import StaticDataset
from personabench.api.task import Task
from personabench.api.wording import Vocabulary
from personabench.errors import DataError, UsageError
from personabench.types import Sample


class DeclaredTask(Task):
    """A task over one's own data.

    Attributes:
        declaration: its files, columns and kind of answers.
        folder: the folder that the files are relative to.
        code: stands for the task's source in its hash, since the class has none of its own.
    """

    accepts_file = True
    over_own_data = True
    declaration: ClassVar[Declaration]
    folder: ClassVar[Path]

    def open(self, split: str, data: Path | None) -> Dataset:
        """See `Task`; `data` names the table of questions, or a folder with the declared files."""
        if split != self.default_split:
            raise UsageError(f"{self.name} has no split '{split}'; it has: {self.default_split}")
        files = self.find_files(data)
        problems = Problems()
        dataset = StaticDataset(
            type(self),
            lambda: self._read(files, problems),
            split=split,
            source=str(files.questions),
            sample=False,
            labels=self.labels,
        )
        dataset.warnings = (*dataset.warnings, *problems.notes)
        return dataset

    def _read(self, files: Files, problems: Problems) -> Iterable[Sample]:
        samples = list(read_samples(self.declaration, files, problems))
        problems.check()
        return samples

    def find_files(self, data: Path | None) -> Files:
        """Find the tables: beside `data` if it is given, else where the declaration says.

        Raises:
            DataError: a table is not there.
        """
        questions = self.folder / self.declaration.questions.file
        if data is not None:
            questions = data / questions.name if data.is_dir() else data
        if not questions.is_file():
            raise DataError(f"{questions} does not exist; name the table of questions with --data")
        if not self.declaration.history.file:
            return Files(questions, None)

        history = self.folder / self.declaration.history.file
        if data is not None and (questions.parent / history.name).is_file():
            history = questions.parent / history.name
        if not history.is_file():
            raise DataError(
                f"{history} does not exist; put the table of records beside {questions.name}, or "
                "name it under [history] in the task file"
            )
        return Files(questions, history)


def make_task_class(path: Path) -> type[DeclaredTask]:
    """Make the class of a task file.

    Raises:
        DataError: the file is damaged.
    """
    declaration = read_declaration(path)
    module = _make_module(path)
    words = Vocabulary(
        declaration.nouns.person, declaration.nouns.stimulus, declaration.nouns.response
    )
    attributes = {
        "__module__": module.__name__,
        "__doc__": "Your data.",
        "name": declaration.name,
        "title": f"your data: {Path(declaration.questions.file).name}",
        "kind": declaration.kind,
        "labels": declaration.labels,
        "max_tokens": declaration.max_tokens,
        "offers": _list_offers(declaration),
        "words": words,
        "declaration": declaration,
        "folder": path.resolve().parent,
        "code": declaration.identity,
    }
    cls = type("YourData", (DeclaredTask,), attributes)
    setattr(module, cls.__name__, cls)
    return cls


def _make_module(path: Path) -> ModuleType:
    # A module of its own, as of a task file in Python: messages, shards and workers on other
    # machines find a task by the file of its module.
    path_hash = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    module = ModuleType(f"{PLUGIN}{path_hash[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    return module


def _list_offers(declaration: Declaration) -> tuple[str, ...]:
    """The capabilities of the data: what users' records are, if they have any."""
    if not declaration.has_history:
        return ()
    offers = ["history", "population"]
    if declaration.history.time:
        offers.append("dates")
    if declaration.history.answers:
        offers.append("precedents")
    if declaration.history.item and declaration.questions.item:
        offers.append("items")
    return tuple(offers)
