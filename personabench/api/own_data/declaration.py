"""The declaration of a task over one's own data: files, columns and the kind of answer, in TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.wording import ResponseKind
from personabench.errors import DataError
from personabench.hashing import digest

ENDING = ".toml"


class Questions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table of questions: its file, and the names of its columns.

    Attributes:
        file: relative to the declaration.
        question: the request; the only column that must exist.
        answer: the right answer, or a list of right answers.
        choices: the options of a question: a list, or text separated by `|`.
        history: the user's past records, as a list inside the row.
    """

    file: str
    question: str
    user: str = ""
    answer: str = ""
    time: str = ""
    choices: str = ""
    id: str = ""
    item: str = ""
    history: str = ""


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table of past records, or the fields of records inside the questions.

    Attributes:
        file: relative to the declaration; empty if the records are inside the questions.
        response: the user's text, choice or rating.
        stimulus: the item that the user responded to, if the data has it.
        answers: whether the records are past answers to questions like these.
    """

    response: str = ""
    file: str = ""
    user: str = ""
    stimulus: str = ""
    time: str = ""
    id: str = ""
    item: str = ""
    answers: bool = False


class Nouns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The nouns of prompts; see `Vocabulary`."""

    person: str = "user"
    stimulus: str = "question"
    response: str = "answer"


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task over one's own data.

    Attributes:
        name: the task's name in results.
        kind: the kind of answers, see `Task.kind`.
        labels: the possible answers of all questions, or the numbers of the scale.
        max_tokens: the maximum number of tokens of an answer.
    """

    name: str
    questions: Questions
    kind: ResponseKind = "text"
    labels: tuple[str, ...] = ()
    max_tokens: int = 64
    history: History = History()
    nouns: Nouns = Nouns()

    @property
    def has_history(self) -> bool:
        """Whether users have past records."""
        return bool(self.history.file or self.questions.history)

    @property
    def identity(self) -> str:
        """The hash of everything that can change a request or a score; places do not count."""
        replace = msgspec.structs.replace
        return digest(
            replace(
                self,
                questions=replace(self.questions, file=""),
                history=replace(self.history, file=""),
            )
        )


def read_declaration(path: Path) -> Declaration:
    """Read a task file.

    Raises:
        DataError: it cannot be read, is no TOML, or a key is unknown or has a wrong type.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Declaration)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise DataError(
            f"{path} is no task file: {error}; `personabench run --data FILE --map ... "
            "--save-task FILE` writes one"
        ) from error


def write_declaration(path: Path, declaration: Declaration) -> None:
    """Write a task file; paths in the declaration are taken as they are.

    Raises:
        DataError: the file cannot be written.
    """
    tables: Mapping[str, Any] = msgspec.to_builtins(declaration)
    lines = ["# A task over your own data: personabench run --task THIS_FILE --method none,rag"]
    lines += [f"{key} = {_to_toml(value)}" for key, value in tables.items() if _is_plain(value)]
    for name, table in tables.items():
        if isinstance(table, dict) and table:
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {_to_toml(value)}" for key, value in table.items()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict)


def _to_toml(value: Any) -> str:
    # Texts, whole numbers and lists of texts are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False)
