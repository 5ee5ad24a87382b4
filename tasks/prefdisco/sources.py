"""Source benchmarks of PrefDisco and how their rows become problems (arXiv 2510.00177).

Rows of every source, of a released record's `original_problem`, and of a local file go through the same `normalised`.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.errors import DataError, UsageError

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
    """A problem as every source's rows become one; `answer` is a letter where there are options, "" where none is."""

    question: str
    options: Mapping[str, str] = {}
    answer: str = ""
    solution: str = ""
    image: str = ""

    @property
    def text(self) -> str:
        """The question with its options as "K. text" lines."""
        return "\n".join([self.question, *(f"{key}. {text}" for key, text in self.options.items())])


class Source(NamedTuple):
    """Where a source benchmark lies and the seed its problems are drawn with."""

    hub: str
    split: str
    seed: int
    config: str | None = None


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


def problem_of(record: Mapping[str, Any]) -> Problem:
    """The problem of a released record: `parsed_problem` as it is where there is one, else its source row.

    Raises:
        ValueError: options have labels without texts, or the reverse.
    """
    parsed = record.get("parsed_problem")
    if isinstance(parsed, Mapping) and parsed.get("question"):
        options = parsed.get("options")
        return Problem(
            question=str(parsed["question"]),
            options=_options(options),
            answer=str(parsed.get("answer", "") if parsed.get("answer") is not None else ""),
            solution=str(parsed.get("solution") or ""),
            image=_image(parsed.get("image")),
        )
    row = record.get("original_problem", record)
    return normalised(row) if isinstance(row, Mapping) else Problem(str(row or ""))


def normalised(row: Mapping[str, Any]) -> Problem:
    """A source row as a problem; an empty question where the row has none of the known fields.

    Raises:
        ValueError: options have labels without texts, or the reverse.
    """
    question = str(next((row[name] for name in QUESTIONS if row.get(name)), ""))
    context = str(row.get("context") or "")
    options = _options(row.get("choices") or row.get("options"))
    social = not options
    if social:
        options = {
            letter: str(row[f"answer{letter}"])
            for letter in "ABCD"
            if row.get(f"answer{letter}") is not None
        }
    field = next((name for name in ANSWERS if row.get(name) is not None), "")
    solution = [str(row[name]) for name in ("lecture", "solution") if row.get(name)]
    return Problem(
        question="\n\n".join(part for part in (context, question) if part),
        options=options,
        answer=_answer(row.get(field, ""), options, first=1 if social and field == "label" else 0),
        solution="\n\n".join(solution),
        image=_image(row.get("image")),
    )


def _options(value: Any) -> dict[str, str]:
    """Options by key; a table's cell holds their list or mapping as JSON."""
    if isinstance(value, str) and value.strip():
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise ValueError(
                f"options must be a JSON list or mapping, not {value[:40]!r}"
            ) from error
    if isinstance(value, Mapping):
        labels, texts = value.get("label"), value.get("text")
        if (
            isinstance(labels, Sequence)
            and isinstance(texts, Sequence)
            and not isinstance(labels, str)
        ):
            if len(labels) != len(texts):
                raise ValueError(f"options have {len(labels)} labels and {len(texts)} texts")
            return {str(label): str(text) for label, text in zip(labels, texts, strict=True)}
        return {str(label): str(text) for label, text in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {letter: str(text) for letter, text in zip(LETTERS, value, strict=False)}
    return {}


def _answer(value: Any, options: Mapping[str, str], first: int) -> str:
    """The key of the right option: a text is looked up, an index counts from `first`; other answers stay text."""
    text = str(value).strip()
    if not options or text in options:
        return text
    keys = list(options)
    named = next((key for key, option in options.items() if option.strip() == text), None)
    written = isinstance(value, str) and not first
    if not (named and written) and text.isdecimal() and 0 <= int(text) - first < len(keys):
        return keys[int(text) - first]
    return named or text


def _image(value: Any) -> str:
    return value if isinstance(value, str) else ""


def rows(source: str, count: int) -> tuple[str, list[dict[str, Any]]]:
    """The name of a source, a benchmark of the list or a local file, and `count` of its rows.

    Benchmarks are drawn with their published seed; files give their first rows.  A file is JSON lines, a JSON list or
    CSV with the columns of any source.

    Raises:
        UsageError: neither a benchmark of the list nor a file.
        DataError: the file, or the hub, holds no rows of problems.
    """
    if source in SOURCES:
        return source, _from_hub(SOURCES[source], count)
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"'{source}' is neither a file nor one of {', '.join(SOURCES)}")
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                found: Any = list(csv.DictReader(file))
        elif path.suffix == ".json":
            found = msgspec.json.decode(path.read_bytes())
        else:
            found = [
                msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line.strip()
            ]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}; expected JSON lines, a JSON list or CSV of problems"
        ) from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{path} holds no list of problems")
    for number, row in enumerate(found[:count], 1):
        try:
            usable = isinstance(row, dict) and bool(normalised(row).question)
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {error}") from error
        if not usable:
            raise DataError(
                f"{path}: row {number} has no question; expected one of the fields {', '.join(QUESTIONS)}"
            )
    return path.stem, found[:count]


def _from_hub(source: Source, count: int) -> list[dict[str, Any]]:
    import datasets

    try:
        table = datasets.load_dataset(source.hub, source.config, split=source.split)
    except Exception as error:
        raise DataError(
            f"{source.hub} could not be loaded ({type(error).__name__}: {error}); "
            "fetch it elsewhere and give its rows as a local JSON lines file"
        ) from error
    places = random.Random(source.seed).sample(range(len(table)), min(count, len(table)))
    return [dict(table[place]) for place in places]
