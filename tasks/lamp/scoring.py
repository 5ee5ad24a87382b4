"""Parsing and scoring of LaMP answers.

There are two parsers: `official` takes an answer literally, `lenient` extracts it from a chatty
reply. Both are scored alike, so that their difference shows the effect of the format alone.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from personabench.api.wording import ResponseKind
from personabench.errors import DataError
from personabench.metrics.labels import find_label, label_pair, macro_f1
from personabench.metrics.metric import Metric, Value
from personabench.metrics.ratings import farthest_rating, find_rating, parse_number, rmse
from personabench.metrics.text import ROUGE, rouge_with_variants, strip_chatter
from personabench.tasks.lamp.forms import CATEGORIES, FORMS, TAGS
from personabench.types import Sample

MIN_RATING = 1
MAX_RATING = 5
_BRACKETED_CHOICE = re.compile(r"\[([12])\]")
# A digit of its own: not part of a word, of a number or of a decimal.
_BARE_CHOICE = re.compile(r"(?<![\w.])[12](?!\w|\.\d)")


def label_metrics(labels: int) -> tuple[Metric, ...]:
    """Return accuracy and macro-F1 over a full list of labels."""
    return (
        Metric("accuracy"),
        Metric("f1", aggregate=partial(macro_f1, labels=labels)),
    )


CITATION_METRICS = label_metrics(2)
TAG_METRICS = label_metrics(len(TAGS))
CATEGORY_METRICS = label_metrics(len(CATEGORIES))
RATING_METRICS = (
    Metric("MAE", higher_is_better=False),
    Metric("RMSE", higher_is_better=False, aggregate=rmse),
)
TEXT_METRICS = ROUGE


def parse(output: str, labels: tuple[str, ...], kind: ResponseKind, scorer: str) -> str | None:
    """Parse an answer as a scorer does; None if it cannot be parsed."""
    if scorer == "lenient":
        return _parse_lenient(output, labels, kind)
    if kind == "text":
        return output

    answer = output.strip()
    is_valid = parse_number(answer) is not None if kind == "ordinal" else answer in labels
    return answer if is_valid else None


def _parse_lenient(output: str, labels: tuple[str, ...], kind: ResponseKind) -> str | None:
    text = strip_chatter(output)
    if kind == "text":
        return text or None

    if kind == "ordinal":
        rating = find_rating(text, MIN_RATING, MAX_RATING)
        return None if rating is None else f"{rating:g}"

    if labels != FORMS["lamp1"].labels:
        return find_label(text, labels)

    # Small models often drop the brackets of LaMP-1's labels. An answer that names both choices is
    # ambiguous and stays unparsed.
    choices = set(_BRACKETED_CHOICE.findall(text)) or set(_BARE_CHOICE.findall(text))
    return f"[{choices.pop()}]" if len(choices) == 1 else None


def measure(parsed: str | None, sample: Sample, kind: ResponseKind) -> Mapping[str, Value]:
    """Compute one sample's metric values; empty if the split has no gold."""
    if not sample.references:
        return {}
    return _MEASURES[kind](parsed, sample)


def _measure_label(parsed: str | None, sample: Sample) -> Mapping[str, Value]:
    gold = sample.references[0].strip()
    pair = label_pair(parsed, gold, sample.choices)
    return {"accuracy": float(pair[0] == pair[1]), "f1": pair}


def _measure_rating(parsed: str | None, sample: Sample) -> Mapping[str, Value]:
    gold = float(sample.references[0])
    # An unparsed answer counts as the rating that is farthest from the gold.
    rating = farthest_rating(gold, MIN_RATING, MAX_RATING) if parsed is None else float(parsed)
    error = abs(rating - gold)
    # RMSE takes the root of the mean, so each sample contributes its square.
    return {"MAE": error, "RMSE": error * error}


def _measure_text(parsed: str | None, sample: Sample) -> Mapping[str, Value]:
    return rouge_with_variants(parsed or "", sample.references[0])


_MEASURES: dict[ResponseKind, Callable[[str | None, Sample], Mapping[str, Value]]] = {
    "category": _measure_label,
    "ordinal": _measure_rating,
    "text": _measure_text,
}


class _Answer(msgspec.Struct, frozen=True):
    id: str
    output: str | int | float | None


class _Submission(msgspec.Struct, frozen=True):
    golds: list[_Answer]
    task: str | None = None


def read_submission(path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
    """Read a prediction file: its task name (with an underscore) and its (id, output) pairs.

    Raises:
        DataError: the file is not JSON or not of the benchmark's form.
    """
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        submission = msgspec.json.decode(content, type=_Submission)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path}: not a prediction file: {error}; expected "
            '{"task", "golds": [{"id", "output"}]} with string ids, or JSON lines of '
            '{"id", "output"}'
        ) from error

    # The paper writes LaMP-4, the official files LaMP_4.
    task = submission.task and submission.task.replace("-", "_")
    pairs = [(answer.id, _to_text(answer.output)) for answer in submission.golds]
    return task, pairs


def _to_text(output: str | int | float | None) -> str | None:
    return None if output is None else str(output)
