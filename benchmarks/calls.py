"""Model calls of methods on example data, against their reference implementations.

    python benchmarks/calls.py [--limit 60] [--only METHOD ...]

Ours are the distinct calls in the ledgers of runs with the scripted backend, in a new results
folder.  A reference implementation's calls are computed for the same questions, from its code or,
where there is none, from its paper.  Unless it has a state for each user, it keeps nothing between
questions, so a user's second question costs as much as the first.  Calls that repeat an unreadable
reply are left out on both sides.

From code:
- none, rag (LaMP): one call per question.
- persona_db: two calls per user and two more that turn the replies into JSON, and the answer.
- cipher: a draft and a preference for each of 5 records, one call that joins them, and the answer.
- dpl: one call per record compared, one for the profile, one for the answer.
- drp: two calls per record compared, one for the profile, one for the answer.
- rpm: features, then evidence or attributes, then reasons, for each of N records (3N), at least one
  call to group the features, and two per question.
- eragent: the rewriter, the filter for each of 5 snippets, and the reader.  Its profile is given.
- prose: for each of 8 texts 3 candidates and 3 inferences, one call that takes the result apart,
  and from the second one a call that joins earlier preferences; per question this one and the
  answer.  Without verification, whose calls depend on the replies.
- mem0_like: per exchange, facts and what to do with them; the answer.
- amem_like: per record, a note and its links; the answer.
- memorybank_like: per day, a summary and a portrait, and one of all at the end; the answer.
- memoryos_like: for each exchange that leaves the queue of 7, its link and its summary; the search
  words of a question and the answer.

From the paper:
- summary (integrating summarization and retrieval): one summary and one answer per question.
- trsr: one call for each block of 5 records, and the answer.
- cicl: one draft per pair shown, and the answer.
- compsum: one analysis and the answer.
- hyperalign: hypotheses per user, and the answer.
- fermi: the first prompt and 10 times 4 prompts on each of N past questions, 10 calls that write
  prompts; the answer.
- k_lamp: the answer.
- mara: a draft, a plan, and one call for each agent of the same plan as ours.
- rag_select (RSPG, which chooses after answering): an answer for each of 5 ways to retrieve.
- two_step: the list from the profile, and the answer.
- raise: an answer and a grade for every set of at most 5 attributes of a planned query, an upper
  bound; two calls for each attribute that is asked for, and two for the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from personabench.api.dataset import Dataset
from personabench.api.memory_batches import split_batches
from personabench.api.registry import load_class
from personabench.api.users import open_split
from personabench.hashing import digest
from personabench.models.backends import scripted
from personabench.run import runner
from personabench.types import Record, Request

GRADES = ("risk_sensitivity", "empathy", "alignment")
PAGES_IN_QUEUE = 7


class Question(NamedTuple):
    """A question: its user, their history, and the flags and inquiries of our prediction."""

    user_id: str
    history: Sequence[Record]
    flags: dict[str, float]
    inquiries: int


class Reference(NamedTuple):
    """The calls of a reference implementation, and the run that they are compared with.

    Attributes:
        source: what they were counted from.
        per_question, per_user, per_run: calls for a question, a user's history and a data set.
        answer: replies of our model, for methods that cannot use filler.
    """

    source: str
    per_question: Callable[[Question], float]
    per_user: Callable[[Sequence[Record]], float] = lambda history: 0
    per_run: Callable[[Dataset], float] = lambda dataset: 0
    task: str = "lamp4"
    settings: Sequence[str] = ()
    answer: Callable[[Request], str] = scripted.reply


def count_fermi(history: Sequence[Record]) -> int:
    """Predictions and new prompts of a search with 4 prompts in each of 10 rounds."""
    demonstrations = min(4, len(history) // 3)
    scored = min(40, len(history) - demonstrations)
    return scored * (1 + 4 * 10) + 10


def count_prose(history: Sequence[Record]) -> int:
    """Calls for the newest 8 texts with 3 refinements."""
    texts = min(8, len(history))
    return texts * (2 * 3 + 1) + texts - 1


def count_memoryos(history: Sequence[Record]) -> int:
    """Calls for the exchanges that do not fit the queue."""
    return 2 * max(0, len(split_batches(history, "exchange")) - PAGES_IN_QUEUE)


def count_plans(dataset: Dataset) -> int:
    """Calls for all sets of attributes of the two queries that raise plans."""
    sizes = [len(user.history[0].fields) for user in islice(dataset.population(), 2)]
    return sum(2 * math.comb(size, chosen) for size in sizes for chosen in range(6))


def write_prompts(request: Request) -> str:
    """Filler with four entries in a list, others for every repetition: prompts for fermi."""
    if request.schema is None:
        return scripted.reply(request)
    mark = scripted.letters(digest([request.messages, request.repeat]))
    return scripted.fill_schema(request.schema, mark=mark, entries=4)


def play_agent(request: Request) -> str:
    """Ratings, rankings and grades that raise can read; grades differ by answer."""
    opening = request.messages[0].content
    if opening.startswith("You decide whether enough"):
        return "1"
    if opening.startswith("You grade an answer"):
        number = int(digest(request.messages)[:6], 16)
        return json.dumps(dict.fromkeys(GRADES, 1 + number % 5))
    listed = re.search(r"^Attributes: (.*)$", request.messages[-1].content, re.MULTILINE)
    if listed is None:
        return scripted.reply(request)
    names = listed[1]
    return names if opening.startswith("You rank") else names.partition(",")[0]


def refer(source: str, calls: float, **options: Any) -> Reference:
    """A reference that makes the same number of calls for every question."""
    return Reference(source, lambda question: calls, **options)


REFERENCES: dict[str, Reference] = {
    "none": refer("code", 1),
    "rag": refer("code", 1),
    "summary": refer("paper", 2),
    "trsr": Reference("paper", lambda question: math.ceil(len(question.history) / 5) + 1),
    "cicl": Reference("paper", lambda question: question.flags.get("pairs", 0) + 1),
    "persona_db": refer("code", 1, per_user=lambda history: 4),
    "compsum": refer("paper", 2),
    "cipher": Reference("code", lambda question: 2 * min(len(question.history), 5) + 2),
    "dpl": Reference("code", lambda question: question.flags.get("n_eff", 0) + 2),
    "drp": Reference("code", lambda question: 2 * question.flags.get("n_eff", 0) + 2),
    "rpm": Reference("code", lambda question: 3 * len(question.history) + 1 + 2),
    "hyperalign": refer("paper", 1, per_user=lambda history: 1),
    "fermi": refer("paper", 1, per_user=count_fermi, answer=write_prompts),
    "k_lamp": refer("paper", 1),
    "eragent": Reference("code", lambda question: 2 + min(5, len(question.history))),
    "mara": Reference("paper", lambda question: 2 + question.flags["plan_steps"]),
    "prose": refer("code", 2, per_user=count_prose, settings=["prose.verify=false"]),
    "rag_select": refer("paper", 5),
    "two_step": refer("paper", 2, task="usafebench"),
    "raise": Reference(
        "paper",
        lambda question: 2 * question.inquiries + 2,
        per_run=count_plans,
        task="penguin",
        settings=["raise.planner=tree"],
        answer=play_agent,
    ),
    "mem0_like": refer(
        "code",
        1,
        per_user=lambda history: 2 * len(split_batches(history, "exchange")),
        task="locomo",
    ),
    "amem_like": refer("code", 1, per_user=lambda history: 2 * len(history), task="locomo"),
    "memorybank_like": refer(
        "code",
        1,
        per_user=lambda history: 2 * len(split_batches(history, "day")) + 2,
        task="locomo",
    ),
    "memoryos_like": refer("code", 2, per_user=count_memoryos, task="locomo"),
}
REPEATED = ("answer_retried", "analysis_retried")


async def run_method(
    method: str, reference: Reference, dataset: Dataset, limit: int, folder: Path
) -> tuple[dict[str, Any], list[Question]]:
    """Run a method; returns its usage by phase, and its questions."""
    options = runner.Options(
        methods=[method],
        tasks=[reference.task],
        limit=limit,
        backend="scripted",
        results=folder,
        assignments=reference.settings,
    )
    model = scripted.Scripted(answer=reference.answer)
    (outcome,) = await runner.run(options, backend=model)
    summary = json.loads((outcome.folder / "summary.json").read_bytes())
    histories = {sample.id: sample.history for sample in dataset.samples()}
    questions = []
    for line in (outcome.folder / "predictions.jsonl").read_text().splitlines():
        prediction = json.loads(line)
        inquiries = prediction.get("interaction", {}).get("questions", ())
        questions.append(
            Question(
                prediction["user_id"],
                histories[prediction["sample_id"]],
                prediction.get("flags", {}),
                len(inquiries),
            )
        )
    return summary["usage"], questions


def print_row(
    method: str,
    reference: Reference,
    dataset: Dataset,
    usage: dict[str, Any],
    questions: Sequence[Question],
) -> None:
    """Print the calls of a method and of its reference implementation."""

    def count(phases: Sequence[str]) -> int:
        calls = [
            usage[phase]["calls"] - usage[phase]["cached"] for phase in phases if phase in usage
        ]
        return sum(calls)

    # Earlier questions of a user see the beginning of the longest history.
    ordered = sorted(questions, key=lambda question: len(question.history))
    histories = {question.user_id: question.history for question in ordered}
    repeated = sum(question.flags.get(name, 0) for question in questions for name in REPEATED)
    offline, online = count(["prepare", "profile"]), count(["predict"]) - int(repeated)
    theirs = sum(map(reference.per_question, questions))
    theirs += sum(map(reference.per_user, histories.values())) + reference.per_run(dataset)
    print(
        f"{method:16}{reference.task:12}{len(questions):10}{len(histories):7}"
        f"{offline / len(histories):11.1f}{online / len(questions):14.1f}"
        f"{offline + online:8}{theirs:11.0f}{(offline + online) / theirs:7.2f}  {reference.source}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=60, help="questions, rounded up to users")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=REFERENCES,
        default=list(REFERENCES),
        metavar="METHOD",
        help="methods to run (default: all)",
    )
    arguments = parser.parse_args()
    print(
        f"{'':16}{'task':12}{'questions':>10}{'users':>7}{'per user':>11}{'per question':>14}"
        f"{'in all':>8}{'reference':>11}{'ratio':>7}  from"
    )
    for method in arguments.only:
        reference = REFERENCES[method]
        task = load_class("task", reference.task)()
        dataset = open_split(task, task.default_split, None)
        with tempfile.TemporaryDirectory() as folder:
            usage, questions = asyncio.run(
                run_method(method, reference, dataset, arguments.limit, Path(folder))
            )
        print_row(method, reference, dataset, usage, questions)


if __name__ == "__main__":
    main()
