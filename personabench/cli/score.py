"""`personabench score`: score answers made elsewhere, or a run's, against references."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.console import echo, emit
from personabench.cli.options import Data, Json, Split

if TYPE_CHECKING:
    from personabench.api.task import Task
    from personabench.leaderboard.run_comparison import RunComparison
    from personabench.run.score_file import FileScores, References
    from personabench.run.submission import Part


Predictions = Annotated[
    Path,
    typer.Option(
        "--predictions",
        metavar="PATH",
        help="Prediction file or JSON lines with id and output (also .gz), a run folder, "
        "or a folder or zip file with one file per task.",
    ),
]
ScoredTasks = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK,..",
        help="Task name or file.py[:Class]; several, or none, for a folder or zip file.",
        show_default=False,
    ),
]
ReferencePath = Annotated[
    Path | None,
    typer.Option(
        "--references",
        metavar="PATH",
        help="The benchmark's reference file, JSON lines, or a folder or zip file of them "
        "(default: the task's data).",
        show_default=False,
    ),
]
Scorer = Annotated[
    str,
    typer.Option(
        "--scorer",
        metavar="SCORER",
        help="Parser of the answers: official, lenient or strict.",
    ),
]
Partial = Annotated[
    bool,
    typer.Option("--partial", help="Score only the ids that both files have."),
]
PerSample = Annotated[
    Path | None,
    typer.Option(
        "--per-sample",
        metavar="FILE",
        help="Write each sample's answer and values as JSON lines.",
        show_default=False,
    ),
]
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="PATH",
        help="Other predictions of the same samples, for a paired test.",
        show_default=False,
    ),
]

Divergence = Annotated[
    bool,
    typer.Option(
        "--divergence",
        help="Require EGISES and PerSEval: an error where no two users share an input.",
    ),
]


def score(
    predictions: Predictions,
    task: ScoredTasks = None,
    references: ReferencePath = None,
    data: Data = None,
    split: Split = None,
    scorer: Scorer = "official",
    partial: Partial = False,
    per_sample: PerSample = None,
    against: Against = None,
    divergence: Divergence = False,
    json: Json = False,
) -> None:
    """Score predictions of any system without a model.

    Prints the task's metrics with intervals over users, further metrics that are not the task's
    own, and how far answers differ between users who share a stimulus.
    """
    from personabench.run.score_file import score_predictions

    with ExitStack() as stack:
        parts = _find_parts(stack, task, predictions, references, data, split, scorer)
        scored = [
            score_predictions(part.task, part.predictions, part.references, scorer, partial)
            for part in parts
        ]
        opponents = _score_opponents(stack, parts, against, scorer, partial)

    if divergence:
        _require_divergence(scored)
    if per_sample is not None:
        _write_samples(per_sample, scored)
    _report(scored, opponents, json)


def _require_divergence(scored: Sequence[FileScores]) -> None:
    from personabench.errors import UsageError

    for scores in scored:
        if isinstance(scores.divergence, str):
            raise UsageError(
                f"--divergence: EGISES and PerSEval compare users on the same input, but "
                f"{scores.divergence}; score a task whose users share inputs, such as reviews of "
                "one product, or leave the option out"
            )


def _find_parts(
    stack: ExitStack,
    task_names: str | None,
    predictions: Path,
    references: Path | None,
    data: Path | None,
    split: str | None,
    scorer: str,
) -> list[Part]:
    """The tasks to score with their files; `stack` owns the unpacked files."""
    from personabench.errors import DataError, UsageError
    from personabench.run.score_file import check_scorer
    from personabench.run.submission import (
        Part,
        candidate_tasks,
        describe_uncovered,
        find_references,
        is_submission,
        match_predictions,
        opened_folder,
    )

    if references is not None and (data is not None or split is not None):
        raise UsageError("--references and --data name the references twice; give one of them")
    if not predictions.exists():
        raise DataError(f"no file {predictions}")

    chosen = [name.strip() for name in (task_names or "").split(",") if name.strip()]
    if is_submission(predictions):
        if references is None:
            raise UsageError(
                f"{predictions} holds files of several tasks: name the folder or zip file of "
                "their references with --references"
            )
        folder = stack.enter_context(opened_folder(references))
        samples = find_references(folder, candidate_tasks(chosen))
        submission = stack.enter_context(opened_folder(predictions))
        parts = match_predictions(submission, samples, selected=bool(chosen))
        uncovered = describe_uncovered(parts, samples)
        if uncovered:
            echo(f"warning: {uncovered}", err=True)
    else:
        opened, origin = _open_one(chosen, predictions, references, data, split)
        parts = [Part(opened, predictions, origin)]

    for part in parts:
        check_scorer(part.task, scorer)
    return parts


def _open_one(
    task_names: Sequence[str],
    predictions: Path,
    references: Path | None,
    data: Path | None,
    split: str | None,
) -> tuple[Task, References]:
    """The task of one prediction file or run, and its references."""
    from personabench.api.guard import create
    from personabench.api.registry import load_class
    from personabench.errors import UsageError
    from personabench.run.score_file import open_references, open_run, read_references

    if len(task_names) > 1:
        raise UsageError(f"{predictions} is of one task, not of {', '.join(task_names)}")
    if predictions.is_dir() and references is None and data is None:
        return open_run(predictions, task_names[0] if task_names else None)
    if not task_names:
        raise UsageError("--task names the task of the predictions")

    task: Task = create(load_class("task", task_names[0]))
    if references is None:
        return task, open_references(task, split, data)
    return task, read_references(task, references)


def _score_opponents(
    stack: ExitStack, parts: Sequence[Part], against: Path | None, scorer: str, partial: bool
) -> dict[str, FileScores]:
    """The scores of the other predictions, by task."""
    from personabench.run.score_file import score_predictions
    from personabench.run.submission import is_submission, match_predictions, opened_folder

    if against is None:
        return {}
    if is_submission(against):
        references = {part.task: part.references for part in parts}
        submission = stack.enter_context(opened_folder(against))
        parts = match_predictions(submission, references, selected=True)
        paths = {part.task.name: part.predictions for part in parts}
    else:
        paths = {part.task.name: against for part in parts}
    return {
        part.task.name: score_predictions(
            part.task, paths[part.task.name], part.references, scorer, partial
        )
        for part in parts
    }


def _write_samples(path: Path, scored: Sequence[FileScores]) -> None:
    from personabench.errors import UsageError
    from personabench.types import to_json

    rows = [
        {
            "task": scores.task,
            "id": sample.id,
            "user_id": sample.user_id,
            "output": sample.output,
            "parsed": sample.parsed,
            "values": dict(sample.values),
        }
        for scores in scored
        for sample in scores.samples
    ]
    try:
        path.write_text("".join(f"{to_json(row)}\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--per-sample {path} cannot be written: {error.strerror}") from error


def _report(scored: Sequence[FileScores], opponents: dict[str, FileScores], as_json: bool) -> None:
    from personabench.leaderboard.file_scores import compare_scores, estimate_scores, to_dict
    from personabench.leaderboard.run_comparison import to_dict as comparison_dict

    results: dict[str, dict[str, Any]] = {}
    for scores in scored:
        for warning in scores.warnings:
            echo(f"warning: {warning}", err=True)
        estimates = estimate_scores(scores)
        comparison = None
        if scores.task in opponents:
            comparison = compare_scores(scores, opponents[scores.task])

        # With --json, standard output must hold the JSON alone.
        echo(_describe(scores), err=as_json)
        results[scores.task] = to_dict(scores, estimates)
        if comparison is not None:
            results[scores.task]["against"] = comparison_dict(comparison)
        if not as_json:
            _print_scores(results[scores.task], scores)
            if comparison is not None:
                _print_comparison(comparison)

    if as_json:
        emit(results if len(results) > 1 else next(iter(results.values())))


def _describe(scores: FileScores) -> str:
    scope = "partial: not all references" if scores.partial else "all ids"
    counts = f"parse failures {scores.parse_failures}, null outputs {scores.null_outputs}"
    users = "" if scores.users == scores.n else f", {scores.users} users"
    return f"{scores.task}, {scores.scorer} scorer, n={scores.n}{users} ({scope}), {counts}"


def _print_scores(result: dict[str, Any], scores: FileScores) -> None:
    # A variant that agrees with the official metric would only repeat its number.
    values = {}
    for metric in scores.measured:
        value = scores.metrics[metric.name]
        if value != scores.metrics.get(metric.variant_of or ""):
            values[metric.name] = value

    shared = scores.divergence
    width = max(12, *map(len, [*values, *scores.extras]))
    for name, value in values.items():
        interval = result["intervals"].get(name, {})
        low, high = interval.get("low"), interval.get("high")
        text = "" if low is None else f"  [{low:.4f}, {high:.4f}]"
        echo(f"{name:{width}} {value:.4f}{text}")
    for name, value in scores.extras.items():
        echo(f"{name:{width}} {value:.4f}  (not a metric of this benchmark)")

    reasons = {interval["reason"] for interval in result["intervals"].values()} - {None}
    for reason in sorted(reasons):
        echo(f"no interval: {reason}")
    if not isinstance(shared, str):
        kind = " (simplified: distances to the stimulus are unknown)" if shared.simplified else ""
        echo(
            f"{shared.stimuli} stimuli shared by users, {shared.samples} answers{kind}: "
            f"EGISES {shared.scores.egises:.4f} (lower is better), "
            f"DEGRESS {shared.scores.degress:.4f}, PerSEval {shared.scores.perseval:.4f}, "
            f"mean distance to the user's own {shared.scores.distance:.4f}"
        )


def _print_comparison(comparison: RunComparison) -> None:
    from personabench.cli.compare import print_metrics
    from personabench.cli.console import screen

    console = screen()
    console.print("A: these predictions, B: --against", markup=False)
    print_metrics(console, comparison)
