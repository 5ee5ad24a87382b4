"""How time and memory grow with the rows of a table, and with the records of a population.

    python benchmarks/growth.py [--rows 125 250 500 1000] [--users 25 50 100] [--records 1000]

Every command runs in a fresh process on results or data of each size.  Printed are seconds of wall
time and of CPU time, the peak of memory, and growth exponents: the slope of a figure against the
size, both as logarithms, over the sizes.  1 is proportional; start-up makes small sizes look
better, and exponents smaller.  Rows are runs of rag with different k on the example data of lamp4;
a population has generated LaMP-4 files, one question per user.  All use the scripted backend.
`--only table` or `--only population` measures one of the two.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

COMMAND = (sys.executable, "-c", "from personabench.cli.app import main; main()")
VOCABULARY = 20_000


class Cost(NamedTuple):
    """One process: seconds of wall time, seconds of CPU, peak resident MiB."""

    wall: float
    cpu: float
    peak: float


def measure(words: Sequence[str]) -> Cost:
    """Run a command of personabench in a process of its own."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    # `wait4` reports this process alone, not all children so far.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"personabench {' '.join(words)}\n{errors}")
    # Linux counts the peak in KiB.
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def print_growth(title: str, sizes: Sequence[int], costs: Sequence[Cost]) -> None:
    """Print the costs at each size, and with several sizes their growth exponents."""
    for name, unit in (("wall", "s"), ("cpu", "s"), ("peak", "MiB")):
        figures = [getattr(cost, name) for cost in costs]
        cells = "".join(f"{figure:10.1f}" for figure in figures)
        exponent = f"{fit_exponent(sizes, figures):.2f}" if len(set(sizes)) > 1 else "–"
        print(f"{title:34}{f'{name}, {unit}':>10}{cells}{exponent:>10}", flush=True)


def fit_exponent(sizes: Sequence[int], figures: Sequence[float]) -> float:
    """Fit log(figure) = a + exponent * log(size) by least squares."""
    x = [math.log(size) for size in sizes]
    y = [math.log(figure) for figure in figures]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def print_head(label: str, sizes: Sequence[int]) -> None:
    cells = "".join(f"{size:10,}" for size in sizes)
    print(f"\n{label:44}{cells}{'exponent':>10}")


def compare_tables(folder: Path, sizes: Sequence[int]) -> None:
    """Measure the commands that read a results folder, by the number of its runs."""
    largest = folder / "all"
    values = ",".join(map(str, range(1, max(sizes) + 1)))
    words = ["run", "-b", "scripted", "-m", "none,rag", "-t", "lamp4"]
    grid = ["--grid", f"rag.k={values}", "--results", str(largest)]
    print(f"the runs: {measure([*words, *grid]).wall:.0f} s")

    runs = sorted(path.parent for path in largest.glob("runs/*/rag/*/*/summary.json"))
    (baseline,) = largest.glob("runs/*/none/*/*")
    folders = []
    for size in sizes:
        results = folder / str(size)
        for run in (baseline, *runs[: size - 1]):
            shutil.copytree(run, results / run.relative_to(largest))
        folders.append(results)

    print_head("runs of one table", sizes)
    commands = {
        "list runs": ["list", "runs"],
        "leaderboard": ["leaderboard"],
        "leaderboard, again": ["leaderboard"],
        "report": ["report", "-o", str(folder / "report.html")],
    }
    for title, command in commands.items():
        costs = [measure([*command, "--results", str(results)]) for results in folders]
        print_growth(title, sizes, costs)


def compare_populations(folder: Path, users: Sequence[int], records: int) -> None:
    """Measure runs by the number of users, each with the same number of records."""
    datasets = []
    for count in users:
        data = folder / f"{count} users"
        generate(data, count, records)
        datasets.append(data)

    print_head(f"users with {records:,} records", users)
    dense = ["--set", "rag.retriever=dense"]
    commands = {
        "rag": ["-m", "rag"],
        "dpl": ["-m", "dpl"],
        "rag, dense": ["-m", "rag", *dense],
        "rag, dense, texts embedded before": ["-m", "rag", *dense, "--set", "rag.k=3"],
    }
    for title, method in commands.items():
        costs = []
        for data in datasets:
            place = ["--data", str(data), "--split", "user/dev", "--results", f"{data}-results"]
            costs.append(measure(["run", "-b", "scripted", "-t", "lamp4", *method, *place]))
        print_growth(title, users, costs)


def generate(folder: Path, users: int, records: int, seed: int = 0) -> None:
    """Write LaMP-4 files with one question per user; frequencies of words follow Zipf's law."""
    rng = random.Random(seed)
    words = []
    for _ in range(VOCABULARY):
        letters = rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))
        words.append("".join(letters))
    weights = list(accumulate(1 / (rank + 10) for rank in range(VOCABULARY)))

    def draw_text(length: int) -> str:
        return " ".join(rng.choices(words, cum_weights=weights, k=length))

    folder.mkdir(parents=True)
    golds = []
    with (folder / "dev_questions.json").open("w") as file:
        for user in range(users):
            profile = []
            for index in range(records):
                record = {"id": f"{user}-{index}", "text": draw_text(35), "title": draw_text(9)}
                profile.append({**record, "date": f"{2000 + index % 20}-01-01"})
            question = {
                "id": f"q{user}",
                "input": f"Generate a headline for the following article: {draw_text(35)}",
                "profile": profile,
                "user_id": f"u{user}",
            }
            # Written as they are generated, since a population may be large.
            file.write(("," if user else "[") + json.dumps(question))
            golds.append({"id": f"q{user}", "output": draw_text(9)})
        file.write("]")
    (folder / "dev_outputs.json").write_text(json.dumps({"task": "LaMP_4", "golds": golds}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[125, 250, 500, 1000])
    parser.add_argument("--users", type=int, nargs="+", default=[25, 50, 100])
    parser.add_argument("--records", type=int, default=1000, help="records of each user")
    parser.add_argument("--only", choices=["table", "population"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "population":
            compare_tables(folder, options.rows)
        if options.only != "table":
            compare_populations(folder, options.users, options.records)


if __name__ == "__main__":
    main()
