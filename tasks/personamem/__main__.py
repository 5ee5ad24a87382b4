"""Print the PersonaMem report of a run folder, and its difference to another run.

Usage: `python -m personabench.tasks.personamem RUN [OTHER]`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from personabench.errors import PersonabenchError, UsageError
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.tasks.personamem import PersonaMem
from personabench.tasks.personamem.analysis import (
    By,
    Difference,
    Row,
    compare_runs,
    find_questions,
    format_report,
    make_rows,
)
from personabench.tasks.personamem.data import PersonaMemData


@dataclass(frozen=True)
class _Run:
    """A run folder with its replies, opened with the run's own options."""

    spec: RunSpec
    task: PersonaMem
    dataset: PersonaMemData
    rows: list[Row]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    options = _parse_arguments(arguments)
    try:
        _print_reports(options.run, options.other, options.by)
    except PersonabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m personabench.tasks.personamem",
        description=__doc__,
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("other", type=Path, nargs="?", help="a run folder to compare with")
    parser.add_argument(
        "--by",
        choices=("context", "persona"),
        default="context",
        help="the unit that intervals resample (default: context)",
    )
    return parser.parse_args(arguments)


def _print_reports(path: Path, baseline_path: Path | None, by: By) -> None:
    run = _open_run(path)
    print(_format_run(run, by))
    if baseline_path is None:
        return

    baseline = _open_run(baseline_path)
    print(f"\n{_format_run(baseline, by)}\n")
    difference = compare_runs(
        run.rows,
        baseline.rows,
        hashes=(run.spec.data_hash, baseline.spec.data_hash),
        by=by,
    )
    print(_format_difference(difference, by))


def _open_run(path: Path) -> _Run:
    if not (path / "spec.json").is_file():
        raise UsageError(f"{path} is not a run folder: it has no spec.json")

    folder = RunFolder(path)
    spec = folder.spec()
    if spec.task != PersonaMem.name:
        raise UsageError(f"{path} is a run of {spec.task}, not of {PersonaMem.name}")

    task = PersonaMem(msgspec.convert(dict(spec.task_params), PersonaMem.Params))
    data = None if spec.sample else Path(folder.summary().data or "")
    dataset = task.open(spec.split, data)
    # Replies to other questions would be scored against the wrong golds.
    if dataset.hash != spec.data_hash:
        raise UsageError(f"{dataset.source} has changed since the run in {path}{spec.version_note}")
    folder.verify_all()

    outputs = {
        prediction.sample_id: prediction.output if prediction.error is None else None
        for prediction in folder.iter_predictions()
    }
    if not outputs:
        raise UsageError(f"{path} holds no replies yet; finish the run first")
    return _Run(spec, task, dataset, make_rows(dataset, outputs))


def _format_run(run: _Run, by: By) -> str:
    spec = run.spec
    title = (
        f"{spec.task} {spec.split}, {spec.method}, {spec.model['name']}, {dict(spec.task_params)}"
    )
    report = format_report(
        run.rows,
        run.task.params.mapping,
        by=by,
        questions=find_questions(run.dataset),
    )
    return f"{title}\n{report}"


def _format_difference(difference: Difference, by: By) -> str:
    interval = difference.interval
    bounds = f"{interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "none"
    return (
        f"difference {difference.difference:+.4f}, 95 % interval over {by}s: {bounds}; "
        f"gained {difference.gained}, lost {difference.lost}, McNemar p {difference.p:.4f} "
        "(takes questions as independent, which they are not)"
    )


if __name__ == "__main__":
    sys.exit(main())
