"""`personabench judge-report` measures a judge, from its verdicts or with hostile answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo, emit, screen
from personabench.cli.execution_options import Cache as CacheOption
from personabench.cli.execution_options import CachePolicy, Timeout
from personabench.cli.judge import Judge, Protocol
from personabench.cli.judge_tables import report_lines, steering_lines
from personabench.cli.model_options import RoleArguments
from personabench.cli.option_groups import grouped
from personabench.cli.options import RESULTS, Json, MovedData, OwnTask, Results
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.metrics.judges.reliability import ReliabilityReport, ScoringReport
    from personabench.metrics.judges.steering import SteeringReport


@grouped
def judge_report(
    arguments: Judge,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Verdicts of `personabench judge`, judgements of a run, or the run: its folder, "
            "the first characters of its id, or 'last'.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Your labels: JSON lines {id, label} with a, b or tie, or with a score.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    ask: Annotated[
        Path | None,
        typer.Option(
            "--ask", metavar="FILE", help="Write answers of a run to label, without their scores."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, metavar="N", help="With --ask: number of answers.")
    ] = 20,
    task: OwnTask = None,
    data: MovedData = None,
    steering: Annotated[
        bool,
        typer.Option(
            "--steering",
            help="Call the judge: share of hostile answers that move its verdict.",
        ),
    ] = False,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            "--protocol",
            metavar="PROTOCOL",
            help="Protocol of --steering (default: all).",
        ),
    ] = None,
    timeout: Timeout = None,
    results: Results = RESULTS,
    cache: CacheOption = CachePolicy.use,
    json: Json = False,
) -> None:
    """Report on a judge, and how far to trust it by your labels.

    For verdicts on pairs: biases, noise, accuracy against human labels, calibration and cost. For
    judgements of single answers: unjudged answers, repeated calls, cost, and agreement with your
    labels, of which 20 are recommended. With --steering, the judge assesses answers that try to
    decide their own verdict.
    """
    import msgspec

    from personabench.results.locate import search_data_in

    if not names and not steering:
        raise UsageError("name a file of verdicts or judgements, or give --steering with a judge")
    search_data_in(data or [])
    files = [_find_file(name, results) for name in names or []]
    if ask is not None and len(files) != 1:
        raise UsageError("--ask writes the answers of one file of judgements; name one")
    reports = {str(path): _report(path, labels, ask, count, task) for path in files}
    steered = []
    if steering:
        steered = _steer(arguments, timeout, protocol, results, cache)
    if json:
        values = msgspec.to_builtins(reports)
        if steering:
            values["steering"] = {
                report.protocol: {"score": report.score, **msgspec.to_builtins(report)}
                for report in steered
            }
        emit(values)
        return

    console = screen()
    for name, report in reports.items():
        console.print(name, style="bold", markup=False)
        for line in report_lines(report):
            console.print(f"  {line}", markup=False)
    for line in steering_lines(steered):
        console.print(line, markup=False)


def _find_file(name: str, results: Path) -> Path:
    """The file of that name, or the judgements of a run by its judge.

    Raises:
        UsageError: there is neither, or the run has no judge.
    """
    from personabench.results.index import find_run

    if Path(name).is_file():
        return Path(name)
    if name.endswith(".jsonl"):
        raise UsageError(f"{name}: no such file of verdicts or judgements")
    folder = find_run(name, results)
    judge = folder.summary().judge if folder.summary_path.exists() else None
    if not judge:
        raise UsageError(f"{folder.path} has no judge; name a run with --judge-model, or a file")
    return folder.judgements_path(judge)


def _report(
    path: Path, labels: Path | None, ask: Path | None, count: int, task: str | None
) -> ReliabilityReport | ScoringReport:
    """Report on the judge of one file.

    Raises:
        UsageError: `--ask` for verdicts on pairs.
        DataError: the file is damaged, or was changed after its run was scored.
    """
    from personabench.cli.judge_labels import read_score_labels, write_label_file
    from personabench.metrics.judges.reliability import reliability_report, scoring_report
    from personabench.metrics.judges.verdict import Verdict
    from personabench.results.locate import load_tasks
    from personabench.results.run_folder import RunFolder
    from personabench.run.verdict_file import read_labels, read_verdicts_or_judgements

    folder = RunFolder(path.absolute().parents[1])
    is_of_run = folder.summary_path.exists()
    if is_of_run and f"judgements/{path.name}" in folder.summary().files:
        folder.verify(folder.path / "judgements" / path.name)

    items = read_verdicts_or_judgements(path)
    verdicts = [item for item in items if isinstance(item, Verdict)]
    judgements = [item for item in items if not isinstance(item, Verdict)]
    if verdicts and ask is not None:
        raise UsageError(
            f"--ask: {path} compares two answers; `personabench judge --export` writes its items"
        )
    if verdicts:
        return reliability_report(verdicts, read_labels(labels) if labels else {})

    summary = folder.summary() if is_of_run else None
    # The summary knows the rubric of its own judge, not those of earlier ones.
    rubric = None
    if summary and summary.judge and path.name == folder.judgements_path(summary.judge).name:
        rubric = summary.provenance.get("rubric")
    if ask is not None:
        # A run folder is five levels below its results folder.
        load_tasks(task, [folder.spec()], folder.path.parents[4])
        written = write_label_file(ask, path, judgements, count, rubric)
        scale = " from {} to {}".format(*rubric["scale"]) if rubric else ""
        echo(
            f"{written} answers to label: {ask}; replace each null by your score{scale}, and read "
            f"them with --labels {ask}",
            err=True,
        )
    run = summary.fingerprint if summary else ""
    label_scores = read_score_labels(labels, run, rubric) if labels else {}
    return scoring_report(judgements, label_scores)


def _steer(
    arguments: RoleArguments,
    timeout: float | None,
    protocol: Protocol | None,
    results: Path,
    cache: CachePolicy,
) -> list[SteeringReport]:
    from personabench.metrics.judges.steering import PROTOCOLS
    from personabench.models.backends import credentials
    from personabench.models.backends.base import BackendOptions
    from personabench.run.interrupts import run_command
    from personabench.run.steering import steer_judge

    options = arguments.read_for_role("judge", timeout or BackendOptions.timeout)
    backend = arguments.backend or "local"
    _, roles = credentials.assign_secrets("", BackendOptions(), {"judge": (backend, options)})
    protocols = [name for name in PROTOCOLS if protocol is None or name == protocol.value]
    return run_command(
        steer_judge(*roles["judge"], protocols, results, cache.value),
        farewell="interrupted; finished calls are kept",
    )
