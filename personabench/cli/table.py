"""`personabench table`: a table for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.leaderboard import open_mask
from personabench.cli.options import RESULTS, MaskFile, Results, WithReference
from personabench.cli.parsing import split_names

if TYPE_CHECKING:
    from personabench.leaderboard import Board


class TableFormat(StrEnum):
    """Format of a table for a paper."""

    latex = "latex"
    md = "md"
    csv = "csv"


class FitOption(StrEnum):
    """The space that a LaTeX table or a figure has to fit into."""

    column = "column"
    page = "page"


def table(
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK,..",
            help="Tasks, a column each: a name or file.py[:Class]. One task has columns of its own "
            "(default: all tasks).",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", "-m", metavar="ROW,..", help="Rows, in this order."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="METRIC,..", help="Metrics (default: the primary ones)."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="COLUMN,..",
            help="Further columns of one task, such as gain,gain_p,shuffled_gain,users.",
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            "--rename",
            metavar="NAME=TEXT",
            help="Names of the table: methods, tasks, metrics, columns, models. Repeatable.",
        ),
    ] = None,
    digits: Annotated[
        int | None,
        typer.Option(
            "--digits",
            min=0,
            max=6,
            metavar="N",
            help="Decimal places (default: as the intervals justify).",
        ),
    ] = None,
    fit: Annotated[
        FitOption,
        typer.Option("--fit", metavar="SPACE", help="For latex: column (of two) or page."),
    ] = FitOption.column,
    width: Annotated[
        float | None,
        typer.Option(
            "--width",
            min=60.0,
            metavar="POINTS",
            help="For latex: width of that space (default: 219 or 345, the narrowest usual ones).",
        ),
    ] = None,
    label: Annotated[
        str, typer.Option("--label", metavar="LABEL", help="For latex: label for references.")
    ] = "",
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="ROW", help="Row that gains are measured against."),
    ] = None,
    mask: MaskFile = None,
    with_reference: WithReference = False,
    format: Annotated[
        TableFormat,
        typer.Option("--format", "-f", metavar="FORMAT", help="latex, md or csv."),
    ] = TableFormat.latex,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write.", dir_okay=False),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write a table for a paper, in LaTeX, Markdown or CSV.

    The protocol stands in a footnote. A LaTeX table is made to fit its column; it needs the
    packages booktabs and array.
    """
    from personabench.api import registry
    from personabench.errors import UsageError
    from personabench.leaderboard import BASELINE, BoardOptions, boards
    from personabench.leaderboard import paper_formats as formats
    from personabench.leaderboard.paper_table import PaperOptions, make_table
    from personabench.results.index import read_chosen, suggest_runs
    from personabench.results.locate import load_named_task, load_tasks

    runs = read_chosen(results, with_reference=with_reference)
    if not runs:
        raise UsageError(f"no runs under {results}/runs; {suggest_runs(results)}")
    specs = [run.spec for run in runs if run.spec]
    load_tasks(None, specs, results)
    tasks = [
        load_named_task(name, specs) if registry.is_file(name) else name
        for name in split_names(task or "")
    ]
    audited = open_mask(mask, [run for run in runs if not tasks or run.summary.task in tasks])
    options = BoardOptions(
        baseline=baseline or BASELINE, thorough=True, mask=audited, results=results
    )
    chosen = _choose_boards(boards(runs, options=options), tasks)
    further = split_names(columns or "")
    if audited and len(chosen) == 1 and "audited" not in further:
        further = ["audited", *further]
    content = make_table(
        chosen,
        PaperOptions(
            methods=split_names(methods or ""),
            metrics=split_names(metrics or ""),
            columns=further,
            rename=_read_names(rename or []),
            digits=digits,
            label=label,
        ),
    )
    if format is TableFormat.latex:
        text = formats.as_latex(content, fit.value, width)
    elif format is TableFormat.md:
        text = formats.as_markdown(content)
    else:
        text = formats.as_csv(content)

    if output is None:
        echo(text)
        return
    try:
        output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}") from error
    echo(f"wrote {output}", err=True)


def _choose_boards(ranked: Sequence[Board], tasks: Sequence[str]) -> list[Board]:
    """The boards with scores of these tasks, in their order, or all.

    Raises:
        UsageError: a task has none.
    """
    from personabench.errors import UsageError

    scored = [board for board in ranked if any(row.scores for row in board.rows)]
    names = list(dict.fromkeys(board.rows[0].task for board in scored))
    for name in tasks:
        if name not in names:
            raise UsageError(f"--task {name}: no scored runs; there are runs of {', '.join(names)}")
    chosen = tasks or names
    return [board for name in chosen for board in scored if board.rows[0].task == name]


def _read_names(texts: Sequence[str]) -> dict[str, str]:
    from personabench.errors import UsageError

    names = {}
    for text in texts:
        name, equals, heading = text.rpartition("=")
        if not (name and equals and heading):
            raise UsageError(f"--rename {text}: write NAME=TEXT, such as rag=RAG")
        names[name] = heading
    return names
