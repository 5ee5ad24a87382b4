"""Scoring a prediction file: our scorer beside the loop that LaMP's evaluation runs, on the same two files.

    python benchmarks/scoring.py --samples 2000

The loop reads both JSON files, checks the ids and calls ROUGE as `evaluate.load("rouge")` does it (`rouge_score` with
rouge1, rouge2, rougeL and rougeLsum, a mean over pairs) for LaMP-4 to 7, scikit-learn for LaMP-1 to 3; `--types ours`
gives it only the two ROUGE types that LaMP reports.  Ours is `personabench score`: the official reading, all metrics of
the task, ids compared.  Both must agree.  In one process and turn by turn, the least of several rounds; imports are not
counted.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from personabench.api.registry import load
from personabench.api.task import Task
from personabench.run.score_file import score_files

TASKS = {"lamp4": "LaMP_4", "lamp2m": "LaMP_2", "lamp3": "LaMP_3"}
ALL_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
OUR_TYPES = ["rouge1", "rougeL"]


def generate(folder: Path, task: Task, samples: int) -> tuple[Path, Path]:
    """Write a reference file and a prediction file that shares some of its words, or labels."""
    rng = random.Random(0)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10)))
        for _ in range(3000)
    ]

    def answer() -> str:
        if task.labels:
            return rng.choice(task.labels)
        return " ".join(rng.choices(words, k=rng.randint(6, 14)))

    golds = [{"id": str(number), "output": answer()} for number in range(samples)]
    guesses = [gold | {"output": answer()} if rng.random() < 0.7 else gold for gold in golds]
    paths = folder / f"{task.name}_golds.json", folder / f"{task.name}_guesses.json"
    for path, rows in zip(paths, (golds, guesses), strict=True):
        path.write_text(json.dumps({"task": TASKS[task.name], "golds": rows}), encoding="utf-8")
    return paths[1], paths[0]


def ours(task: Task, predictions: Path, references: Path) -> dict[str, float]:
    """`personabench score`."""
    return score_files(task, predictions, references, "official", False).metrics


def loop(task: Task, predictions: Path, references: Path, types: list[str]) -> dict[str, float]:
    """The official way."""
    golds = {gold["id"]: gold["output"] for gold in json.loads(references.read_text())["golds"]}
    guesses = {
        guess["id"]: guess["output"] for guess in json.loads(predictions.read_text())["golds"]
    }
    assert golds.keys() == guesses.keys()
    pairs = [(guesses[each].strip(), golds[each].strip()) for each in golds]
    if task.name == "lamp4":
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(types, use_stemmer=False)
        scores = [scorer.score(gold, guess) for guess, gold in pairs]
        means = {kind: float(np.mean([score[kind].fmeasure for score in scores])) for kind in types}
        return {"rouge-1": means["rouge1"], "rouge-L": means["rougeL"]}
    if task.name == "lamp3":
        from sklearn.metrics import mean_absolute_error, root_mean_squared_error

        values = [(float(guess), float(gold)) for guess, gold in pairs]
        guessed, true = zip(*values, strict=True)
        return {
            "MAE": mean_absolute_error(true, guessed),
            "RMSE": root_mean_squared_error(true, guessed),
        }
    from sklearn.metrics import accuracy_score, f1_score

    guessed_at, true_at = (
        [task.labels.index(each) for each in side] for side in zip(*pairs, strict=True)
    )
    kinds = list(range(len(task.labels)))
    return {
        "accuracy": accuracy_score(true_at, guessed_at),
        "f1": f1_score(true_at, guessed_at, labels=kinds, average="macro"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--types", choices=("all", "ours"), default="all", help="ROUGE types that the loop computes"
    )
    given = parser.parse_args()
    types = ALL_TYPES if given.types == "all" else OUR_TYPES
    apart = 0.0
    print(
        f"{given.samples} samples{'':10}{'the loop s':>12}{'ours s':>10}{'ratio':>8}{'largest difference':>22}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in TASKS:
            task = load("task", name)()
            predictions, references = generate(Path(folder), task, given.samples)
            spent: tuple[list[float], list[float]] = ([], [])
            for round_ in range(given.rounds + 1):
                started = time.perf_counter()
                theirs = loop(task, predictions, references, types)
                middle = time.perf_counter()
                mine = ours(task, predictions, references)
                if round_:
                    spent[0].append(middle - started)
                    spent[1].append(time.perf_counter() - middle)
            differs = max(abs(mine[metric] - value) for metric, value in theirs.items())
            apart = max(apart, differs)
            other, own = min(spent[0]), min(spent[1])
            print(f"{name:22}{other:>12.3f}{own:>10.3f}{own / other:>8.2f}{differs:>22.1e}")
    sys.exit(apart > 1e-9)


if __name__ == "__main__":
    main()
