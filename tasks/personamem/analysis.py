"""Analysis of PersonaMem replies: types, distances, letters, intervals, rules and comparisons.

Everything is computed from a dataset and replies by question id, without a model. Every planned
question counts: one without a reply is wrong and listed.
`python -m personabench.tasks.personamem RUN [OTHER]` prints the report of run folders.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from personabench.api.dataset import Dataset
from personabench.api.id_check import compare_ids
from personabench.errors import UsageError
from personabench.tasks.personamem import rules, scoring
from personabench.tasks.personamem.data import PersonaMemData, read_facts
from personabench.tasks.personamem.files import LETTERS, Question

RESAMPLES = 10_000
# Percentile intervals are too narrow with fewer clusters.
FEW_CLUSTERS = 10
# With fewer questions, one reply moves an accuracy by more than 5 points.
FEW_ROWS = 20
# Widths of the bins of token distances: about eight bins over the longest history of each split.
BIN_TOKENS = {"32k": 4_000, "128k": 16_000, "1M": 128_000}
By = Literal["context", "persona"]


@dataclass(frozen=True, slots=True)
class Row:
    """One planned question: its gold, the letter chosen, and whether it is right.

    Attributes:
        chosen: the letter that the strict parser reads; None without one.
        status: letter, none, multiple, or failed for a question without a reply.
        right: right by the official parser.
        strict: right by the strict parser.
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
    """The number of right answers among some questions."""

    n: int
    right: int

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.n

    @property
    def few(self) -> bool:
        """Whether there are too few questions to rely on the accuracy."""
        return self.n < FEW_ROWS


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two runs on the same questions: first minus second.

    Attributes:
        difference: of the accuracies.
        interval: the bootstrap interval over clusters; None for a single cluster.
        gained: questions that only the first run has right.
        lost: questions that only the second run has right.
        p: McNemar's exact two-sided p, which takes questions as independent although those of one
            conversation are not.
    """

    difference: float
    interval: tuple[float, float] | None
    gained: int
    lost: int
    p: float


@dataclass(frozen=True, slots=True)
class _Distance:
    """A distance to the preference that a question refers to, and the labels of its bins."""

    name: str
    bin_of: Callable[[Row], float]
    label: Callable[[float], str]


def make_rows(dataset: Dataset, outputs: Mapping[str, str | None]) -> list[Row]:
    """Return the planned questions of `outputs` in file order; None marks a missing reply.

    Raises:
        UsageError: the dataset lacks an id.
    """
    positions = {sample_id: position for position, (sample_id, _) in enumerate(dataset.index())}
    unknown = [sample_id for sample_id in outputs if sample_id not in positions]
    if unknown:
        raise UsageError(
            f"{len(unknown)} ids are not questions of {dataset.source}, first: {unknown[0]}"
        )

    ordered = sorted(outputs, key=positions.__getitem__)
    return [_make_row(dataset, positions[sample_id], outputs[sample_id]) for sample_id in ordered]


def _make_row(dataset: Dataset, position: int, output: str | None) -> Row:
    sample = dataset.load(position)
    facts = read_facts(sample)
    chosen = None
    status = "failed"
    right = False
    if output is not None:
        chosen = scoring.parse_strict(output)
        status = scoring.classify_reply(output)
        right = scoring.parse_official(output, facts.rights) in facts.rights

    return Row(
        id=sample.id,
        persona=sample.user_id,
        facts=facts,
        gold=sample.references[0],
        chosen=chosen,
        status=status,
        right=right,
        strict=chosen in facts.rights,
    )


def count_shares(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, Share]:
    """Count right answers by some property, in order of first appearance."""
    totals: Counter[str] = Counter()
    rights: Counter[str] = Counter()
    for row in rows:
        label = key(row)
        totals[label] += 1
        rights[label] += row.right
    return {label: Share(total, rights[label]) for label, total in totals.items()}


def count_by_type(rows: Sequence[Row], mapping: scoring.TypeMapping) -> dict[str, Share]:
    """Count right answers by question type under a mapping, in the order of the paper."""

    def key(row: Row) -> str:
        return scoring.map_type(row.facts.type, row.facts.split, mapping)

    shares = count_shares(rows, key)
    return {label: shares[label] for label in scoring.order_types(shares)}


def make_breakdowns(
    rows: Sequence[Row],
    mapping: scoring.TypeMapping,
) -> dict[str, dict[str, Share]]:
    """Return every table of the protocol: types, three distances, topics, letters."""
    split = rows[0].facts.split if rows else "32k"
    tables = {"type": count_by_type(rows, mapping)}
    for distance in _define_distances(split):
        tables[distance.name] = _count_by_distance(rows, distance)

    tables["topic"] = _count_sorted(rows, lambda row: row.facts.topic)
    tables["gold letter"] = _count_sorted(rows, lambda row: row.gold)
    tables["chosen letter"] = _count_sorted(rows, lambda row: row.chosen or row.status)
    return tables


def _define_distances(split: str) -> list[_Distance]:
    # A reference file whose name states no split gets the bins of the smallest one.
    width = BIN_TOKENS.get(split, BIN_TOKENS["32k"])

    def label_tokens(bin_index: float) -> str:
        low = bin_index * width // 1000
        high = (bin_index + 1) * width // 1000
        return f"{low:g}k-{high:g}k"

    def bin_proportion(row: Row) -> int:
        # Fifths; the small term keeps .6 * 5 from falling into the bin below.
        return min(int(row.facts.proportion * 5 + 1e-9), 4)

    return [
        _Distance(
            "distance in blocks",
            bin_of=lambda row: row.facts.blocks,
            label=lambda blocks: f"{blocks:g}",
        ),
        _Distance(
            "distance in tokens",
            bin_of=lambda row: row.facts.tokens // width,
            label=label_tokens,
        ),
        _Distance(
            "distance in proportion",
            bin_of=bin_proportion,
            label=lambda bin_index: f"{bin_index * 20:g}-{bin_index * 20 + 20:g} %",
        ),
    ]


def _count_by_distance(rows: Sequence[Row], distance: _Distance) -> dict[str, Share]:
    # Sorted by number, since labels sort as text: 10 before 2.
    ordered = sorted(rows, key=distance.bin_of)
    return count_shares(ordered, lambda row: distance.label(distance.bin_of(row)))


def _count_sorted(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, Share]:
    shares = count_shares(rows, key)
    return dict(sorted(shares.items()))


def bootstrap_accuracy(
    rows: Sequence[Row],
    by: By = "context",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """Bootstrap the 95 % percentile interval of micro accuracy; None for a single cluster."""
    values = [float(row.right) for row in rows]
    return _bootstrap_mean(values, rows, by, seed, resamples)


def count_clusters(rows: Iterable[Row], by: By = "context") -> int:
    """Count the conversations or personas that the questions belong to."""
    return len({_find_cluster(row, by) for row in rows})


def compare_runs(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    hashes: tuple[str, str] = ("", ""),
    by: By = "context",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two runs on the same questions of the same data.

    Raises:
        UsageError: the questions or the data differ.
    """
    first_ids = [row.id for row in first]
    second_ids = [row.id for row in second]
    mismatch = str(compare_ids(first_ids, second_ids))
    if mismatch:
        raise UsageError(f"the runs cannot be compared: their questions differ ({mismatch})")
    if hashes[0] != hashes[1]:
        raise UsageError("the runs cannot be compared: their data files differ")

    second_rights = {row.id: row.right for row in second}
    gains = [float(row.right - second_rights[row.id]) for row in first]
    gained = gains.count(1.0)
    lost = gains.count(-1.0)
    return Difference(
        difference=sum(gains) / len(gains),
        interval=_bootstrap_mean(gains, first, by, seed, resamples),
        gained=gained,
        lost=lost,
        p=mcnemar_p(gained, lost),
    )


