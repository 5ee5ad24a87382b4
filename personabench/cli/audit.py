"""`personabench audit`: defects of a data set by which a score would say less than it seems to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo, emit
from personabench.cli.options import Assignments, Data, Json, Split

if TYPE_CHECKING:
    from personabench.run.audit import Audit, Defect


def audit(
    name: Annotated[str, typer.Argument(help="Task name or file.py[:Class].", metavar="TASK")],
    split: Split = None,
    data: Data = None,
    assignments: Assignments = None,
    json: Json = False,
) -> None:
    """Audit a task's data for leaks and duplicates.

    Golds in histories and in the records of other users, records newer than their question,
    repeated questions and records, users who share a history, and options that rules guess.
    """
    from personabench.api.registry import load_class
    from personabench.api.users import open_split
    from personabench.cli.check import create_task
    from personabench.run.audit import audit as audit_data
    from personabench.run.audit import to_rows
    from personabench.run.interrupts import ending_command
    from personabench.run.watchdog import watch_opening

    task = create_task(load_class("task", name), assignments or [])
    with ending_command("interrupted"), watch_opening():
        result = audit_data(task, open_split(task, split or task.default_split, data))
    if json:
        emit({"task": task.name, **to_rows(result)})
    else:
        _print_audit(result)


def _print_audit(result: Audit) -> None:
    echo(f"data   {result.source}")
    amounts = f"{result.samples:,} questions of {result.users:,} users, {result.records:,} records"
    echo(f"read   {amounts} in {result.seconds:.1f} s")
    for defect in result.defects:
        _print_defect(defect)
    for leak in result.leaks:
        echo(f"FOUND  {leak}")
    for count in result.counts:
        echo(f"–      {count}")
    if not result.dated:
        echo("–      no question has a time: records newer than their question cannot be seen")


def _print_defect(defect: Defect) -> None:
    mark = "FOUND" if defect.count else "ok"
    echo(f"{mark:5}  {defect.count:,} of {defect.of:,} {defect.unit} {defect.what}")
    for example in defect.examples:
        facts = ", ".join(f"{name.replace('_', ' ')} {fact}" for name, fact in example.items())
        echo(f"         {facts}")
    if defect.count > len(defect.examples) > 0:
        echo(f"         and {defect.count - len(defect.examples):,} more")
