"""Wall time of the commands that must feel instant: `--help`, `list` and `leaderboard`.

    python benchmarks/startup.py [--runs 10]

Each runs as the installed command in a fresh process, the minimum is taken, and the limit is
0.35 s; `leaderboard` ranks 24 runs.  A bare interpreter and a bare `import typer` show how much of
it is not ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 0.35
COMMAND = [sys.executable, "-c", "from personabench.cli.app import main; main()"]
VERBS = [
    ["--help"],
    ["list", "methods"],
    ["list", "tasks"],
    ["list", "runs"],
    ["leaderboard"],
]


def measure_fastest(
    command: list[str],
    folder: str,
    runs: int,
) -> float:
    """Measure the minimum wall seconds of a command over several runs."""
    # The minimum: other work on the machine only ever adds.
    fastest = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def create_runs(folder: str) -> None:
    """Create 24 small runs for `list runs` and `leaderboard`."""
    samples = Path(__file__).parents[1] / "tasks/lamp/sample"
    tasks = ",".join(sorted(path.name for path in samples.iterdir()))
    arguments = ["run", "-b", "scripted", "-m", "none,rag,summary", "-t", tasks, "-n", "3"]
    subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def main() -> None:
    """Measure and print; exit code 1 if a command takes longer than the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    over = False
    with tempfile.TemporaryDirectory() as folder:
        create_runs(folder)
        for name, code in (("python", "pass"), ("python + typer", "import typer")):
            seconds = measure_fastest([sys.executable, "-c", code], folder, runs)
            print(f"{name:30} {seconds:.3f} s")

        for words in VERBS:
            seconds = measure_fastest([*COMMAND, *words], folder, runs)
            over |= seconds > LIMIT
            verdict = "over" if seconds > LIMIT else "within"
            command = f"personabench {' '.join(words)}"
            print(f"{command:30} {seconds:.3f} s  {verdict} the limit of {LIMIT} s")
    sys.exit(over)


if __name__ == "__main__":
    main()
