"""`personabench judge-panel`: several judges of the same stored answers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo, emit, screen
from personabench.cli.execution_options import Cache as CacheOption
from personabench.cli.execution_options import CachePolicy, Concurrency, Timeout
from personabench.cli.model_options import RoleArguments
from personabench.cli.options import RESULTS, Json, MovedData, OwnTask, Results
from personabench.cli.parsing import split_names
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.cli.text_table import Column
    from personabench.metrics.judges.panel import Cost, Panel
    from personabench.models.backends.base import BackendOptions
    from personabench.results.run_folder import RunFolder


def judge_panel(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs of one judged task: folders, first characters of run ids, or 'last'.",
            metavar="RUN",
        ),
    ],
    judges: Annotated[
        str,
        typer.Option(
            "--judges",
            metavar="JUDGE,..",
            help="Judges, as BACKEND or BACKEND:MODEL, such as local,openai:gpt-4o-mini.",
        ),
    ],
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="PROMPT,..",
            help="Wordings of the task's judge, such as strict,generous (default: the run's).",
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--judge-base-url", metavar="URL", help="Server of judges that are served."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--judge-header", metavar="HEADER", help="HTTP header. Repeatable."),
    ] = None,
    vague: Annotated[
        bool,
        typer.Option("--vague", help="Judge answers as well that are vague on purpose."),
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Human labels of the answers, as judge-report --ask writes them.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, metavar="N", help="Answers of each run (default: all)."
        ),
    ] = None,
    task: OwnTask = None,
    data: MovedData = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    results: Results = RESULTS,
    cache: CacheOption = CachePolicy.use,
    json: Json = False,
) -> None:
    """Compare judges on the same stored answers.

    The model under test is not called. Prints each run's score and rank under every judge, how
    often judges disagree, and with --vague the share of vague answers that each accepts. Human
    labels stand beside the judges. Judgements are kept: repeat the command to add missing ones. A
    leaderboard marks the runs whose rank depends on the judge.
    """
    import msgspec

    from personabench.results.index import find_run
    from personabench.results.locate import load_tasks, search_data_in
    from personabench.run.interrupts import run_command
    from personabench.run.judge_panel import PanelOptions
    from personabench.run.judge_panel import judge_panel as judge_by_panel

    folders = [find_run(run, results) for run in runs]
    search_data_in(data or [])
    load_tasks(task, [folder.spec() for folder in folders], results)
    options = PanelOptions(
        judges=[_read_judge(name, base_url, header, timeout) for name in split_names(judges)],
        prompts=split_names(prompts or ""),
        results=results,
        cache=cache.value,
        concurrency=concurrency,
        limit=limit,
        vague=vague,
        labels=_read_labels(labels, folders),
    )
    if not options.judges:
        raise UsageError("--judges names no judge; write BACKEND or BACKEND:MODEL")

    panel = run_command(
        judge_by_panel(folders, options), farewell="interrupted; judgements are kept"
    )
    _store(panel, folders, results)
    if json:
        emit(msgspec.to_builtins(panel))
    else:
        _print(panel)
    failed = sum(verdict.failed for verdict in panel.verdicts)
    if failed:
        echo(
            f"error: {failed} answers could not be judged; repeat the command to try them again",
            err=True,
        )
        sys.exit(1)


def _read_labels(path: Path | None, folders: Sequence[RunFolder]) -> dict[str, dict[str, float]]:
    """Read human labels of the whole answers, by fingerprint and sample id.

    Raises:
        UsageError: no label is of an answer of these runs.
        DataError: the file has another form.
    """
    if path is None:
        return {}
    from personabench.cli.judge_labels import read_score_labels
    from personabench.metrics.judges.score_agreement import TOTAL

    labels = {}
    for folder in folders:
        fingerprint = folder.spec().fingerprint
        answered = {line.sample_id for line in folder.iter_predictions()}
        by_sample = read_score_labels(path, fingerprint)
        labels[fingerprint] = {
            name: scores[TOTAL]
            for name, scores in by_sample.items()
            if name in answered and TOTAL in scores
        }
    if not any(labels.values()):
        raise UsageError(f"--labels {path}: no label is of an answer of these runs")
    return labels


def _store(panel: Panel, folders: Sequence[RunFolder], results: Path) -> None:
    """Keep scores by judge, for the leaderboard; a results folder may be read-only."""
    from personabench.metrics.judges.panel import PEOPLE
    from personabench.results.index import read_run
    from personabench.results.panels import store_panel

    verdicts = [verdict for verdict in panel.verdicts if verdict.column.judge != PEOPLE]
    columns = list(dict.fromkeys(verdict.column for verdict in verdicts))
    scores = {(verdict.run, verdict.column): verdict.score for verdict in verdicts}
    names = list(dict.fromkeys(verdict.run for verdict in verdicts))
    # Verdicts come in the order of the runs.
    runs = [
        (read_run(folder.path), [scores.get((name, column)) for column in columns])
        for folder, name in zip(folders, names, strict=False)
    ]
    judges = [column.label for column in columns]
    with contextlib.suppress(OSError):
        store_panel(results, runs, judges, panel.metric, panel.higher_is_better)


def _read_judge(
    text: str, base_url: str | None, header: Sequence[str] | None, timeout: float | None
) -> tuple[str, BackendOptions]:
    """Read a judge such as "openai:gpt-4o-mini"."""
    from personabench.models.backends import credentials
    from personabench.models.backends.base import BackendOptions

    backend, _, model = text.partition(":")
    is_served = backend not in ("local", "scripted")
    arguments = RoleArguments(
        backend=backend,
        model=model or None,
        base_url=base_url if is_served else None,
        header=list(header or ()) if is_served else None,
    )
    options = arguments.read_for_role("judge", timeout or BackendOptions.timeout)
    _, roles = credentials.assign_secrets("", BackendOptions(), {"judge": (backend, options)})
    return roles["judge"]


def _print(panel: Panel) -> None:
    """Print scores and ranks as a table, then agreement, vague answers and cost."""
    from personabench.cli.text_table import print_table

    console = screen()
    direction = "higher" if panel.higher_is_better else "lower"
    console.print(f"{panel.metric} ({direction} is better), with ranks\n", markup=False)
    print_table(console, _columns(panel, "  ", 60), _columns(panel, "\n", 24))
    console.print()
    for line in _describe(panel):
        console.print(f" {line}", markup=False)


def _columns(panel: Panel, joint: str, most: int) -> list[Column]:
    """The columns of runs and judges: scores with their ranks behind a joint, names broken."""
    from personabench.cli.text_table import Column

    runs = list(dict.fromkeys(verdict.run for verdict in panel.verdicts))
    unstable = set(panel.unstable_runs())
    ranks = panel.ranks()
    by_run = {(verdict.run, verdict.column): verdict for verdict in panel.verdicts}
    names = [f"{run} *" if run in unstable else run for run in runs]
    columns = [Column("run", names, is_name=True, most=most)]
    for judge in dict.fromkeys(verdict.column for verdict in panel.verdicts):
        cells = []
        for run in runs:
            score = by_run[run, judge].score
            rank = ranks.get((run, judge))
            cells.append("–" if score is None else f"{score:.4f}{joint}#{rank}")
        columns.append(Column(judge.label, cells))
    return columns


def _describe(panel: Panel) -> list[str]:
    from personabench.metrics.judges.panel import PEOPLE

    lines = []
    if panel.unstable_runs():
        lines.append("* The rank depends on the judge.")
    for agreement in panel.agreements:
        kappa = "–" if agreement.kappa is None else f"{agreement.kappa:.2f}"
        lines.append(
            f"{agreement.first.label} and {agreement.second.label}: "
            f"{agreement.flips} of {agreement.n} verdicts differ, kappa {kappa}"
        )
    for vague in panel.vague:
        share = f", {vague.passed / vague.n:.0%}" if vague.n else ""
        lines.append(
            f"{vague.column.label} accepts {vague.passed} of {vague.n} vague answers{share}"
        )
        if vague.missing:
            lines.append(f"{vague.column.label}: {vague.missing} vague answers without a verdict")
    if panel.vague_shared:
        lines.append(f"{panel.vague_shared} vague answers hold their gold and are left out")
    for verdict in panel.verdicts:
        if verdict.unjudged and verdict.column.judge == PEOPLE:
            lines.append(f"{verdict.run}: {len(verdict.scores)} answers have a human label")
        elif verdict.unjudged:
            lines.append(
                f"{verdict.run}: {verdict.unjudged} unjudged answers ({verdict.column.label})"
            )
    lines += [_describe_cost(cost, "stored answers") for cost in panel.costs]
    if panel.vague_writing:
        lines.append(_describe_cost(panel.vague_writing, "writing vague answers"))
    lines += [_describe_cost(cost, "vague answers") for cost in panel.vague_costs]
    return lines


def _describe_cost(cost: Cost, subject: str) -> str:
    return (
        f"{cost.column.label}, {subject}: {cost.calls:,} calls, {cost.input_tokens:,} tokens in, "
        f"{cost.output_tokens:,} out"
    )
