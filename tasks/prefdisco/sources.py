"""Source benchmarks of PrefDisco and how their rows become problems (arXiv 2510.00177).

Rows of every source, of a released record's `original_problem`, and of a local file go through the
same `normalize_row`.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import msgspec

from personabench.errors import DataError, UsageError

# Both lists are ordered: the first field that a row fills counts.  "answer" comes late because some
# benchmarks hold the text of the right option there and its key in a more specific field.
QUESTIONS = ("query", "question", "problem", "Question", "prompt")
ANSWERS = (
    "correct_answer",
    "answerKey",
    "correct_option",
    "answer_idx",
    "Answer",
    "answer",
    "label",
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem in one form for all sources.

    `answer` is a letter if there are options, and empty if the source has no gold answer.
    """

    question: str
    options: Mapping[str, str] = {}
    answer: str = ""
    solution: str = ""
    image: str = ""

    @property
    def text(self) -> str:
        """The question with its options as "K. text" lines."""
        options = [f"{key}. {text}" for key, text in self.options.items()]
        return "\n".join([self.question, *options])


class Source(NamedTuple):
    """Address of a source benchmark and the seed with which its problems are drawn."""

    hub: str
    split: str
    seed: int
    config: str | None = None


# The seeds are the published ones, so that the same problems are drawn.
SOURCES = {
    "math": Source("HuggingFaceH4/MATH-500", "test", 111),
    "aime": Source("gneubig/aime-1983-2024", "train", 222),
    "logiqa": Source("lucasmccabe/logiqa", "test", 333),
    "mascqa": Source("stellalisy/MaScQA", "train", 444),
    "scienceqa": Source("derek-thomas/ScienceQA", "test", 555),
    "mmlu": Source("lighteval/mmlu", "test", 666, "all"),
    "simpleqa": Source("pvduy/simpleqa", "train", 777),
    "medqa": Source("GBaker/MedQA-USMLE-4-options", "test", 888),
    "commonsenseqa": Source("tau/commonsense_qa", "validation", 999),
    "socialiqa": Source("allenai/social_i_qa", "validation", 1000),
}


def parse_problem(record: Mapping[str, Any]) -> Problem:
    """Parse the problem of a released record: its `parsed_problem`, else its source row.

    Raises:
        ValueError: options have labels without texts, or the reverse.
    """
    parsed = record.get("parsed_problem")
    if isinstance(parsed, Mapping) and parsed.get("question"):
        answer = parsed.get("answer")
        return Problem(
            question=str(parsed["question"]),
            options=_parse_options(parsed.get("options")),
            answer="" if answer is None else str(answer),
            solution=str(parsed.get("solution") or ""),
            image=_parse_image(parsed.get("image")),
        )

    row = record.get("original_problem", record)
    if isinstance(row, Mapping):
        return normalize_row(row)
    return Problem(str(row or ""))


def normalize_row(row: Mapping[str, Any]) -> Problem:
    """Turn a source row into a problem, whose question is empty if no known field holds one.

    Raises:
        ValueError: options have labels without texts, or the reverse.
    """
    question = _first_value(row, QUESTIONS)
    context = str(row.get("context") or "")
    options = _parse_options(row.get("choices") or row.get("options"))
    field = next((name for name in ANSWERS if row.get(name) is not None), "")

    # Social IQa has a column per option instead of a list, and counts its labels from 1.
    has_columns = not options
    if has_columns:
        options = _parse_option_columns(row)
    first_index = 1 if has_columns and field == "label" else 0

    parts = [part for part in (context, question) if part]
    solution = [str(row[name]) for name in ("lecture", "solution") if row.get(name)]
    answer = _parse_answer(row.get(field, ""), options, first_index)
    return Problem(
        question="\n\n".join(parts),
        options=options,
        answer=answer,
        solution="\n\n".join(solution),
        image=_parse_image(row.get("image")),
    )


