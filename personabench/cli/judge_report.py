"""`personabench judge-report` measures a judge, from its verdicts or with hostile answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import emit, screen
from personabench.cli.judge import Judge, Labels, Protocol
from personabench.cli.judge_tables import report_lines, steering_lines
from personabench.cli.model_options import RoleArguments
from personabench.cli.option_groups import grouped
from personabench.cli.options import RESULTS, CachePolicy, Json, Results, Timeout
from personabench.cli.options import Cache as CacheOption
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.metrics.judges.reliability import ReliabilityReport, ScoringReport
    from personabench.metrics.judges.steering import SteeringReport
    from personabench.metrics.judges.verdict import Pick


@grouped
def judge_report(
    arguments: Judge,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Verdicts of `personabench judge`, or judgements of a run.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    labels: Labels = None,
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
    """Report on a judge from its verdicts.

    For verdicts on pairs: biases, noise, accuracy against human labels, calibration and cost. For
    judgements of single answers: unjudged answers, repeated calls and cost. With --steering, the
    judge assesses answers that try to decide their own verdict.
    """
    import msgspec

    from personabench.run.verdict_file import read_labels

    if not files and not steering:
        raise UsageError("name a file of verdicts or judgements, or give --steering with a judge")
    human_labels = read_labels(labels) if labels else {}
    reports = {str(path): _report(path, human_labels) for path in files or []}
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


def _report(path: Path, labels: Mapping[str, Pick]) -> ReliabilityReport | ScoringReport:
    """Report on the judge of one file.

    Raises:
        DataError: the file is damaged, or was changed after its run was scored.
    """
    from personabench.metrics.judges.reliability import reliability_report, scoring_report
    from personabench.metrics.judges.verdict import Verdict
    from personabench.results.run_folder import RunFolder
    from personabench.run.verdict_file import read_verdicts_or_judgements

    folder = RunFolder(path.absolute().parents[1])
    if folder.summary_path.exists() and f"judgements/{path.name}" in folder.summary().files:
        folder.verify(folder.path / "judgements" / path.name)

    items = read_verdicts_or_judgements(path)
    verdicts = [item for item in items if isinstance(item, Verdict)]
    judgements = [item for item in items if not isinstance(item, Verdict)]
    return reliability_report(verdicts, labels) if verdicts else scoring_report(judgements)


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
