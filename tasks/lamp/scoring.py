"""How LaMP answers are read and measured.

Two readings of one answer: `official` takes it as it stands, `lenient` looks for the answer in a chatty reply.  Both
are measured alike, so that their difference is format alone.
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


def label_metrics(labels: int) -> tuple[Metric, ...]:
    """Accuracy and macro-F1 over a full list of labels."""
    return Metric("accuracy"), Metric("f1", aggregate=partial(macro_f1, labels=labels))


CITATION_METRICS = label_metrics(2)
TAG_METRICS = label_metrics(len(TAGS))
CATEGORY_METRICS = label_metrics(len(CATEGORIES))
RATING_METRICS = (
    Metric("MAE", higher_is_better=False),
    Metric("RMSE", higher_is_better=False, aggregate=rmse),
)
TEXT_METRICS = ROUGE


def parse(output: str, labels: tuple[str, ...], kind: ResponseKind, scorer: str) -> str | None:
    """An answer as a scorer reads it; None is a parse failure."""
    if scorer == "lenient":
        return _lenient(output, labels, kind)
    if kind == "text":
        return output
    answer = output.strip()
    if kind == "ordinal":
        return answer if parse_number(answer) is not None else None
    return answer if answer in labels else None


def _lenient(output: str, labels: tuple[str, ...], kind: ResponseKind) -> str | None:
    text = strip_chatter(output)
    if kind == "text":
        return text or None
    if kind == "ordinal":
        rating = find_rating(text, 1, 5)
        return None if rating is None else f"{rating:g}"
    if labels != FORMS["lamp1"].labels:
        return find_label(text, labels)
    found = set(re.findall(r"\[([12])\]", text)) or set(
        re.findall(r"(?<![\w.])[12](?!\w|\.\d)", text)
    )
    return f"[{found.pop()}]" if len(found) == 1 else None


def measure(parsed: str | None, sample: Sample, kind: ResponseKind) -> Mapping[str, Value]:
    """One sample's values; empty where the split has no gold."""
    if not sample.references:
        return {}
    return _MEASURES[kind](parsed, sample)


def _label_values(parsed: str | None, sample: Sample) -> Mapping[str, Value]:
    pair = label_pair(parsed, sample.references[0].strip(), sample.choices)
    return {"accuracy": float(pair[0] == pair[1]), "f1": pair}


def _rating_values(parsed: str | None, sample: Sample) -> Mapping[str, Value]:
    gold = float(sample.references[0])
    error = abs((farthest_rating(gold, 1, 5) if parsed is None else float(parsed)) - gold)
    return {"MAE": error, "RMSE": error * error}


def _text_values(parsed: str | None, sample: Sample) -> Mapping[str, Value]:
    return rouge_with_variants(parsed or "", sample.references[0])


_MEASURES: dict[ResponseKind, Callable[[str | None, Sample], Mapping[str, Value]]] = {
    "category": _label_values,
    "ordinal": _rating_values,
    "text": _text_values,
}


class _Answer(msgspec.Struct, frozen=True):
    id: str
    output: str | int | float | None


class _Submission(msgspec.Struct, frozen=True):
    golds: list[_Answer]
    task: str | None = None


def read_submission(path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
    """The task a prediction file states, with an underscore, and its (id, output) pairs in file order.

    Raises:
        DataError: not JSON, or not of the benchmark's form.
    """
    try:
        found = msgspec.json.decode(
            path.read_bytes().removeprefix(codecs.BOM_UTF8), type=_Submission
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f'{path}: not a prediction file: {error}; expected {{"task", "golds": [{{"id", "output"}}]}} with string '
            'ids, or JSON lines of {"id", "output"}'
        ) from error
    stated = found.task and found.task.replace("-", "_")
    return stated, [
        (each.id, None if each.output is None else str(each.output)) for each in found.golds
    ]
