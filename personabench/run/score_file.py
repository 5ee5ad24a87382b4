"""Scoring a prediction file against a reference file, without a model or a run.

Two files either speak of the same task and the same items or nothing is scored: every reason against is named in one
message.  `partial` scores what both have and says so.
"""

from __future__ import annotations

import re
import warnings
from codecs import BOM_UTF8
from collections.abc import Sequence
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


@dataclass(frozen=True)
class FileScores:
    """What `score_files` found.

    Attributes:
        n: items scored; partial: not all of the reference's items were, or a defect was tolerated.
        metrics: the task's metrics by name, primary first.
        parse_failures: answers the scorer could not read; null_outputs: absent answers, read as empty text.
        missing, extra, repeated: ids by which the prediction file differs from the references.
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


_BEGUN = re.compile(rb'\s*\{\s*"(id|output)"')


def read_lines(path: Path) -> list[tuple[str, str | None]] | None:
    """(id, output) pairs of a JSON-lines file of `{"id", "output"}`; None if the first line does not begin as one.

    Raises:
        DataError: a line is broken; the message names it.
    """
    pairs: list[tuple[str, str | None]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                answer = msgspec.json.decode(line.removeprefix(BOM_UTF8), type=_Line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if not pairs and not _BEGUN.match(line.removeprefix(BOM_UTF8)):
                    return None
                raise DataError(
                    f'{path}: line {number}: {error}; expected {{"id", "output"}}, ids as strings'
                ) from error
            pairs.append((answer.id, None if answer.output is None else str(answer.output)))
    return pairs or None


def score_files(
    task: Task, predictions: Path, references: Path, scorer: str, partial: bool
) -> FileScores:
    """Score a prediction file: the task's own submission form, or JSON lines of `{"id", "output"}`.

    The order of items never matters.  With `partial`, the items that both files have are scored, the first of
    repeated answers counts, and a wrong task name is a warning.

    Raises:
        UsageError: the task has no such scorer or no prediction files.
        DataError: a broken file, or (without `partial`) files that do not fit: all reasons, with counts and ids.
    """
    if scorer not in task.scorers:
        raise UsageError(f"{task.name} has no scorer '{scorer}'; it has: {', '.join(task.scorers)}")
    for path in (predictions, references):
        if not path.is_file():
            raise DataError(f"no file {path}")
    if not isinstance(task, OfficialFiles):
        raise UsageError(f"task {task.name} has no official prediction files to score")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        samples = task.read_references(references)
    lines = read_lines(predictions)
    stated, pairs = task.read_predictions(predictions) if lines is None else (None, lines)
    difference = compare_ids(samples, [each for each, _ in pairs])
    reasons = []
    if stated is not None and stated != task.name:
        reasons.append(f"the predictions say task {stated}, the references are {task.name}")
    if str(difference):
        reasons.append(f"the ids differ: {difference}")
    if reasons and not partial:
        raise DataError(
            f"{predictions} does not fit {references}: {'; '.join(reasons)}. "
            "Score what both have with --partial, or repair the file"
        )
    outputs: dict[str, str | None] = {}
    for sample_id, output in pairs:
        outputs.setdefault(sample_id, output)
    shared = sorted(samples.keys() & outputs.keys())
    if not shared:
        raise DataError(f"{predictions} and {references} share no id")
    if difference.repeated:
        reasons.append("of repeated ids the first answer was scored")
    parsed = {each: task.parse(outputs[each] or "", samples[each], scorer) for each in shared}
    measured = [task.measure(parsed[each], samples[each]) for each in shared]
    unseen = ReferenceCoverage(task.metrics)
    for name in shared:
        for reference in samples[name].references[:1]:
            unseen.add(reference)
    return FileScores(
        task=task.name,
        scorer=scorer,
        n=len(shared),
        partial=bool(reasons),
        metrics={
            m.name: m.aggregate(_column([each[m.name] for each in measured])) for m in task.metrics
        },
        parse_failures=sum(each is None for each in parsed.values()),
        null_outputs=sum(outputs[each] is None for each in shared),
        missing=difference.missing,
        extra=difference.extra,
        repeated=difference.repeated,
        warnings=(*(str(each.message) for each in told), *reasons, *unseen.warnings()),
    )


def _column(values: Sequence[Value]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)
