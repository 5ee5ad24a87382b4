"""Tables for papers: what they show, and that LaTeX breaks no column."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from synthetic_scores import draw_scores, write_run

from personabench.errors import UsageError
from personabench.leaderboard import BoardOptions, boards
from personabench.leaderboard.paper_formats import WIDTHS, Fit, as_csv, as_latex, as_markdown
from personabench.leaderboard.paper_table import PaperOptions, PaperTable, make_table
from personabench.leaderboard.text_width import text_width
from personabench.results.index import read_runs

LONG = "contrast_of_style_with_a_neighbour"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, five methods with long names and settings, and three tasks."""
    folder = tmp_path_factory.mktemp("results")
    for model in ("Qwen2.5-7B-Instruct", "Llama-3.1-8B-Instruct"):
        for number, task in enumerate(("lamp4", "lamp5", "reviews")):
            for place, method in enumerate(("none", "rag", "dpl", LONG)):
                params = {"summary_max_tokens": 128, "retriever": "dense"} if method == LONG else {}
                write_run(
                    folder,
                    method,
                    {
                        "rouge-1": draw_scores(0.1 * place, seed=number),
                        "rouge-L": draw_scores(0.1 * place, seed=number),
                    },
                    task=task,
                    model={"name": model},
                    params=params,
                    told={"changed": params},
                )
    return folder


def make(results: Path, task: str | None = None, **options: Any) -> PaperTable:
    tables = boards(read_runs(results), task, BoardOptions(thorough=True))
    return make_table(tables, PaperOptions(**options))


def test_methods_by_tasks_with_names_of_the_paper(results: Path) -> None:
    table = make(
        results,
        methods=["none", "dpl"],
        rename={"dpl": "DPL", "lamp4": "LaMP-4", "rouge-1": "R-1", "Qwen2.5-7B-Instruct": "Qwen"},
    )
    headings = [(column.task, column.heading) for column in table.columns]
    assert headings == [("LaMP-4", "R-1 ↑"), ("lamp5", "R-1 ↑"), ("reviews", "R-1 ↑")]
    rows = [(row.model, row.label) for row in table.rows]
    assert rows == [
        ("Llama-3.1-8B-Instruct", "none"),
        ("Llama-3.1-8B-Instruct", "DPL"),
        ("Qwen", "none"),
        ("Qwen", "DPL"),
    ]
    footnote = " ".join(table.footnote)
    assert "60 samples of 20 users" in footnote
    assert "half of a 95 % interval over users" in footnote
    assert "Seed 0" in footnote


def test_only_a_leader_that_beats_something_is_bold(tmp_path: Path) -> None:
    for method in ("none", "rag"):
        write_run(tmp_path, method, draw_scores())
    assert not any(cell.bold for row in make(tmp_path).rows for cell in row.cells)
    write_run(tmp_path, "dpl", draw_scores(0.5))
    bold = {row.label: row.cells[0].bold for row in make(tmp_path).rows}
    assert bold == {"none": False, "rag": False, "dpl": True}


def test_a_new_name_reaches_controls_and_rows_left_out_are_named(tmp_path: Path) -> None:
    write_run(tmp_path, "none", draw_scores())
    write_run(tmp_path, "mine", draw_scores(0.6, seed=1))
    write_run(tmp_path, "mine", draw_scores(0.1, seed=2), history="shuffled")
    write_run(tmp_path, "copy_nearest", draw_scores(0.2, seed=3))
    table = make(tmp_path, methods=["none", "mine"], rename={"mine": "Ours"})
    assert [row.label for row in table.rows] == ["none", "Ours", "Ours (history=shuffled)"]
    footnote = " ".join(table.footnote)
    assert "p ≤ 0.05; among all rows, also those left out here: copy_nearest)" in footnote
    everything = " ".join(make(tmp_path).footnote)
    assert "Bold" in everything and "left out" not in everything
    exact = {"mine": "Ours", "mine (history=shuffled)": "Control"}
    labels = [row.label for row in make(tmp_path, rename=exact).rows]
    assert {"Ours", "Control"} < set(labels)


def test_one_task_has_chosen_columns_and_digits(results: Path) -> None:
    table = make(
        results, "lamp4", metrics=["rouge-L"], columns=["gain", "gain_p", "users"], digits=2
    )
    assert [column.heading for column in table.columns] == [
        "rouge-L ↑",
        "gain",
        "gain_p",
        "users",
    ]
    cells = [cell.text for cell in next(row for row in table.rows if row.label == "dpl").cells]
    assert re.fullmatch(r"0\.\d\d ± \.\d\d", cells[0])
    assert re.fullmatch(r"\+0\.20", cells[1])
    assert cells[2:] == ["< .001", "20"]
    csv = as_csv(table).splitlines()
    assert csv[0].startswith('"method","model","rouge-L","rouge-L/low","rouge-L/high","gain"')
    markdown = as_markdown(table)
    assert markdown.count("\n| ") == 10, "heading, rule and eight rows"
    assert "| dpl · Qwen2.5-7B-Instruct |" in markdown


