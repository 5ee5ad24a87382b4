"""`personabench check`: verify plugins, retrieval and published results, or a backend."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.completion import complete_methods, complete_tasks
from personabench.cli.console import echo, emit, screen
from personabench.cli.help import PlainCommand
from personabench.cli.model_options import ModelArguments
from personabench.cli.option_groups import grouped
from personabench.cli.options import (
    RESULTS,
    Assignments,
    Data,
    Json,
    Results,
    Split,
    Temperature,
    TopP,
)
from personabench.cli.parsing import split_names

if TYPE_CHECKING:
    from personabench.api.task import Task
    from personabench.run.retrieval_check import RetrievalScore
    from personabench.testing.finding import Finding

app = typer.Typer(
    help="Verify plugins, retrieval, a backend or published results.",
    no_args_is_help=True,
)


@app.command("task", cls=PlainCommand)
def task(
    name: Annotated[
        str,
        typer.Argument(
            help="Task name or file.py[:Class].", metavar="TASK", autocompletion=complete_tasks
        ),
    ],
    split: Split = None,
    data: Data = None,
    assignments: Assignments = None,
    json: Json = False,
) -> None:
    """Check a task's data, wording and metrics."""
    from personabench.api.registry import load_class
    from personabench.testing.checks import check_task

    checked = create_task(load_class("task", name), assignments or [])
    _report(check_task(checked, split or checked.default_split, data), json)


@app.command("method", cls=PlainCommand)
def method(
    name: Annotated[
        str,
        typer.Argument(
            help="Method name or file.py[:Class].",
            metavar="METHOD",
            autocompletion=complete_methods,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            help="Task whose example data is used (default: a small built-in task).",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check a method's answers, determinism, leaks and window."""
    from personabench.api.guard import create
    from personabench.api.registry import example_task, load_class
    from personabench.testing.checks import check_method
    from personabench.testing.data_access import refuse_data_access

    # A file could also read gold answers while it is imported.
    with refuse_data_access() as calls:
        checked = create(load_class("method", name))
    _report(check_method(checked, task or example_task(), refused_calls=calls), json)


@app.command("retrieval", cls=PlainCommand)
def retrieval(
    name: Annotated[str, typer.Argument(help="Task name or file.py[:Class].", metavar="TASK")],
    split: Split = None,
    data: Data = None,
    retrievers: Annotated[
        str,
        typer.Option(
            "--retrievers", metavar="NAME,..", help="bm25, dense, recency, random, recency+dense."
        ),
    ] = "bm25,dense",
    cutoffs: Annotated[
        str, typer.Option("--k", metavar="N,..", help="Numbers of records to retrieve.")
    ] = "1,5,10,25",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="NAME",
            help="Of bm25: words or whitespace (default: the task's own).",
            show_default=False,
        ),
    ] = None,
    embedder: Annotated[
        str, typer.Option("--embedder", metavar="NAME", help="Of dense, as in rag.")
    ] = "wordllama",
    assignments: Assignments = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, metavar="N", help="Questions (default: all)."),
    ] = None,
    json: Json = False,
) -> None:
    """Print how much evidence retrievers find, without a model.

    Every question with evidence marks searches its history, as rag would. Recall stands beside the
    tokens that it costs.
    """
    import asyncio
    import dataclasses

    from personabench.api.registry import load_class
    from personabench.api.users import open_split
    from personabench.run.interrupts import ending_command
    from personabench.run.retrieval_check import RetrievalOptions, check_retrieval
    from personabench.run.watchdog import watch_opening

    options = RetrievalOptions(split_names(retrievers), _read_numbers(cutoffs), embedder, limit)
    checked = create_task(load_class("task", name), assignments or [])
    if tokenizer is not None:
        from personabench.retrieval.tokenizers import get_tokenizer

        get_tokenizer(tokenizer)
        checked.tokenizer = tokenizer
    with ending_command("interrupted"), watch_opening():
        dataset = open_split(checked, split or checked.default_split, data)
        scores = asyncio.run(check_retrieval(checked, dataset, options))
    if json:
        emit([dataclasses.asdict(score) for score in scores])
        return
    _print_retrieval(scores, dataset.source, checked.tokenizer)


