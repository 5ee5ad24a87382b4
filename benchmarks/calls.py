"""Model calls of methods on LaMP-4's example data, against their reference implementations.

    python benchmarks/calls.py [--limit 60]

Ours are the distinct calls in the ledgers of runs with the scripted backend, in a new results
folder.  A reference implementation's calls are computed for the same questions, from its code or,
where there is none, from its paper: it keeps nothing between questions, so a user's second question
costs as much as the first.  Calls that repeat an unreadable reply are left out on both sides.

- none, rag (LaMP): one call per question.
- summary (integrating summarization and retrieval): one summary and one answer per question.
- trsr: one call for each block of 5 records, and the answer.
- cicl: one draft per pair shown, and the answer.
- persona_db: two calls per user and two more that turn the replies into JSON, and the answer.
- compsum: one analysis and the answer.
- cipher: a draft and a preference for each of 5 records, one call that joins them, and the answer.
- dpl: one call per record compared, one for the profile, one for the answer.
- drp: two calls per record compared, one for the profile, one for the answer.
- rpm: features, then evidence or attributes, then reasons, for each of N records (3N), at least one
  call to group the features, and two per question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from personabench.api.registry import load_class
from personabench.run import runner


class Question(NamedTuple):
    """A question: its user, the number of their records, and the flags of our prediction."""

    user_id: str
    records: int
    flags: dict[str, float]


REFERENCES: dict[str, Callable[[Question], float]] = {
    "none": lambda question: 1,
    "rag": lambda question: 1,
    "summary": lambda question: 2,
    "trsr": lambda question: math.ceil(question.records / 5) + 1,
    "cicl": lambda question: question.flags.get("pairs", 0) + 1,
    "persona_db": lambda question: 1,
    "compsum": lambda question: 2,
    "cipher": lambda question: 2 * min(question.records, 5) + 2,
    "dpl": lambda question: question.flags.get("n_eff", 0) + 2,
    "drp": lambda question: 2 * question.flags.get("n_eff", 0) + 2,
    "rpm": lambda question: 3 * question.records + 1 + 2,
}
# Calls of a reference implementation for each user of the population.
PER_USER = {"persona_db": 4}
REPEATED = ("answer_retried", "analysis_retried")


async def run_method(
    method: str, limit: int, folder: Path
) -> tuple[dict[str, Any], list[Question]]:
    """Run a method; returns its usage by phase, and its questions."""
    options = runner.Options(
        methods=[method], tasks=["lamp4"], limit=limit, backend="scripted", results=folder
    )
    (outcome,) = await runner.run(options)
    summary = json.loads((outcome.folder / "summary.json").read_bytes())
    task = load_class("task", "lamp4")()
    records = {
        sample.id: len(sample.history) for sample in task.open(task.default_split, None).samples()
    }
    questions = []
    for line in (outcome.folder / "predictions.jsonl").read_text().splitlines():
        prediction = json.loads(line)
        sample_id = prediction["sample_id"]
        flags = prediction.get("flags", {})
        questions.append(Question(prediction["user_id"], records[sample_id], flags))
    return summary["usage"], questions


def print_row(method: str, usage: dict[str, Any], questions: Sequence[Question]) -> None:
    """Print the calls of a method and of its reference implementation."""

    def count(phases: Sequence[str]) -> int:
        calls = [
            usage[phase]["calls"] - usage[phase]["cached"] for phase in phases if phase in usage
        ]
        return sum(calls)

    users = len({question.user_id for question in questions})
    repeated = sum(question.flags.get(name, 0) for question in questions for name in REPEATED)
    offline, online = count(["prepare", "profile"]), count(["predict"]) - int(repeated)
    reference = sum(REFERENCES[method](question) for question in questions)
    reference += PER_USER.get(method, 0) * users
    print(
        f"{method:12}{offline / users:12.1f}{online / len(questions):14.1f}"
        f"{offline + online:10}{reference:12.0f}{(offline + online) / reference:8.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=60, help="questions, rounded up to users")
    limit = parser.parse_args().limit
    print(f"{'':12}{'per user':>12}{'per question':>14}{'in all':>10}{'reference':>12}{'ratio':>8}")
    for method in REFERENCES:
        with tempfile.TemporaryDirectory() as folder:
            usage, questions = asyncio.run(run_method(method, limit, Path(folder)))
        print_row(method, usage, questions)


if __name__ == "__main__":
    main()