def test_digits_follow_the_intervals(tmp_path: Path) -> None:
    write_run(tmp_path, "none", draw_scores(noise=0.3))
    (row,) = make(tmp_path).rows
    assert re.fullmatch(r"0\.\d\d\d? ± \.\d\d\d?", row.cells[0].text)


def test_unknown_names_are_refused(results: Path) -> None:
    with pytest.raises(UsageError, match="--methods rga: no such row; there are"):
        make(results, methods=["rga"])
    with pytest.raises(UsageError, match="--metrics bleu: no row has it"):
        make(results, metrics=["bleu"])
    with pytest.raises(UsageError, match="with a single task"):
        make(results, columns=["gain"])


VARIANTS: list[dict[str, Any]] = [
    {},
    {"metrics": ["rouge-1", "rouge-L"]},
    {"methods": ["none", "rag"]},
    {"task": "lamp4", "columns": ["gain", "gain_p", "shuffled_gain", "users", "n", "calls"]},
]


@pytest.mark.parametrize("fit", ["column", "page"])
@pytest.mark.parametrize("options", VARIANTS)
def test_no_line_is_wider_than_its_column(results: Path, fit: Fit, options: dict[str, Any]) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="its fonts measure the lines")
    tex = as_latex(make(results, **options), fit)
    tabulars = re.findall(r"\\begin\{tabular\}\{(.*?)\}\n(.*?)\\end\{tabular\}", tex, re.S)
    size = float(re.search(r"\\fontsize\{([\d.]+)\}", tex)[1])  # type: ignore[index]
    gap = 2 * float(re.search(r"tabcolsep\}\{([\d.]+)pt", tex)[1])  # type: ignore[index]
    measure = measurer(Path(matplotlib.get_data_path()), size)
    for alignment, body in tabulars:
        lines = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r"\\")]
        rows = [[plain(cell) for cell in line.split(" & ")] for line in lines]
        rows = [[cell.strip(" &") for cell in row] for row in rows]
        widths = [max(measure(cell) for cell in column) for column in zip(*rows, strict=False)]
        broken = re.search(r"p\{([\d.]+)pt\}", alignment)
        if broken:
            widths[0] = float(broken[1])
        assert sum(widths) + gap * (len(widths) - 1) <= WIDTHS[fit]


def measurer(fonts: Path, size: float) -> Any:
    """A function that measures a text in Computer Modern, as LaTeX sets it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(fname=fonts / "fonts/ttf/cmr10.ttf", size=size)

    def measure(text: str) -> float:
        # Letters that the font lacks are as wide as a plus.
        shown = re.sub(r"[±−↑↓≤Δ<>]", "+", text)
        return float(TextPath((0, 0), shown + ".", prop=font).get_extents().x1) if shown else 0.0

    return measure


def plain(cell: str) -> str:
    """The text of a cell as it is printed."""
    for tex, text in (
        (r"$\pm$", "±"),
        (r"$\uparrow$", "+"),
        (r"$\downarrow$", "+"),
        (r"\textless{}", "<"),
        (r"\allowbreak{}", ""),
        (r"\_", "_"),
        (r"\addlinespace", ""),
    ):
        cell = cell.replace(tex, text)
    return re.sub(r"\\(?:textbf|emph)\{(.*)\}", r"\1", cell).replace("_", "-")


def test_widths_are_never_too_small() -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="its fonts measure the letters")
    measure = measurer(Path(matplotlib.get_data_path()), 100.0)
    stop = measure("") or text_width(".", 100.0)
    for code in range(33, 127):
        letter = chr(code)
        if letter in '$\\^_`{}~"|<>':
            continue
        advance = measure(letter * 10) - stop
        assert advance <= text_width(letter * 10, 100.0) + 1, letter


def test_what_cannot_fit_is_said(results: Path) -> None:
    with pytest.raises(UsageError, match="does not fit into 80 pt; shorten it with --rename"):
        as_latex(make(results), "column", 80.0)


def has_package(name: str) -> bool:
    """Whether the TeX of this machine, which may be a part of it only, has a package."""
    finder = shutil.which("kpsewhich")
    return finder is not None and not subprocess.run([finder, name], capture_output=True).returncode


COMPILED = [
    VARIANTS[0],
    *(pytest.param(options, marks=pytest.mark.variants) for options in VARIANTS[1:]),
]


@pytest.mark.parametrize("fit", ["column", "page"])
@pytest.mark.parametrize("options", COMPILED)
def test_latex_compiles_without_an_overfull_box(
    results: Path, tmp_path: Path, fit: Fit, options: dict[str, Any]
) -> None:
    engine = next(filter(None, map(shutil.which, ("pdflatex", "xelatex", "lualatex"))), None)
    if engine is None or not has_package("booktabs.sty"):
        pytest.skip("no TeX with booktabs on this machine")
    twocolumn = "[twocolumn]" if fit == "column" else ""
    table = as_latex(make(results, label="tab:main", **options), fit)
    document = (
        rf"\documentclass{twocolumn}{{article}}\usepackage{{booktabs,array}}"
        rf"\begin{{document}}{table}\ref{{tab:main}}\end{{document}}"
    )
    (tmp_path / "paper.tex").write_text(document)
    subprocess.run(
        [engine, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert "Overfull" not in (tmp_path / "paper.log").read_text(errors="replace")
