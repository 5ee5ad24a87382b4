"""Score answers made elsewhere, or a run's, against references, without a model.

Predictions and references must be of the same task and the same samples. Otherwise nothing is
scored, and one message names every difference. `partial` scores the samples that both have and
warns about the rest. `submission` finds the files of several tasks in a folder or zip file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from personabench.api.defaults import explain_gold
from personabench.api.guard import plugin_guard
from personabench.api.id_check import compare_ids
from personabench.api.official_files import OfficialFiles
from personabench.api.task import Task
from personabench.api.users import open_split
from personabench.errors import DataError, UsageError
from personabench.metrics.extras import choose_extras, measure_extras
from personabench.metrics.metric import Metric, Value
from personabench.metrics.scripts import ReferenceCoverage
from personabench.results.locate import explain_missing_data, find_dataset, find_task, load_tasks
from personabench.results.run_folder import RunFolder
from personabench.run.answer_file import Answer, read_lines, unpacked
from personabench.run.divergence import SharedStimuli, measure_divergence
from personabench.types import Sample


@dataclass(frozen=True)
class SampleScore:
    """An answer with its values of the task's metrics."""

    id: str
    user_id: str
    output: str | None
    parsed: str | None
    values: Mapping[str, Value]


@dataclass(frozen=True)
class FileScores:
    """The scores of predictions.

    Attributes:
        n: number of samples scored.
        partial: some of the references were not scored, or a defect was tolerated.
        metrics: the task's metrics by name, primary first.
        parse_failures: unparsed answers.
        null_outputs: absent answers, scored as empty text.
        missing, extra, repeated: ids in which the predictions differ from the references.
        users: number of users; files that name none have one per sample.
        samples: each sample's answer and values, by id.
        measured: the metrics in `metrics`.
        extras: metrics that are not the task's own.
        divergence: how answers differ between users; why they cannot be compared otherwise.
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
    users: int = 0
    samples: tuple[SampleScore, ...] = field(default=(), repr=False)
    measured: tuple[Metric, ...] = field(default=(), repr=False)
    extras: Mapping[str, float] = field(default_factory=dict)
    divergence: SharedStimuli | str = ""


@dataclass(frozen=True)
class References:
    """The samples to score against, by id.

    Attributes:
        origin: where they come from, for messages.
        warnings: caveats for the reader of the scores.
    """

    samples: Mapping[str, Sample]
    origin: str
    warnings: tuple[str, ...] = ()


def score_files(
    task: Task, predictions: Path, references: Path, scorer: str, partial: bool
) -> FileScores:
    """Score a prediction file against a reference file by the task's own metrics alone.

    See `score_predictions`.
    """
    check_scorer(task, scorer)
    samples = read_references(task, references)
    return score_predictions(task, predictions, samples, scorer, partial, extras=())


def check_scorer(task: Task, scorer: str) -> None:
    """Raise UsageError if a task has no such scorer."""
    if scorer not in task.scorers:
        raise UsageError(f"{task.name} has no scorer '{scorer}'; it has: {', '.join(task.scorers)}")


def read_references(task: Task, path: Path) -> References:
    """Read a reference file: the benchmark's own, or JSON lines of `{"id", "output"}`.

    JSON lines may name the `user_id`. Files may be compressed (`.gz`).

    Raises:
        UsageError: the task has no official files, and this one is not JSON lines.
        DataError: the file is missing or damaged, or a reference cannot be scored.
    """
    with caught_warnings() as messages, unpacked(path) as file:
        answers = read_lines(file)
        if answers is None and not isinstance(task, OfficialFiles):
            raise UsageError(
                f"task {task.name} has no official prediction files to score; write references as "
                'JSON lines of {"id", "output"}, or score against its data (--data)'
            )
        if answers is None:
            assert isinstance(task, OfficialFiles)
            samples = task.read_references(file)
        else:
            samples = _make_samples(task, answers, path)
    return References(samples, str(path), tuple(messages))


def require_single_answers(task: Task) -> None:
    """Refuse a task whose answers come from an interaction.

    Raises:
        UsageError: it is one.
    """
    # A conversation without a simulated user only repeats requests, and its answers stand alone.
    is_alone = task.protocol == "dialogue" and "simulator" not in task.roles
    if task.protocol != "static" and not (is_alone and "judge" in task.roles):
        raise _explain_interaction(task)


def open_references(task: Task, split: str | None, data: Path | None) -> References:
    """Read the samples of a split of a task's data.

    Raises:
        UsageError: an answer has no score by itself in this task.
        UsageError, DataError: as `open_split`; the split has no references.
    """
    require_single_answers(task)
    dataset = open_split(task, split or task.default_split, data)
    samples = {sample.id: sample for sample in dataset.samples() if sample.references}
    if not samples:
        raise DataError(f"{dataset.source}: the split {dataset.split} has no references")
    return References(samples, dataset.source, dataset.warnings)


def open_run(path: Path, task_file: str | None) -> tuple[Task, References]:
    """Find the task and the data of a run folder.

    Args:
        task_file: the run's task as a file, if it is not installed.

    Raises:
        UsageError: the task is not installed, or the data has moved or changed since.
        DataError: the run folder is damaged.
    """
    folder = RunFolder(path)
    spec, summary = folder.spec(), folder.summary()
    # A run folder is five levels below its results folder.
    load_tasks(task_file, [spec], path.resolve().parents[4])
    task = find_task(spec.task, spec.task_params, spec.task_hash)
    if task is None:
        raise UsageError(f"{path} is a run of {spec.task}, which is not installed; use --task FILE")
    dataset = find_dataset(task, summary, summary.data)
    if dataset is None:
        raise UsageError(f"{path}: {explain_missing_data(task, summary)}; name also its --split")
    samples = {sample.id: sample for sample in dataset.samples() if sample.references}
    return task, References(samples, dataset.source, dataset.warnings)


def _make_samples(task: Task, answers: Sequence[Answer], path: Path) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for answer in answers:
        if answer.output is None or answer.id in samples:
            problem = "has no output" if answer.output is None else "occurs more than once"
            raise DataError(f"{path}: reference {answer.id} {problem}")

        sample = Sample(
            answer.id,
            # Without users each sample counts as a user of its own.
            user_id=answer.user_id or answer.id,
            references=(answer.output,),
            choices=task.labels,
        )
        problem = explain_gold(task, sample)
        if problem:
            raise DataError(f"{path}: reference {answer.id}: {problem}")
        samples[answer.id] = sample
    return samples


def read_predictions(task: Task, path: Path) -> tuple[str | None, list[Answer]]:
    """Read the answers of a prediction file or run folder, and the task that it names.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    if path.is_dir():
        folder = RunFolder(path)
        named_task = folder.spec().task
        folder.verify(folder.predictions_path)
        outputs = {
            prediction.sample_id: Answer(prediction.sample_id, prediction.output)
            for prediction in folder.iter_predictions()
            if prediction.error is None
        }
        return named_task, list(outputs.values())

    with unpacked(path) as file:
        answers = read_lines(file)
        if answers is not None:
            return None, answers
        if not isinstance(task, OfficialFiles):
            raise DataError(f'{path}: expected JSON lines of {{"id", "output"}}, ids as strings')
        stated_task, pairs = task.read_predictions(file)
        return stated_task, [Answer(sample_id, output) for sample_id, output in pairs]


