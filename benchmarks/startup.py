"""Wall time of the verbs that must feel instant: `--help`, `list` and `leaderboard`, against the budget of 0.35 s.

    python benchmarks/startup.py [--runs 10]

Each is run as the installed command in a fresh process and the minimum is taken; `leaderboard` ranks 24 runs.  A bare
interpreter and a bare `import typer` show how much of it is not ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET = 0.35
COMMAND = [sys.executable, "-c", "from personabench.cli.app import main; main()"]
VERBS = [["--help"], ["list", "methods"], ["list", "tasks"], ["list", "runs"], ["leaderboard"]]


def fastest(command: list[str], folder: str, runs: int) -> float:
    """The minimum wall seconds of a command over several runs."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> None:
    """Measure and print; exit code 1 when a verb is over budget."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    over = False
    with tempfile.TemporaryDirectory() as folder:
        tasks = ",".join(
            path.name
            for path in sorted((Path(__file__).parents[1] / "tasks/lamp/sample").iterdir())
        )
        made = ["run", "-b", "scripted", "-m", "none,rag,summary", "-t", tasks, "-n", "3"]
        subprocess.run([*COMMAND, *made], cwd=folder, check=True, capture_output=True)
        for name, code in (("python", "pass"), ("python + typer", "import typer")):
            print(f"{name:30} {fastest([sys.executable, '-c', code], folder, runs):.3f} s")
        for words in VERBS:
            seconds = fastest([*COMMAND, *words], folder, runs)
            over |= seconds > BUDGET
            verdict = "over" if seconds > BUDGET else "within"
            print(
                f"{'personabench ' + ' '.join(words):30} {seconds:.3f} s  {verdict} the budget of {BUDGET} s"
            )
    sys.exit(over)


if __name__ == "__main__":
    main()
