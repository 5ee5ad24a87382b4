"""Take the pictures of README.md: the leaderboard in a terminal, and the report in a browser.

    python docs/pictures/take.py --results results

They show the runs of `make demo`, whose results folder is the default.  The browser is Chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).parent
COLUMNS = 100
PAGE = (1280, 860)
LARGEST = 150_000
"""Bytes of a picture that a README may load."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def run(*words: str) -> str:
    """A command's standard output, with the colours of a terminal."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    command = [str(Path(sys.executable).with_name("personabench")), *words]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


def draw_terminal(output: str, command: str, target: Path) -> None:
    """Draw a command and its output as a terminal window."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), command))
    console.print(Text.from_ansi(output.strip("\n")))
    target.write_text(console.export_svg(title="personabench"), encoding="utf-8")


def photograph(page: Path, target: Path) -> None:
    """Photograph the first screen of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser; install one of: {', '.join(BROWSERS)}")
    width, height = PAGE
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "--virtual-time-budget=5000",
            f"--screenshot={target}",
            page.resolve().as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    """Take both pictures; exit with 1 if one is too large."""
    parser = argparse.ArgumentParser(description="Take the pictures of README.md.")
    parser.add_argument("--results", default="results", help="results folder (default: results)")
    results = parser.parse_args().results

    board = run("leaderboard", "--task", "lamp4", "--results", results)
    terminal, report = FOLDER / "terminal.svg", FOLDER / "report.png"
    draw_terminal(board, "personabench leaderboard --task lamp4", terminal)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        run("report", "--results", results, "--output", str(page))
        photograph(page, report)
    for picture in (terminal, report):
        size = picture.stat().st_size
        print(f"{picture}: {size:,} bytes")
        if size > LARGEST:
            sys.exit(f"{picture} is larger than {LARGEST:,} bytes")


if __name__ == "__main__":
    main()