def score_predictions(
    task: Task,
    predictions: Path,
    references: References,
    scorer: str,
    partial: bool,
    extras: Sequence[Metric] | None = None,
) -> FileScores:
    """Score a prediction file or a run: the task's submission format, or JSON lines.

    JSON lines are of `{"id", "output"}`. The order of items does not matter. Of a run, the samples
    that it answered are scored.

    Args:
        partial: score the samples that both have; the first of repeated answers counts, and
            another task's name is a warning.
        extras: metrics of `personabench.metrics.extras`; None for those of the task's kind.

    Raises:
        UsageError: the task's answers are not scored by themselves.
        DataError: a file is damaged, or (without `partial`) the two do not match; the message
            names all differences.
    """
    stated_task, answers = read_predictions(task, predictions)
    samples = references.samples
    is_run = predictions.is_dir()
    if is_run:
        answered = {answer.id for answer in answers}
        samples = {name: sample for name, sample in samples.items() if name in answered}

    difference = compare_ids(samples, [answer.id for answer in answers])
    problems = []
    if stated_task is not None and stated_task != task.name:
        problems.append(f"the predictions are of task {stated_task}, the references of {task.name}")
    if str(difference):
        problems.append(f"the ids differ: {difference}")
    if problems and not partial:
        raise DataError(
            f"{predictions} does not fit {references.origin}: {'; '.join(problems)}. "
            "Score the items of both with --partial, or repair the file"
        )
    if difference.repeated:
        problems.append("the first answer of each repeated id was scored")

    outputs = _first_outputs(answers, samples)
    if not outputs:
        raise DataError(f"{predictions} and {references.origin} share no id")

    chosen = choose_extras(task.kind) if extras is None else extras
    scores = _score(task, outputs, samples, scorer, chosen)
    unscored = len(references.samples) - len(samples) if is_run else 0
    return FileScores(
        task=task.name,
        scorer=scorer,
        n=len(outputs),
        partial=bool(problems or unscored),
        metrics=_aggregate(task, scores.measured, [sample.values for sample in scores.samples]),
        parse_failures=sum(sample.parsed is None for sample in scores.samples),
        null_outputs=sum(output is None for output in outputs.values()),
        missing=difference.missing,
        extra=difference.extra,
        repeated=difference.repeated,
        warnings=(*references.warnings, *problems, *scores.warnings),
        users=len({sample.user_id for sample in scores.samples}),
        samples=tuple(scores.samples),
        measured=scores.measured,
        extras=scores.extras,
        divergence=measure_divergence(
            task, samples, {sample.id: sample.parsed for sample in scores.samples}
        ),
    )


