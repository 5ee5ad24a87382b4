"""`personabench train`: make the artifacts that a trained method answers with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.console import echo, emit, screen
from personabench.cli.model_options import ModelArguments
from personabench.cli.options import (
    RESULTS,
    Assignments,
    Data,
    Json,
    Limit,
    Model,
    Results,
    Seed,
    Split,
    Users,
)
from personabench.cli.parsing import split_names
from personabench.cli.prompt_options import Wording, read_wording

if TYPE_CHECKING:
    from personabench.run.options import Options
    from personabench.run.training import Report, Training

METHOD = Annotated[
    str, typer.Argument(help="Method to train, by its name or file.", metavar="METHOD")
]
Task = Annotated[
    str, typer.Option("--task", "-t", metavar="NAME", help="Task whose users are trained on.")
]
History = Annotated[
    str,
    typer.Option(
        "--history",
        metavar="CONTROL",
        help="History control of the runs to train for: own, shuffled or size=N.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Count users, records and steps instead of training."),
]


def train(
    method: METHOD,
    task: Task,
    model: Model = None,
    split: Split = None,
    data: Data = None,
    limit: Limit = None,
    users: Users = None,
    seed: Seed = 0,
    assignments: Assignments = None,
    wording: Wording = None,
    history: History = "own",
    results: Results = RESULTS,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a method for the users of a task, before runs.

    Finished users are kept: repeat the command after an interrupt, or with more users. --model is a
    checkpoint folder or a model on the hub, which most methods train; those need the extra `train`.
    """
    from personabench.errors import UsageError
    from personabench.models.backends.hf_transformers import require_packages
    from personabench.run.options import Options

    if limit is not None and users is not None:
        raise UsageError("--users cannot be used together with --limit")
    names = split_names(method)
    # A name for the results of methods that are trained without a model, which has no part in them.
    backend = "scripted"
    if _need_base(names):
        require_packages()
        backend = "transformers"
    elif model is not None:
        raise UsageError(f"--model: {method} is trained without a model; leave it out")
    options = Options(
        methods=names,
        tasks=split_names(task),
        split=split,
        data=data,
        limit=limit,
        users=users.number if users else None,
        longest=users is not None and users.longest,
        backend=backend,
        backend_options=ModelArguments(backend=backend, model=model).read(),
        seed=seed,
        assignments=assignments or [],
        wording=read_wording(wording),
        history=history,
        results=results,
    )
    _execute(options, dry_run=dry_run, json=json)


def _need_base(methods: Sequence[str]) -> bool:
    """Whether one of the methods trains a base model.

    Raises:
        UsageError: one has nothing to train.
    """
    from personabench.api.registry import load_class
    from personabench.api.training import TrainedMethod

    classes = [load_class("method", name) for name in methods]
    for cls in classes:
        if not issubclass(cls, TrainedMethod):
            raise _not_trained(cls.name)
    return any(cls.needs_base() for cls in classes)


def _execute(options: Options, *, dry_run: bool, json: bool) -> None:
    """Train, or count the work, and print what came of it."""
    import asyncio

    from personabench.cli.interruption import print_interrupted

    console = screen(err=True)
    try:
        asyncio.run(_train(options, dry_run=dry_run, json=json))
    except KeyboardInterrupt:
        print_interrupted(console, "finished users are kept")
        sys.exit(130)


async def _train(options: Options, *, dry_run: bool, json: bool) -> None:
    import signal

    from personabench.models.backends.hf_transformers import choose_device
    from personabench.run.resolve import resolve
    from personabench.run.session import identified_models
    from personabench.run.training import Trainings, summarize

    # An event loop would wait for the training to end, which never returns to it meanwhile.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows: list[dict[str, Any]] = []
    async with identified_models(options) as (model, _):
        for run in resolve(options, model):
            training = run.training
            assert training is not None
            if dry_run:
                rows.append(_count_work(training, run.positions))
                continue
            base = options.backend_options.model or ""
            device = choose_device() if base else "cpu"
            trainings = Trainings(training, base, device, _print_report)
            reports = await trainings.execute(run.positions)
            artifacts = [report.artifact for report in reports]
            trained = sum(not report.reused for report in reports)
            folder = str(training.store.root)
            rows.append({**summarize(artifacts), "trained": trained, "folder": folder})
    for row in rows:
        if json:
            continue
        echo("  ".join(f"{name} {amount}" for name, amount in row.items()))
    if json:
        emit(rows)


def _not_trained(method: str) -> Exception:
    from personabench.errors import UsageError

    return UsageError(
        f"method {method} has nothing to train; run it with: personabench run --method {method}"
    )


def _print_report(report: Report) -> None:
    """Print one line about an artifact, so that a long training shows where it is."""
    card = report.artifact.card
    name = f"user {card.owner}" if card.owner else "population stage"
    state = "kept" if report.reused else f"{card.seconds:.1f} s"
    examples = f"{card.records} records"
    if not card.owner:
        examples = f"{len(report.artifact.seen.samples)} samples"
    counts = ", ".join(f"{name} {count}" for name, count in sorted(card.counts.items()))
    echo(
        f"{name}: {state}, {examples}, {card.steps} steps" + (f" ({counts})" if counts else ""),
        err=True,
    )


def _count_work(training: Training, positions: Sequence[int]) -> dict[str, Any]:
    """The users, records and updates of a training, and the users whose artifacts exist.

    Tokens are those of the records once, estimated, without the words of requests.
    """
    from personabench.models.tokens import EstimatedTokens

    trainees = list(training.trainees(positions))
    tokens = EstimatedTokens()
    records = [record for trainee in trainees for record in trainee.history]
    method = training.method
    finished = [trainee for trainee in trainees if training.is_trained(trainee.owner, trainee.key)]
    corpus = training.corpus
    return {
        "users": len(trainees),
        "finished": len(finished),
        "records": len(records),
        "tokens": sum(tokens.count(training.task.describe(record)) for record in records),
        "steps": sum(method.count_steps(len(trainee.history)) for trainee in trainees),
        "corpus_samples": 0 if corpus is None else len(corpus.index()),
        "folder": str(Path(training.store.root)),
    }