def read_rows(source: str, count: int) -> tuple[str, list[dict[str, Any]]]:
    """Read the name of a source, a known benchmark or a local file, and `count` of its rows.

    Benchmarks are drawn with their published seed; files give their first rows.  A file is JSON
    lines, a JSON list or CSV with the columns of any source.

    Raises:
        UsageError: neither a known benchmark nor a file.
        DataError: the file, or the hub, holds no rows of problems.
    """
    if source in SOURCES:
        return source, _draw_rows(SOURCES[source], count)

    path = Path(source)
    if not path.is_file():
        raise UsageError(f"'{source}' is neither a file nor one of {', '.join(SOURCES)}")
    rows = _read_file(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no list of problems")

    for number, row in enumerate(rows[:count], 1):
        _check_row(row, f"{path}: row {number}")
    return path.stem, rows[:count]


def _first_value(row: Mapping[str, Any], fields: Sequence[str]) -> str:
    """Value of the first of some fields that is filled, else an empty text."""
    for name in fields:
        if row.get(name):
            return str(row[name])
    return ""


def _parse_options(value: Any) -> dict[str, str]:
    """Parse options by key; a table's cell holds their list or mapping as JSON."""
    if isinstance(value, str) and value.strip():
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise ValueError(
                f"options must be a JSON list or mapping, not {value[:40]!r}"
            ) from error

    if isinstance(value, Mapping):
        return _parse_option_mapping(value)
    if _is_list(value):
        return {letter: str(text) for letter, text in zip(LETTERS, value, strict=False)}
    return {}


def _parse_option_mapping(value: Mapping[str, Any]) -> dict[str, str]:
    """Parse options given as {key: text}, or as a list of labels and one of texts."""
    labels = value.get("label")
    texts = value.get("text")
    pairs: Iterable[tuple[Any, Any]] = value.items()
    if _is_list(labels) and isinstance(texts, Sequence):
        if len(labels) != len(texts):
            raise ValueError(f"options have {len(labels)} labels and {len(texts)} texts")
        pairs = zip(labels, texts, strict=True)
    return {str(label): str(text) for label, text in pairs}


def _parse_option_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """Parse options from the columns answerA to answerD."""
    options = {}
    for letter in "ABCD":
        text = row.get(f"answer{letter}")
        if text is not None:
            options[letter] = str(text)
    return options


def _parse_answer(value: Any, options: Mapping[str, str], first_index: int) -> str:
    """Key of the right option, given as a key, a text, or an index from `first_index`.

    Other answers stay text.
    """
    text = str(value).strip()
    if not options or text in options:
        return text

    keys = list(options)
    keys_of_text = [key for key, option in options.items() if option.strip() == text]
    key_of_text = keys_of_text[0] if keys_of_text else None
    # An option may itself be a number.  A value written as text then means that option, while a
    # number means an index.  Labels that count from 1 are always indices.
    is_text = isinstance(value, str) and not first_index
    if key_of_text and is_text:
        return key_of_text
    if text.isdecimal():
        index = int(text) - first_index
        if 0 <= index < len(keys):
            return keys[index]
    return key_of_text or text


def _parse_image(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _read_file(path: Path) -> Any:
    """Decode a local file by its ending."""
    try:
        if path.suffix == ".csv":
            # Spreadsheets write a byte order mark, which would end up in the first column name.
            with path.open(newline="", encoding="utf-8-sig") as file:
                return list(csv.DictReader(file))
        content = path.read_bytes()
        if path.suffix == ".json":
            return msgspec.json.decode(content)
        filled_lines = filter(bytes.strip, content.splitlines())
        return [msgspec.json.decode(line) for line in filled_lines]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}; expected JSON lines, a JSON list or CSV of problems"
        ) from error


def _check_row(row: Any, location: str) -> None:
    """Check that a row of a local file holds a question.

    Raises:
        DataError: it does not.
    """
    try:
        usable = isinstance(row, dict) and bool(normalize_row(row).question)
    except ValueError as error:
        raise DataError(f"{location}: {error}") from error
    if not usable:
        fields = ", ".join(QUESTIONS)
        raise DataError(f"{location} has no question; expected one of the fields {fields}")


def _draw_rows(source: Source, count: int) -> list[dict[str, Any]]:
    """Draw rows of a benchmark on the hub with its seed."""
    import datasets

    try:
        table = datasets.load_dataset(source.hub, source.config, split=source.split)
    except Exception as error:
        raise DataError(
            f"{source.hub} could not be loaded ({type(error).__name__}: {error}); "
            "fetch it elsewhere and pass its rows as a local JSON lines file"
        ) from error
    rng = random.Random(source.seed)
    indices = rng.sample(range(len(table)), min(count, len(table)))
    return [dict(table[index]) for index in indices]
