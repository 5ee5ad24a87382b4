"""What the console shows while something takes its time."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from conftest import Command
from rich.console import Console

from personabench.cli import display
from personabench.models.backends.scripted import Scripted
from personabench.models.client import Client
from personabench.models.traffic import PhaseTraffic
from personabench.run.progress import CommandProgress, Progress, RunProgress


def shown(*, terminal: bool) -> str:
    file = io.StringIO()
    with display.downloading(Console(file=file, force_terminal=terminal, width=120)) as progress:
        for done in (1_000_000, 2_000_000):
            progress("http://somewhere/a.json", done, 2_000_000)
        progress("http://somewhere/b.json", 300_000, None)
    return file.getvalue()


def test_a_download_says_a_line_per_file_where_there_is_no_terminal() -> None:
    assert shown(terminal=False).splitlines() == ["a.json: 2.0 MB of 2.0 MB", "b.json: 0.3 MB"]


def test_a_slow_download_says_so_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PLAIN_EVERY", 0.0)
    lines = shown(terminal=False).splitlines()
    assert lines == ["a.json: 1.0 MB of 2.0 MB", "a.json: 2.0 MB of 2.0 MB", "b.json: 0.3 MB"]


def test_a_download_has_a_bar_per_file_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "a.json" in text and "b.json" in text and "2.0/2.0 MB" in text


def test_the_download_verb_passes_the_display_on(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from toy_methods import Toy\n\n\n"
        "class Mine(Toy):\n"
        '    name = "fetched"\n\n'
        "    def download(self, split, target, *, progress):\n"
        '        progress("http://somewhere/dev_questions.json", 5_000_000, 5_000_000)\n'
    )
    ended = personabench("download", tmp_path / "mine.py", "--target", tmp_path / "data")
    assert ended.code == 0 and "ready: personabench run" in ended.out
    assert "dev_questions.json: 5.0 MB of 5.0 MB" in ended.err


def test_judging_shows_its_own_progress(personabench: Command) -> None:
    ended = personabench("run", "-m", "none", "-t", "prefdisco", "-b", "scripted", "--limit", 1)
    assert ended.code == 0
    assert "none on prefdisco: 4/4" in ended.err and "judging none on prefdisco: 4/4" in ended.err


def test_the_first_error_of_a_server_is_shown_at_once() -> None:
    file = io.StringIO()
    client = Client(Scripted(), None)
    with display.watching(Console(file=file, width=120))("none on lamp4", Progress(), client):
        client.traffic.retries = 1
        client.traffic.trouble = "http://s/v1 answered 500: out of memory"
        deadline = time.monotonic() + 5
        while "out of memory" not in file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "1 retries, the last error: http://s/v1 answered 500: out of memory" in file.getvalue()
    assert time.monotonic() < deadline


def watched(*, terminal: bool, width: int = 80) -> str:
    """The display of the second of two runs, after 12 of its 40 samples."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, highlight=False)
    client = Client(Scripted(), None)
    client.traffic.by_phase["predict"] = PhaseTraffic(12, 24.0, 384)
    counts = Progress(total=40, done=12, score=lambda: "rouge-1 0.4512 of 12 samples")
    ended = RunProgress("none on lamp4", 40, 0, has_ended=True)
    run = RunProgress("rag on lamp4", 40, 40, None, counts, client.traffic, elapsed=24.0)
    counts.command = CommandProgress([[ended, run]])
    with display.watching(console)("rag on lamp4", counts, client):
        time.sleep(0.3)
    return file.getvalue()


def test_the_display_has_one_total_a_time_for_all_runs_and_the_score_so_far() -> None:
    shown = watched(terminal=True)
    for part in ("rag on lamp4: 12/40, run 2 of 2", "52/80", "24 s, ETA 56 s", "rouge-1 0.4512"):
        assert part in shown, part
    last = shown.splitlines()[-1]
    assert last.endswith("rag on lamp4: 12/40, 0 s, rouge-1 0.4512 of 12 samples")
    (line,) = watched(terminal=False).splitlines()
    assert line.startswith("rag on lamp4: 12/40 (52/80 of all runs), ETA 56 s; rouge-1 0.4512 of")


@pytest.mark.parametrize("width", [60, 200])
def test_a_display_never_takes_more_than_the_width(width: int) -> None:
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", watched(terminal=True, width=width))
    assert max(map(len, lines.split("\n"))) <= width


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40.4, "40 s"), (720, "12 min"), (12_000, "3 h 20 min"), (1e6, "11 days 13 h")],
)
def test_durations_in_two_units_at_most(seconds: float, text: str) -> None:
    assert display.format_duration(seconds) == text