def mcnemar_p(gained: int, lost: int) -> float:
    """Return McNemar's exact two-sided p over the questions on which two runs disagree."""
    total = gained + lost
    if total == 0:
        return 1.0
    smaller = min(gained, lost)
    tail = sum(math.comb(total, count) for count in range(smaller + 1))
    # Twice the tail over 2 ** total; a symmetric table would count its middle twice.
    return min(1.0, tail / float(2 ** (total - 1)))


def score_rules(questions: Sequence[Question]) -> dict[str, Share | float]:
    """Score the rules that read no history over a whole split.

    Rules marked as using gold have seen the answers. `tie-split` shares a question among options of
    equal length instead of taking the first.
    """
    n = len(questions)
    scores: dict[str, Share | float] = {}
    golds = [LETTERS[question.gold] for question in questions]
    majority = rules.majority_letter(golds)
    scores[f"majority-letter {majority} (uses gold)"] = Share(n, golds.count(majority))

    picks: dict[str, rules.Pick] = {"longest-option": max, "shortest-option": min}
    for name, pick in picks.items():
        hits = [rules.find_extreme(question, pick) == question.gold for question in questions]
        scores[name] = Share(n, sum(hits))
        split_hits = sum(_score_ties(question, pick) for question in questions)
        scores[f"{name}, tie-split"] = split_hits / n

    positions = rules.pick_by_type(questions)
    hits = [
        position == question.gold for position, question in zip(positions, questions, strict=True)
    ]
    scores["type-length (uses gold)"] = Share(n, sum(hits))
    return scores