def create_task(cls: type[Task], assignments: list[str]) -> Task:
    """Create a task with parameters of `--set`.

    Raises:
        UsageError: there is no such parameter, or it does not take the value.
    """
    from personabench.api.guard import create
    from personabench.api.params import fill_params, parse_assignments

    by_owner = parse_assignments(assignments, ["task"])
    texts = {**by_owner.get("", {}), **by_owner.get("task", {})}
    task: Task = create(cls, fill_params(cls.Params, texts, f"task {cls.name}"))
    return task


def _read_numbers(text: str) -> list[int]:
    from personabench.errors import UsageError

    names = split_names(text)
    if not names or not all(name.isdecimal() and int(name) for name in names):
        raise UsageError(f"--k {text}: write numbers from 1, separated by commas, such as 1,5,10")
    return [int(name) for name in names]


def _print_retrieval(scores: Sequence[RetrievalScore], source: str, tokenizer: str) -> None:
    from rich import box
    from rich.table import Table

    names = list(dict.fromkeys(name for score in scores for name in score.metrics))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    table.add_column("retriever")
    for heading in ("k", *names, "tokens"):
        table.add_column(heading, justify="right")
    for score in scores:
        cells = [_cell(score.metrics.get(name)) for name in names]
        table.add_row(score.retriever, str(score.k), *cells, f"{score.tokens:,.0f}")
    console = screen()
    console.print(table)
    echo(f" {scores[0].n:,} questions with evidence of {source}; bm25 by {tokenizer}")
    for retriever, count in {score.retriever: score.no_match for score in scores}.items():
        if count:
            echo(f" {retriever}: {count} questions share no token with their history")


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


@app.command("backend", cls=PlainCommand)
@grouped
def backend(
    model: ModelArguments,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Learn the dialect of a server with one small call.

    It is printed on one line and kept in the results folder. A run does the same when a server is
    new.
    """
    import asyncio

    from personabench.run.openings import check_backend
    from personabench.run.options import Options
    from personabench.types import Sampling

    sampling = Sampling(temperature, top_p)
    options = Options(
        [],
        [],
        backend=model.backend,
        backend_options=model.read(),
        sampling=sampling,
        results=results,
    )
    facts = asyncio.run(check_backend(options))
    if json:
        emit(facts)
        return
    for label, fact in facts.items():
        echo(f"{label:9} {fact}")


@app.command("published", cls=PlainCommand)
def published(
    folder: Annotated[
        Path, typer.Argument(help="Folder with published results.", metavar="FOLDER")
    ] = RESULTS / "reference",
    json: Json = False,
) -> None:
    """Check that published results are whole and hold no texts.

    No text of the data may be in them.

    Hashes, counts, names and fingerprints have to agree, and every number of a summary has to
    follow from its scores. Exits with 1 if a file fails, and with 2 if there is none.
    """
    from personabench.testing.published_check import check_published

    _report(check_published(folder), json)


_MARKS = {True: "ok", False: "FAIL", None: "–"}


def _report(findings: Iterable[Finding], json: bool) -> None:
    """Print findings and exit with 1 if one does not hold."""
    results = _run_checks(findings)
    if json:
        rows = [
            {
                "what": finding.what,
                "holds": finding.holds,
                "detail": finding.detail,
            }
            for finding in results
        ]
        emit(rows)
    else:
        for finding in results:
            detail = f" ({finding.detail})" if finding.detail else ""
            echo(f"{_MARKS[finding.holds]:4}  {finding.what}{detail}")

    if any(finding.holds is False for finding in results):
        sys.exit(1)


def _run_checks(findings: Iterable[Finding]) -> list[Finding]:
    """Run the checks; a fault of the plugin ends them as a check that does not hold."""
    from personabench.errors import PluginError
    from personabench.run.interrupts import ending_command
    from personabench.testing.finding import Finding

    results = []
    try:
        with ending_command("interrupted"):
            for finding in findings:
                results.append(finding)
    except PluginError as fault:
        results.append(Finding("the code returns what is expected of it", False, str(fault)))
    return results
