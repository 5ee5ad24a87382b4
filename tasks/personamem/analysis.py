"""What lies beside PersonaMem's one number: types with their counts, distances, letters, intervals, rules, comparisons.

Everything is computed from a dataset and replies by question id, without a model.  Every planned question counts: one
without a reply is wrong and listed.  `python -m personabench.tasks.personamem RUN [OTHER]` prints it for run folders.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from personabench.api.dataset import Dataset
from personabench.api.id_check import compare_ids
from personabench.errors import UsageError
from personabench.tasks.personamem import rules, scoring
from personabench.tasks.personamem.data import PersonaMemData, facts_of
from personabench.tasks.personamem.files import LETTERS, Question

DRAWS = 10_000
FEW_CLUSTERS = 10
FEW_ROWS = 20
BINS = {"32k": 4_000, "128k": 16_000, "1M": 128_000}
By = Literal["context", "persona"]


@dataclass(frozen=True, slots=True)
class Row:
    """One planned question: what was asked, what was chosen, and whether it is right under each reading.

    `status` is letter, none, multiple, or failed for a question without a reply.
    """

    id: str
    persona: str
    facts: scoring.Facts
    gold: str
    chosen: str | None
    status: str
    right: bool
    strict: bool


@dataclass(frozen=True, slots=True)
class Share:
    """Right answers among some questions; `few` says that there are too few to read much from it."""

    n: int
    right: int

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.n

    @property
    def few(self) -> bool:
        """Whether there are fewer than 20 questions."""
        return self.n < FEW_ROWS


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs on the same questions: first minus second.

    `gained` and `lost` are questions that only the first, only the second, has right; `p` is McNemar's exact two-sided
    test over them, which takes questions as independent although those of one conversation are not; `interval` draws
    whole clusters and is None for a single one.
    """

    difference: float
    interval: tuple[float, float] | None
    gained: int
    lost: int
    p: float


def rows(dataset: Dataset, outputs: Mapping[str, str | None]) -> list[Row]:
    """The planned questions of `outputs`, in file order; None stands for a reply that never came.

    Raises:
        UsageError: an id that the dataset does not have.
    """
    places = {name: at for at, (name, _) in enumerate(dataset.index())}
    if strangers := [name for name in outputs if name not in places]:
        raise UsageError(
            f"{len(strangers)} ids are not questions of {dataset.source}, the first is {strangers[0]}"
        )
    found = []
    for name in sorted(outputs, key=places.__getitem__):
        sample, output = dataset.load(places[name]), outputs[name]
        facts = facts_of(sample)
        chosen = None if output is None else scoring.reported(output)
        found.append(
            Row(
                id=name,
                persona=sample.user_id,
                facts=facts,
                gold=sample.references[0],
                chosen=chosen,
                status="failed" if output is None else scoring.status(output),
                right=output is not None and scoring.official(output, facts.rights) in facts.rights,
                strict=chosen in facts.rights,
            )
        )
    return found


def shares(table: Iterable[Row], key: Callable[[Row], str]) -> dict[str, Share]:
    """Right answers by some property, in order of first appearance."""
    counts: dict[str, list[int]] = {}
    for row in table:
        n = counts.setdefault(key(row), [0, 0])
        n[0] += 1
        n[1] += row.right
    return {name: Share(*n) for name, n in counts.items()}


def by_type(table: Sequence[Row], mapping: scoring.TypeMapping) -> dict[str, Share]:
    """Right answers by question type under a mapping, in the order of the paper."""
    found = shares(table, lambda row: scoring.bucket(row.facts.type, row.facts.split, mapping))
    return {name: found[name] for name in scoring.ordered_types(found)}


def breakdowns(table: Sequence[Row], mapping: scoring.TypeMapping) -> dict[str, dict[str, Share]]:
    """Every table of the protocol: types, distances in blocks, tokens and proportion, topic, letters."""
    width = BINS.get(table[0].facts.split if table else "", BINS["32k"])
    numbered: dict[str, Callable[[Row], float]] = {
        "distance in blocks": lambda row: row.facts.blocks,
        "distance in tokens": lambda row: row.facts.tokens // width,
        "distance in proportion": lambda row: min(int(row.facts.proportion * 5 + 1e-9), 4),
    }
    labels: dict[str, Callable[[float], str]] = {
        "distance in blocks": lambda at: f"{at:g}",
        "distance in tokens": lambda at: f"{at * width // 1000:g}k-{(at + 1) * width // 1000:g}k",
        "distance in proportion": lambda at: f"{at * 20:g}-{at * 20 + 20:g} %",
    }
    found = {"type": by_type(table, mapping)}
    for name, place in numbered.items():
        ordered = sorted(table, key=place)
        found[name] = shares(ordered, lambda row, name=name, place=place: labels[name](place(row)))  # type: ignore[misc]
    found["topic"] = dict(sorted(shares(table, lambda row: row.facts.topic).items()))
    found["gold letter"] = dict(sorted(shares(table, lambda row: row.gold).items()))
    found["chosen letter"] = dict(
        sorted(shares(table, lambda row: row.chosen or row.status).items())
    )
    return found