def _score_ties(question: Question, pick: rules.Pick) -> float:
    lengths = rules.option_lengths(question)
    extreme = pick(lengths)
    if lengths[question.gold] != extreme:
        return 0.0
    return 1 / lengths.count(extreme)


def _find_cluster(row: Row, by: By) -> str:
    return row.facts.context if by == "context" else row.persona


def _bootstrap_mean(
    values: Sequence[float],
    rows: Sequence[Row],
    by: By,
    seed: int,
    resamples: int,
) -> tuple[float, float] | None:
    """Return a percentile interval of the mean, resampling whole clusters.

    Questions of one conversation share its history, so their results are not independent.
    """
    sums: dict[str, list[float]] = {}
    for value, row in zip(values, rows, strict=True):
        pair = sums.setdefault(_find_cluster(row, by), [0.0, 0.0])
        pair[0] += value
        pair[1] += 1
    if len(sums) < 2:
        return None

    # Sorted, so that the interval does not depend on the order of the rows.
    clusters = np.array([sums[name] for name in sorted(sums)])
    generator = np.random.default_rng(seed)
    n = len(clusters)
    indices = generator.integers(n, size=(resamples, n))
    totals = clusters[indices].sum(axis=1)
    means = totals[:, 0] / totals[:, 1]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def format_report(
    rows: Sequence[Row],
    mapping: scoring.TypeMapping,
    *,
    by: By = "context",
    questions: Sequence[Question] = (),
) -> str:
    """Format all tables as Markdown, and the scores of rules if `questions` are given."""
    parts = [*_format_summary(rows, mapping, by)]
    for title, shares in make_breakdowns(rows, mapping).items():
        parts += ["", *_format_breakdown(title, shares)]
    if questions:
        parts += ["", *_format_rules(questions)]
    return "\n".join(parts)


def _format_summary(rows: Sequence[Row], mapping: scoring.TypeMapping, by: By) -> Iterator[str]:
    n = len(rows)
    micro = sum(row.right for row in rows) / n
    strict = sum(row.strict for row in rows) / n
    types = count_by_type(rows, mapping)
    macro = sum(share.accuracy for share in types.values()) / len(types)
    yield (
        f"micro accuracy {micro:.4f} (n={n}, chance .25), strict {strict:.4f}, "
        f"macro over {len(types)} types ({mapping}) {macro:.4f}"
    )

    interval = bootstrap_accuracy(rows, by)
    bounds = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "none"
    clusters = count_clusters(rows, by)
    caution = ", few clusters: read with care" if clusters < FEW_CLUSTERS else ""
    yield f"95 % interval over {clusters} {by}s{caution}: {bounds}"

    statuses = sorted(Counter(row.status for row in rows).items())
    yield "replies: " + ", ".join(f"{status} {count}" for status, count in statuses)
    disagreements = sum(row.right != row.strict for row in rows)
    yield f"official and strict reading disagree on {disagreements}"

    failed = [row.id for row in rows if row.status == "failed"]
    if failed:
        yield f"without a reply, counted as wrong: {', '.join(failed)}"


def _format_breakdown(title: str, shares: Mapping[str, Share]) -> Iterator[str]:
    yield f"| {title} | n | accuracy |"
    yield "|---|---:|---:|"
    for label, share in shares.items():
        mark = " (few)" if share.few else ""
        yield f"| {label} | {share.n}{mark} | {share.accuracy:.4f} |"


def _format_rules(questions: Sequence[Question]) -> Iterator[str]:
    yield "| rule, whole split | accuracy |"
    yield "|---|---:|"
    for name, score in score_rules(questions).items():
        accuracy = score.accuracy if isinstance(score, Share) else score
        yield f"| {name} | {accuracy:.4f} |"


def find_questions(dataset: Dataset) -> Sequence[Question]:
    """Return the published questions behind a dataset; empty for another task's dataset."""
    return dataset.questions if isinstance(dataset, PersonaMemData) else ()
