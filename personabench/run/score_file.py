"""Score a prediction file against a reference file, without a model or a run.

Both files must be of the same task and the same items. Otherwise nothing is scored, and one message
names every difference. `partial` scores the items that both files have and warns about the rest.
"""

from __future__ import annotations

import re
import warnings
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from personabench.api.id_check import compare_ids
from personabench.api.official_files import OfficialFiles
from personabench.api.task import Task
from personabench.errors import DataError, UsageError
from personabench.metrics.metric import Value
from personabench.metrics.scripts import ReferenceCoverage
from personabench.types import Sample, from_json

Answer = tuple[str, str | None]
"""A sample id and its output; None for an absent one."""


@dataclass(frozen=True)
class FileScores:
    """The scores of a prediction file.

    Attributes:
        n: number of items scored.
        partial: some of the references were not scored, or a defect was tolerated.
        metrics: the task's metrics by name, primary first.
        parse_failures: unparsed answers.
        null_outputs: absent answers, scored as empty text.
        missing, extra, repeated: ids in which the prediction file differs from the references.
    """

    task: str
    scorer: str
    n: int
    partial: bool
    metrics: dict[str, float]
    parse_failures: int = 0
    null_outputs: int = 0
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class _Line(msgspec.Struct, frozen=True):
    id: str
    output: str | int | float | None


# The start of a line of our own form, to tell a damaged line from another file format.
_LINE_START = re.compile(rb'\s*\{\s*"(id|output)"')


def read_lines(path: Path) -> list[Answer] | None:
    """Read a JSON-lines file of `{"id", "output"}`; None if the file has another format.

    Raises:
        DataError: a line is damaged; the message names it.
    """
    answers: list[Answer] = []
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            text = text.removeprefix(BOM_UTF8)
            try:
                line = from_json(text, _Line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if not answers and not _LINE_START.match(text):
                    return None
                raise DataError(
                    f'{path}: line {number}: {error}; expected {{"id", "output"}}, ids as strings'
                ) from error
            output = None if line.output is None else str(line.output)
            answers.append((line.id, output))
    return answers or None


def score_files(
    task: Task, predictions: Path, references: Path, scorer: str, partial: bool
) -> FileScores:
    """Score a prediction file: the task's submission format, or JSON lines of `{"id", "output"}`.

    The order of items does not matter.

    Args:
        partial: score the items that both files have; the first of repeated answers counts, and
            another task's name is a warning.

    Raises:
        UsageError: the task has no such scorer or no prediction files.
        DataError: a file is damaged, or (without `partial`) the files do not match; the message
            names all differences.
    """
    if scorer not in task.scorers:
        raise UsageError(f"{task.name} has no scorer '{scorer}'; it has: {', '.join(task.scorers)}")
    for path in (predictions, references):
        if not path.is_file():
            raise DataError(f"no file {path}")
    if not isinstance(task, OfficialFiles):
        raise UsageError(f"task {task.name} has no official prediction files to score")

    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        samples = task.read_references(references)
    answers = read_lines(predictions)
    stated_task = None
    if answers is None:
        stated_task, answers = task.read_predictions(predictions)

    difference = compare_ids(samples, [sample_id for sample_id, _ in answers])
    problems = []
    if stated_task is not None and stated_task != task.name:
        problems.append(f"the predictions are of task {stated_task}, the references of {task.name}")
    if str(difference):
        problems.append(f"the ids differ: {difference}")
    if problems and not partial:
        raise DataError(
            f"{predictions} does not fit {references}: {'; '.join(problems)}. "
            "Score the items of both with --partial, or repair the file"
        )
    if difference.repeated:
        problems.append("the first answer of each repeated id was scored")

    outputs = _first_outputs(answers, samples)
    if not outputs:
        raise DataError(f"{predictions} and {references} share no id")
    messages = [str(warning.message) for warning in caught_warnings]
    scores = _score(task, outputs, samples, scorer)
    return FileScores(
        task=task.name,
        scorer=scorer,
        n=len(outputs),
        partial=bool(problems),
        metrics=scores.metrics,
        parse_failures=scores.parse_failures,
        null_outputs=sum(output is None for output in outputs.values()),
        missing=difference.missing,
        extra=difference.extra,
        repeated=difference.repeated,
        warnings=(*messages, *problems, *scores.warnings),
    )


def _first_outputs(
    answers: Sequence[Answer], samples: Mapping[str, Sample]
) -> dict[str, str | None]:
    """The first output of each sample that has a reference, by id in alphabetical order."""
    outputs: dict[str, str | None] = {}
    for sample_id, output in answers:
        if sample_id in samples:
            outputs.setdefault(sample_id, output)
    return dict(sorted(outputs.items()))


@dataclass(frozen=True)
class _Scores:
    metrics: dict[str, float]
    parse_failures: int
    warnings: list[str]


def _score(
    task: Task, outputs: Mapping[str, str | None], samples: Mapping[str, Sample], scorer: str
) -> _Scores:
    parse_failures = 0
    values = []
    coverage = ReferenceCoverage(task.metrics)
    for sample_id, output in outputs.items():
        sample = samples[sample_id]
        parsed = task.parse(output or "", sample, scorer)
        parse_failures += parsed is None
        values.append(task.measure(parsed, sample))
        for reference in sample.references[:1]:
            coverage.add(reference)

    metrics = {}
    for metric in task.metrics:
        column = [sample_values[metric.name] for sample_values in values]
        metrics[metric.name] = metric.aggregate(_to_array(column))
    return _Scores(metrics, parse_failures, list(coverage.warnings()))


def _to_array(values: Sequence[Value]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)
