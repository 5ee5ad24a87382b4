"""Scoring a prediction file: our scorer compared with the loop of LaMP's evaluation.

    python benchmarks/scoring.py --samples 2000

The loop reads both JSON files, checks the ids and computes ROUGE like `evaluate.load("rouge")`
(`rouge_score` with rouge1, rouge2, rougeL and rougeLsum, a mean over pairs) for LaMP-4 to 7,
scikit-learn for LaMP-1 to 3; `--types ours` gives it only the two ROUGE types that LaMP reports.
Ours is `personabench score`: the official scorer, all metrics of the task, ids compared.  Both
must agree.  They run in turn in one process, on the same two files, and the fastest of several
rounds counts; imports are not included.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from personabench.api.registry import load_class
from personabench.api.task import Task
from personabench.run.score_file import score_files

TASKS = {
    "lamp4": "LaMP_4",
    "lamp2m": "LaMP_2",
    "lamp3": "LaMP_3",
}
ALL_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
OUR_TYPES = ["rouge1", "rougeL"]


def generate(
    folder: Path,
    task: Task,
    samples: int,
) -> tuple[Path, Path]:
    """Write a reference file and a prediction file that shares some of its words, or labels."""
    rng = random.Random(0)
    words = []
    for _ in range(3000):
        letters = rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))
        words.append("".join(letters))

    def generate_answer() -> str:
        if task.labels:
            return rng.choice(task.labels)
        return " ".join(rng.choices(words, k=rng.randint(6, 14)))

    golds = []
    predictions = []
    for number in range(samples):
        gold = {"id": str(number), "output": generate_answer()}
        golds.append(gold)
        # Some predictions are right, as a model's are.
        is_wrong = rng.random() < 0.7
        output = generate_answer() if is_wrong else gold["output"]
        predictions.append({"id": gold["id"], "output": output})

    predictions_path = folder / f"{task.name}_predictions.json"
    references_path = folder / f"{task.name}_golds.json"
    for path, rows in ((predictions_path, predictions), (references_path, golds)):
        content = json.dumps({"task": TASKS[task.name], "golds": rows})
        path.write_text(content, encoding="utf-8")
    return predictions_path, references_path


def score_with_personabench(
    task: Task,
    predictions: Path,
    references: Path,
) -> dict[str, float]:
    """Score like `personabench score`."""
    return score_files(task, predictions, references, "official", False).metrics


def score_with_loop(
    task: Task,
    predictions: Path,
    references: Path,
    types: list[str],
) -> dict[str, float]:
    """Score like LaMP's own evaluation."""
    golds = read_outputs(references)
    answers = read_outputs(predictions)
    assert golds.keys() == answers.keys()

    true = [gold.strip() for gold in golds.values()]
    predicted = [answers[sample_id].strip() for sample_id in golds]
    if task.name == "lamp4":
        return score_texts(true, predicted, types)
    if task.name == "lamp3":
        return score_ratings(true, predicted)
    return score_labels(true, predicted, task.labels)


def read_outputs(path: Path) -> dict[str, str]:
    content = json.loads(path.read_text())
    return {row["id"]: row["output"] for row in content["golds"]}


def score_texts(
    true: list[str],
    predicted: list[str],
    types: list[str],
) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(types, use_stemmer=False)
    scores = [scorer.score(gold, answer) for gold, answer in zip(true, predicted, strict=True)]
    means = {}
    for kind in types:
        means[kind] = float(np.mean([score[kind].fmeasure for score in scores]))
    return {"rouge-1": means["rouge1"], "rouge-L": means["rougeL"]}


def score_ratings(
    true: list[str],
    predicted: list[str],
) -> dict[str, float]:
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    true_ratings = [float(rating) for rating in true]
    predicted_ratings = [float(rating) for rating in predicted]
    return {
        "MAE": mean_absolute_error(true_ratings, predicted_ratings),
        "RMSE": root_mean_squared_error(true_ratings, predicted_ratings),
    }


def score_labels(
    true: list[str],
    predicted: list[str],
    labels: Sequence[str],
) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    true_indices = [labels.index(label) for label in true]
    predicted_indices = [labels.index(label) for label in predicted]
    macro_f1 = f1_score(
        true_indices,
        predicted_indices,
        labels=list(range(len(labels))),
        average="macro",
    )
    return {
        "accuracy": accuracy_score(true_indices, predicted_indices),
        "f1": macro_f1,
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
    options = parser.parse_args()
    types = ALL_TYPES if options.types == "all" else OUR_TYPES
    print(
        f"{options.samples} samples{'':10}{'the loop s':>12}{'ours s':>10}{'ratio':>8}"
        f"{'largest difference':>22}"
    )
    largest_difference = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in TASKS:
            task = load_class("task", name)()
            paths = generate(Path(folder), task, options.samples)
            difference = compare(task, paths, types, options.rounds)
            largest_difference = max(largest_difference, difference)
    sys.exit(largest_difference > 1e-9)


def compare(
    task: Task,
    paths: tuple[Path, Path],
    types: list[str],
    rounds: int,
) -> float:
    """Score the files in both ways and print the seconds.

    Returns:
        The largest difference between the scores.
    """
    loop_seconds = our_seconds = float("inf")
    # The first round imports the packages and is not timed.
    for round_ in range(rounds + 1):
        started = time.perf_counter()
        loop_scores = score_with_loop(task, *paths, types)
        middle = time.perf_counter()
        our_scores = score_with_personabench(task, *paths)
        ended = time.perf_counter()
        if round_:
            loop_seconds = min(loop_seconds, middle - started)
            our_seconds = min(our_seconds, ended - middle)

    difference = max(abs(our_scores[metric] - score) for metric, score in loop_scores.items())
    ratio = our_seconds / loop_seconds
    print(
        f"{task.name:22}{loop_seconds:>12.3f}{our_seconds:>10.3f}{ratio:>8.2f}{difference:>22.1e}"
    )
    return difference


if __name__ == "__main__":
    main()
