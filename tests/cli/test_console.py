"""Nothing that a model, a data set or a name holds can act on the terminal that shows it."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from conftest import Command
from rich.progress import Progress
from rich.table import Table
from synthetic_scores import draw_scores, write_run

from personabench import cli
from personabench.cli.console import emit, screen
from personabench.errors import DataError, visible
from personabench.leaderboard import as_markdown, boards
from personabench.models.backends.scripted import Scripted
from personabench.results.index import read_runs
from personabench.types import Request, Response, Usage

# A cleared screen, a window title, a link, C1 forms of both, a line drawn over, reversed text.
HOSTILE = (
    "\x1b[2J \x1b]0;title\x07 \x1b]8;;http://x\x07 \x9b31m \x9d0;t\x9c a\rb \x08 \u202egpj \x7f"
)
ACTIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
RUN = ("run", "-b", "scripted", "-t", "lamp4", "-m", "summary", "-n", "2")


def test_control_characters_become_escapes() -> None:
    assert visible("a\tb\nä日\x1b[1m\x9b\u202e") == "a\tb\nä日\\x1b[1m\\x9b\\u202e"
    assert not ACTIVE.search(visible(HOSTILE)) and "\\x1b]0;title\\x07" in visible(HOSTILE)


def test_what_a_model_wrote_is_shown_and_does_not_act(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def complete(self: Scripted, request: Request, group: str) -> Response:
        text = f"<think>why {HOSTILE}</think>so {HOSTILE}"
        return Response(text, usage=Usage(90, 9))

    monkeypatch.setattr(Scripted, "complete", complete)
    assert personabench(*RUN).code == 0
    (first, *_) = Path().glob("results/runs/*/*/*/*/predictions.jsonl")
    sample = json.loads(first.read_text().splitlines()[0])["sample_id"]
    commands = [
        ("show", "last", sample),
        ("show", "last"),
        ("show", "last", sample, "--json"),
        ("leaderboard",),
        ("cache", "stats"),
        ("list", "runs"),
    ]
    for command in commands:
        ended = personabench(*command)
        assert ended.code == 0
        assert not ACTIVE.search(ended.out + ended.err), command
    shown = personabench("show", "last", sample).out
    assert shown.count("\\x1b[2J") >= 3 and "a\\rb" in shown
    (call, *_) = personabench("show", "last", sample, "--json").json["calls"]
    assert call["reply"] == f"so {HOSTILE}"


def test_messages_about_odd_names_do_not_act(personabench: Command, tmp_path: Path) -> None:
    for command in (
        ("run", "-t", f"x{HOSTILE}", "-m", "none"),
        ("show", HOSTILE),
        ("check", "task", f"./{HOSTILE.replace('/', '')}.py"),
        ("run", "-t", "lamp4", "-m", "none", "--data", HOSTILE, "-b", "scripted"),
        ("run", "-t", "lamp4", "-m", "none", "--set", f"{HOSTILE}=1", "-b", "scripted"),
    ):
        ended = personabench(*command)
        assert ended.code != 0 and not ACTIVE.search(ended.out + ended.err), command


def test_tables_and_json_show_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = screen()
    table = Table()
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE, markup=False)
    emit({HOSTILE: HOSTILE})
    out = capsys.readouterr().out
    assert not ACTIVE.search(out)
    assert json.loads(out[out.index("{") :]) == {HOSTILE: HOSTILE}


def test_a_terminal_still_gets_colours_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = screen(err=True)
    with Progress(console=console, auto_refresh=False) as bar:
        bar.add_task("answers", total=2)
        bar.refresh()
        bar.refresh()
    written = sys.stderr.getvalue()
    assert "\x1b[" in written and "\\x1b" not in written


def test_every_print_of_the_command_line_is_safe() -> None:
    folder = Path(cli.__file__).parent
    for path in folder.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path.name != "console.py":
            source = source.replace("Console(file=file", "")
            assert "typer.echo" not in source and "Console(" not in source, path.name


def test_markdown_renders_no_html_or_links_of_names(tmp_path: Path) -> None:
    name = "<img src=x> [a](http://x) a|b &lt; <b>"
    write_run(tmp_path, "none", draw_scores())
    run = write_run(tmp_path, "rag", draw_scores(), told={"changed": {"k": name}})
    assert run.summary.changed == {"k": name}
    text = as_markdown(boards(read_runs(tmp_path)))
    assert not re.search(r"<(?!/?sup>)[A-Za-z/!]", text)
    assert "&lt;img src=x> [a\\](http://x) a\\|b &amp;lt;" in text


def test_errors_show_control_characters(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DataError(HOSTILE)

    monkeypatch.setattr("personabench.results.index.read_runs", fail)
    monkeypatch.setattr("personabench.results.index.read_all", fail)
    ended = personabench("list", "runs")
    assert ended.code == 2 and not ACTIVE.search(ended.err) and "\\x1b[2J" in ended.err