def interval(
    table: Sequence[Row], by: By = "context", seed: int = 0, draws: int = DRAWS
) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap interval of micro accuracy, drawing whole conversations or personas.

    None for a single cluster.
    """
    return _interval([float(row.right) for row in table], table, by, seed, draws)


def clusters(table: Iterable[Row], by: By = "context") -> int:
    """How many conversations or personas the questions belong to."""
    return len({_cluster(row, by) for row in table})


def compare(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    hashes: tuple[str, str] = ("", ""),
    by: By = "context",
    seed: int = 0,
    draws: int = DRAWS,
) -> Difference:
    """Two runs on the same questions of the same data.

    Raises:
        UsageError: other questions or other data.
    """
    ids = compare_ids([row.id for row in first], [row.id for row in second])
    if str(ids) or hashes[0] != hashes[1]:
        why = f"their questions differ ({ids})" if str(ids) else "their data files differ"
        raise UsageError(f"the runs cannot be compared: {why}")
    other = {row.id: row for row in second}
    gains = [float(row.right) - float(other[row.id].right) for row in first]
    gained, lost = gains.count(1.0), gains.count(-1.0)
    return Difference(
        difference=sum(gains) / len(gains),
        interval=_interval(gains, first, by, seed, draws),
        gained=gained,
        lost=lost,
        p=mcnemar(gained, lost),
    )


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p over the questions on which two runs disagree."""
    total = gained + lost
    tail = sum(math.comb(total, at) for at in range(min(gained, lost) + 1))
    return min(1.0, tail / float(2 ** (total - 1))) if total else 1.0


def controls(questions: Sequence[Question]) -> dict[str, Share | float]:
    """What rules score that read no history, over a whole split; those marked as using gold have seen the answers.

    `tie-split` gives each of several options of one length its part.
    """
    found: dict[str, Share | float] = {}
    top = rules.majority(LETTERS[question.gold] for question in questions)
    hits = [LETTERS[question.gold] == top for question in questions]
    found[f"majority-letter {top} (uses gold)"] = Share(len(questions), sum(hits))
    for name, pick in (("longest-option", max), ("shortest-option", min)):
        hits = [rules.extreme(question, pick) == question.gold for question in questions]
        found[name] = Share(len(questions), sum(hits))
        found[f"{name}, tie-split"] = sum(_part(question, pick) for question in questions) / len(
            questions
        )
    hits = [
        at == question.gold
        for at, question in zip(rules.by_type(questions), questions, strict=True)
    ]
    found["type-length (uses gold)"] = Share(len(questions), sum(hits))
    return found


def _part(question: Question, pick: rules.Pick) -> float:
    found = rules.lengths(question)
    wanted = pick(found)
    return (found[question.gold] == wanted) / found.count(wanted)


def _cluster(row: Row, by: By) -> str:
    return row.facts.context if by == "context" else row.persona


def _interval(
    values: Sequence[float], table: Sequence[Row], by: By, seed: int, draws: int
) -> tuple[float, float] | None:
    sums: dict[str, list[float]] = {}
    for value, row in zip(values, table, strict=True):
        pair = sums.setdefault(_cluster(row, by), [0.0, 0.0])
        pair[0] += value
        pair[1] += 1
    if len(sums) < 2:
        return None
    ordered = np.array([sums[name] for name in sorted(sums)])
    picked = np.random.default_rng(seed).integers(len(ordered), size=(draws, len(ordered)))
    drawn = ordered[picked].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(low), float(high)


def report(
    table: Sequence[Row],
    mapping: scoring.TypeMapping,
    *,
    by: By = "context",
    questions: Sequence[Question] = (),
) -> str:
    """The tables as Markdown; never an aggregate alone."""
    n = len(table)
    types = by_type(table, mapping)
    right = sum(row.right for row in table)
    strict = sum(row.strict for row in table)
    macro = sum(share.accuracy for share in types.values()) / len(types)
    lines = [f"micro accuracy {right / n:.4f} (n={n}, chance .25), strict {strict / n:.4f}"]
    lines[0] += f", macro over {len(types)} types ({mapping}) {macro:.4f}"
    span, groups = interval(table, by), clusters(table, by)
    few = ", few clusters: read with care" if groups < FEW_CLUSTERS else ""
    lines.append(
        f"95 % interval over {groups} {by}s{few}: "
        + (f"{span[0]:.4f} to {span[1]:.4f}" if span else "none")
    )
    states = Counter(row.status for row in table)
    lines.append(
        "replies: " + ", ".join(f"{name} {count}" for name, count in sorted(states.items()))
    )
    readings = sum(row.right != row.strict for row in table)
    lines.append(f"official and strict reading disagree on {readings}")
    if failed := [row.id for row in table if row.status == "failed"]:
        lines.append(f"without a reply, counted as wrong: {', '.join(failed)}")
    for title, found in breakdowns(table, mapping).items():
        lines += ["", f"| {title} | n | accuracy |", "|---|---:|---:|"]
        lines += [
            f"| {name} | {each.n}{' (few)' if each.few else ''} | {each.accuracy:.4f} |"
            for name, each in found.items()
        ]
    if questions:
        lines += ["", "| rule, whole split | accuracy |", "|---|---:|"]
        for name, value in controls(questions).items():
            lines.append(
                f"| {name} | {value.accuracy if isinstance(value, Share) else value:.4f} |"
            )
    return "\n".join(lines)


def questions_of(dataset: Dataset) -> Sequence[Question]:
    """The published questions behind a dataset; none behind another task's."""
    return dataset.questions if isinstance(dataset, PersonaMemData) else ()
