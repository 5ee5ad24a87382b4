"""`personabench import`: answers of a system that runs elsewhere, as a row of the leaderboard."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import screen
from personabench.cli.execution import conclude, execute
from personabench.cli.help import DATA_PANEL
from personabench.cli.interruption import command_line
from personabench.cli.model_options import Judge, JudgeRubric, role_backends
from personabench.cli.option_groups import grouped
from personabench.cli.options import (
    RESULTS,
    Assignments,
    Data,
    History,
    Json,
    Limit,
    Results,
    Split,
)
from personabench.cli.options import Task as TaskOption
from personabench.cli.run import print_outcomes

if TYPE_CHECKING:
    from personabench.run.runner import ResolvedRun

Predictions = Annotated[
    Path,
    typer.Option(
        "--predictions",
        metavar="PATH",
        help="Answers: JSON lines with id and output, the task's official format, or a run folder.",
        rich_help_panel=DATA_PANEL,
    ),
]
CardFile = Annotated[
    Path,
    typer.Option(
        "--card",
        metavar="FILE",
        help="Where they come from (YAML): method, model, trained_on and more.",
        rich_help_panel=DATA_PANEL,
    ),
]


@grouped
def import_answers(
    task: TaskOption,
    predictions: Predictions,
    card: CardFile,
    judge: Judge,
    judge_rubric: JudgeRubric = None,
    split: Split = None,
    data: Data = None,
    limit: Limit = None,
    history: History = "own",
    assignments: Assignments = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Import answers of any system as a row of the leaderboard.

    They are read, scored and tested like those of a method, and marked as imported. Samples
    without an answer have failed.
    """
    from personabench.api.guard import create
    from personabench.api.registry import load_class
    from personabench.metrics.judges.custom_rubric import read_rubric
    from personabench.models.backends.base import BackendOptions
    from personabench.run.imported import (
        ImportedModel,
        check_answers,
        imported_method,
        read_answers,
        read_card,
    )
    from personabench.run.options import Options
    from personabench.run.score_file import require_single_answers

    source = read_card(card)
    task_object = create(load_class("task", task))
    require_single_answers(task_object)
    by_seed = {answers.seed: answers for answers in read_answers(task_object, predictions)}
    first = min(by_seed)

    options = Options(
        methods=(),
        tasks=[task],
        split=split,
        data=data,
        limit=limit,
        draw=first,
        backend="scripted",
        history=history,
        assignments=assignments or [],
        results=results,
        # Nothing is asked of a model that could be stored.
        cache="off" if judge.backend is None else "use",
        command=command_line(),
        rubric=read_rubric(judge_rubric) if judge_rubric else None,
        roles=role_backends("scripted", BackendOptions(), {"judge": judge}),
        card=source.to_json_object(),
    )
    options_by_seed = [
        dataclasses.replace(options, seed=seed, classes=[imported_method(source, answers)])
        for seed, answers in by_seed.items()
    ]

    def check(jobs: Sequence[ResolvedRun]) -> None:
        for job in jobs:
            check_answers(by_seed[job.spec.seed], source, job.dataset, job.positions)

    console = screen(err=True)
    announced: set[str] = set()
    outcomes = execute(
        options_by_seed, console, announced, notify=check, backend=ImportedModel(source)
    )
    print_outcomes(outcomes, results, json)
    conclude(outcomes, options, announced, console)