def _first_outputs(
    answers: Sequence[Answer], samples: Mapping[str, Sample]
) -> dict[str, str | None]:
    """The first output of each sample that has a reference, by id in alphabetical order."""
    outputs: dict[str, str | None] = {}
    for answer in answers:
        if answer.id in samples:
            outputs.setdefault(answer.id, answer.output)
    return dict(sorted(outputs.items()))


@dataclass(frozen=True)
class _Scores:
    samples: list[SampleScore]
    measured: tuple[Metric, ...]
    extras: dict[str, float]
    warnings: list[str]


def _score(
    task: Task,
    outputs: Mapping[str, str | None],
    samples: Mapping[str, Sample],
    scorer: str,
    extras: Sequence[Metric],
) -> _Scores:
    official = {metric.name for metric in task.metrics}
    extra_metrics = tuple(metric for metric in extras if metric.name not in official)
    scored: list[SampleScore] = []
    extra_values: list[Mapping[str, Value]] = []
    coverage = ReferenceCoverage(task.metrics)
    for sample_id, output in outputs.items():
        sample = samples[sample_id]
        parsed = task.parse(output or "", sample, scorer)
        values = task.measure(parsed, sample)
        scored.append(SampleScore(sample_id, sample.user_id, output, parsed, values))

        reference = sample.references[0] if sample.references else ""
        extra_values.append(measure_extras(extra_metrics, parsed, reference))
        coverage.add(reference)

    measured_names = {name for sample_score in scored for name in sample_score.values}
    measured = tuple(metric for metric in task.metrics if metric.name in measured_names)
    if task.metrics[0] not in measured:
        raise _explain_interaction(task)
    extra_scores = _aggregate(task, extra_metrics, extra_values)
    return _Scores(scored, measured, extra_scores, list(coverage.warnings()))


def _explain_interaction(task: Task) -> UsageError:
    return UsageError(
        f"{task.name} has no score for an answer by itself: its {task.metrics[0].name} needs "
        f"the interaction of a run, or a judge (`personabench run --task {task.name}`)"
    )


def _aggregate(
    task: Task, metrics: Sequence[Metric], values: Sequence[Mapping[str, Value]]
) -> dict[str, float]:
    scores = {}
    for metric in metrics:
        column = [row[metric.name] for row in values if metric.name in row]
        with plugin_guard(task, f"metrics[{metric.name!r}].aggregate", "a number from an array"):
            scores[metric.name] = float(metric.aggregate(np.array(column, dtype=np.float64)))
    return scores


@contextmanager
def caught_warnings() -> Iterator[list[str]]:
    """Collect warnings as texts instead of printing them."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield messages
        finally:
            messages += [str(warning.message) for warning in caught]
