"""`python -m personabench.tasks.personamem RUN [OTHER]`: the tables of a run folder, its difference to another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from personabench.errors import PersonabenchError, UsageError
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.tasks.personamem import PersonaMem
from personabench.tasks.personamem.analysis import Row, compare, questions_of, report, rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m personabench.tasks.personamem", description=__doc__
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("other", type=Path, nargs="?", help="a run folder to compare with")
    parser.add_argument(
        "--by", choices=("context", "persona"), default="context", help="what intervals draw"
    )
    given = parser.parse_args(arguments)
    try:
        spec, table, text = _tables(given.run, given.by)
        print(text)
        if given.other:
            other, second, text = _tables(given.other, given.by)
            print(f"\n{text}\n")
            found = compare(table, second, hashes=(spec.data_hash, other.data_hash), by=given.by)
            span = (
                f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}"
                if found.interval
                else "none"
            )
            print(
                f"difference {found.difference:+.4f}, 95 % interval over {given.by}s: {span}; gained {found.gained}, "
                f"lost {found.lost}, McNemar p {found.p:.4f} (takes questions as independent, which they are not)"
            )
    except PersonabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _tables(path: Path, by: str) -> tuple[RunSpec, list[Row], str]:
    folder = RunFolder(path)
    if not (path / "spec.json").is_file():
        raise UsageError(f"{path} is not a run folder")
    spec, summary = folder.spec(), folder.summary()
    if spec.task != PersonaMem.name:
        raise UsageError(f"{path} is a run of {spec.task}, not of {PersonaMem.name}")
    task = PersonaMem(msgspec.convert(dict(spec.task_params), PersonaMem.Params))
    dataset = task.open(spec.split, None if spec.sample else Path(summary["data"]))
    if dataset.hash != spec.data_hash:
        raise UsageError(f"{dataset.source} has changed since the run in {path}")
    folder.verify_all()
    outputs = {
        line.sample_id: line.output if line.error is None else None
        for line in folder.iter_predictions()
    }
    if not outputs:
        raise UsageError(f"{path} holds no replies yet")
    head = (
        f"{spec.task} {spec.split}, {spec.method}, {spec.model['name']}, {dict(spec.task_params)}"
    )
    table = rows(dataset, outputs)
    return (
        spec,
        table,
        f"{head}\n{report(table, task.params.mapping, by=by, questions=questions_of(dataset))}",
    )  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
