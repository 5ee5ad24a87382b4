"""`personabench judge` compares the answers of two runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo, emit, screen
from personabench.cli.execution_options import Cache as CacheOption
from personabench.cli.execution_options import CachePolicy, Concurrency, Timeout
from personabench.cli.judge_tables import print_summary
from personabench.cli.model_options import RoleArguments, declare_role
from personabench.cli.option_groups import grouped
from personabench.cli.options import RESULTS, Json, MovedData, OwnTask, Results, Seed
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.leaderboard.pairwise_summary import Side
    from personabench.metrics.judges.verdict import Pick, Verdict
    from personabench.results.run_folder import RunFolder

Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help='Human labels: JSON lines {"id", "label"} with a, b or tie.',
        exists=True,
        dir_okay=False,
    ),
]


Judge = Annotated[
    RoleArguments,
    declare_role(
        "judge",
        "the judge",
        "set by the protocol",
        default="local",
        header_alias=("--header",),
    ),
]


class Protocol(StrEnum):
    """How two answers are judged."""

    faireval = "faireval"
    verbal_certainty = "verbal-certainty"


@grouped
def judge(
    a: Annotated[
        str,
        typer.Argument(help="Run folder, first characters of a run id, or 'last'.", metavar="A"),
    ],
    b: Annotated[
        str, typer.Argument(help="The run to compare it with, in the same form.", metavar="B")
    ],
    arguments: Judge,
    protocol: Annotated[
        Protocol,
        typer.Option(
            "--protocol",
            metavar="PROTOCOL",
            help="faireval (scores in both orders) or verbal-certainty (a choice as the user).",
        ),
    ] = Protocol.faireval,
    votes: Annotated[
        int,
        typer.Option("--votes", min=1, metavar="N", help="faireval: replies in each order."),
    ] = 3,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=0.0, metavar="T", help="faireval: temperature of the votes."
        ),
    ] = 1.0,
    records: Annotated[
        int,
        typer.Option(
            "--records",
            min=0,
            metavar="N",
            help="Number of the user's newest records in the judge's prompt.",
        ),
    ] = 5,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            metavar="N",
            help="Number of samples, in file order (default: all).",
        ),
    ] = None,
    task: OwnTask = None,
    data: MovedData = None,
    labels: Labels = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Write the fifth of the items with the most spread, for human labels.",
        ),
    ] = None,
    concurrency: Concurrency = None,
    seed: Seed = 0,
    timeout: Timeout = None,
    results: Results = RESULTS,
    cache: CacheOption = CachePolicy.use,
    json: Json = False,
) -> None:
    """Have a judge compare two runs sample by sample.

    Prints wins, ties and losses with an interval over users, and the judge's conflicts between the
    two orders, spread and preference for the first answer. Verdicts are kept: repeat the command to
    add missing ones.
    """
    import msgspec

    from personabench.leaderboard.pairwise_summary import summarize
    from personabench.models.backends import credentials
    from personabench.models.backends.base import BackendOptions
    from personabench.results.index import find_run
    from personabench.results.locate import load_tasks, search_data_in
    from personabench.run import answer_pairs, pairwise_judging, verdict_file
    from personabench.run.interrupts import run_command

    folders = find_run(a, results), find_run(b, results)
    warnings = answer_pairs.check_comparable(*folders)
    human_labels = verdict_file.read_labels(labels) if labels else {}
    search_data_in(data or [])
    load_tasks(task, [folder.spec() for folder in folders], results)
    opened_task, dataset = answer_pairs.open_data(*folders)
    pairs = list(answer_pairs.pair_answers(*folders, dataset))[:limit]
    if not pairs:
        raise UsageError(
            "the two runs share no answered sample; run both on the same data and users"
        )

    judge_options = arguments.read_for_role("judge", timeout or BackendOptions.timeout)
    _, roles = credentials.assign_secrets(
        "", BackendOptions(), {"judge": (arguments.backend or "local", judge_options)}
    )
    options = pairwise_judging.JudgeOptions(
        *roles["judge"],
        protocol=protocol.value,
        votes=votes,
        temperature=temperature,
        seed=seed,
        records=records,
        concurrency=concurrency,
        cache=cache.value,
        results=results,
    )
    if export is not None:
        _check_writable(export)

    with _judge_option_names(), _progress(len(pairs)) as on_verdict:
        result = run_command(
            pairwise_judging.judge_runs(*folders, opened_task, pairs, options, on_verdict),
            farewell="interrupted; verdicts are kept",
        )

    side_a, side_b = map(_describe_run, folders)
    summary = summarize(result, side_a, side_b, human_labels, warnings)
    for warning in summary.warnings:
        echo(f"warning: {warning}", err=True)
    if export is not None:
        count = _export(export, result.verdicts, human_labels)
        echo(f"{count} items to label: {export}", err=True)
    if json:
        emit(msgspec.to_builtins(summary))
    else:
        print_summary(summary)
    if summary.failed:
        echo(
            f"error: {summary.failed} samples could not be judged; repeat the command to try them "
            f"again; the first: {result.first_failure}",
            err=True,
        )
        sys.exit(1)


def _describe_run(folder: RunFolder) -> Side:
    from personabench.leaderboard.pairwise_summary import Side
    from personabench.results.index import label

    summary = folder.summary()
    return Side(label(summary), summary.model, summary.fingerprint[:8])


@contextmanager
def _judge_option_names() -> Iterator[None]:
    """Name the judge's options in errors about the options of a backend."""
    import re

    from personabench.errors import PersonabenchError

    try:
        yield
    except PersonabenchError as error:
        message = re.sub(r"(?<!\w)--(?=(model|base-url)\b)", "--judge-", str(error))
        error.args = (message,)
        raise


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal; the yielded function advances it by one item."""
    from rich.progress import Progress

    console = screen(err=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("judging", total=total)
        yield lambda: bar.advance(task)


def _check_writable(path: Path) -> None:
    """Check that `--export` can be written.

    Raises:
        UsageError: it cannot.
    """
    import tempfile

    # Checked before the first call, so that no verdict is paid for and then lost.
    if path.is_dir():
        raise UsageError(f"--export {path} is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"--export {path} cannot be written: {error.strerror or error}; name another file"
        ) from error


def _export(path: Path, verdicts: Sequence[Verdict], labels: Mapping[str, Pick]) -> int:
    """Write the items worth a human label, with the labels given so far; return their number.

    Raises:
        UsageError: the file cannot be written.
    """
    from personabench.metrics.judges.faireval import select_for_review
    from personabench.results.export import writing
    from personabench.types import to_json

    picks = {verdict.sample_id: verdict.pick for verdict in verdicts}
    items = []
    for sample_id in select_for_review(verdicts):
        item = {
            "id": sample_id,
            "label": labels.get(sample_id),
            "judge": picks[sample_id],
        }
        items.append(to_json(item) + "\n")

    with writing(path) as temporary, temporary.open("x", encoding="utf-8") as file:
        file.writelines(items)
    return len(items)
