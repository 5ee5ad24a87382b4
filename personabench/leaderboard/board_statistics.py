"""The statistics of a board's rows: intervals, gains over the baseline, and tests.

Only rows of one setting (same task, data, model, decoding) are compared. Their tests on the primary
metric are two families for Holm's correction: rows against each other, and rows against the same
method with shuffled histories.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from personabench.hashing import digest
from personabench.leaderboard.column import Column, aggregate_of
from personabench.leaderboard.estimates import Contrast, Opponent, RowStatistics
from personabench.leaderboard.rows import Entry, judge_of, metric_directions
from personabench.leaderboard.stats import holm, leaders, letters, wins
from personabench.leaderboard.stats.scores import DRAWS
from personabench.results.index import SCORER
from personabench.results.published import Vector, vector

# A row that would leave less than this share of the samples is left out of the frontier; otherwise
# one short run would shrink the comparison of all others.
FRONTIER_SHARE = 0.5

# With so many draws per test of a family a p-value can still pass Holm's correction: 1/50 < 5 %.
DRAWS_PER_TEST = 50


def tabulate(
    board: Sequence[Entry],
    baseline: str,
    thorough: bool,
) -> list[RowStatistics]:
    """Compute the statistics of a board's rows, which come in the order of rank.

    Args:
        baseline: the name of the row that gains are measured against, in each setting.
        thorough: intervals for all metrics, not for the primary one only.

    Raises:
        DataError: a score file is damaged.
    """
    vectors = []
    for entry in board:
        seeds = [vector(run) for run in entry.runs]
        vectors.append(seeds)

    statistics = [RowStatistics(letter) for letter in letters(len(board))]
    scored = [row for row, seeds in enumerate(vectors) if _has_samples(seeds)]
    if not scored:
        return statistics

    first_scored = board[scored[0]]
    primary = first_scored.summary.primary
    directions = metric_directions(board[row].first for row in scored)
    if not thorough:
        directions = {primary: directions[primary]}

    for metric, higher in directions.items():
        rows = [row for row in scored if _has_metric(vectors[row], metric)]
        for group in _comparable(board, rows, metric):
            first = group[0]
            run = board[first].first
            scores = vectors[first][0]
            aggregate = aggregate_of(run, metric, scores)
            if aggregate is None:
                continue

            size = len(group)
            pairs = size * (size - 1) // 2
            draws = max(DRAWS, DRAWS_PER_TEST * pairs)
            column = Column(
                [vectors[row] for row in group],
                metric,
                higher,
                aggregate,
                draws=draws,
            )

            entries = [board[row] for row in group]
            members = [statistics[row] for row in group]
            base = baseline_of(entries, baseline)
            _estimate_metric(members, column, base)
            if metric == primary:
                _test_rows(members, entries, column, base)
    return statistics


def _has_samples(vectors: Sequence[Vector]) -> bool:
    shared = set(vectors[0].ids)
    for scores in vectors[1:]:
        shared &= set(scores.ids)
    return bool(shared)


def _has_metric(vectors: Sequence[Vector], metric: str) -> bool:
    measured = [scores.values.get(SCORER, {}) for scores in vectors]
    return all(metric in metrics for metrics in measured)


def _comparable(
    board: Sequence[Entry],
    rows: Sequence[int],
    metric: str,
) -> list[list[int]]:
    """Group rows of one setting whose metric is by the same optional judge.

    Rows whose seeds had different judges are left out.
    """
    groups: dict[tuple[str, str | None], list[int]] = {}
    for row in rows:
        entry = board[row]
        judges = {judge_of(run, metric) for run in entry.runs}
        if len(judges) == 1:
            key = (entry.setting, judges.pop())
            group = groups.setdefault(key, [])
            group.append(row)
    return list(groups.values())


def _estimate_metric(
    statistics: Sequence[RowStatistics],
    column: Column,
    base: int | None,
) -> None:
    """Fill in the estimates of one metric for rows that are compared."""
    aligned = column.align(FRONTIER_SHARE)
    for row, numbers in enumerate(statistics):
        numbers.aligned[column.name] = aligned[row]
        numbers.estimates[column.name] = column.estimate(row)
        if base is not None and row != base:
            numbers.gains[column.name] = column.gain(row, base)


def _test_rows(
    statistics: Sequence[RowStatistics],
    entries: Sequence[Entry],
    column: Column,
    base: int | None,
) -> None:
    """Fill in all tests of one setting on the primary metric."""
    count = len(entries)
    twins: dict[int, int] = {}
    for row in range(count):
        twin = _shuffled_twin(row, entries)
        if twin is not None:
            twins[row] = twin

    pairs = {}
    for a, b in combinations(range(count), 2):
        pairs[a, b] = column.compare(a, b)
    controls = []
    for row, twin in twins.items():
        control = (min(row, twin), max(row, twin))
        controls.append(control)
    contests = [pair for pair in pairs if pair not in controls]

    # Rows against their own shuffled selves are a family of their own: whether a gain is personal
    # is one planned question per method, and its answer must not depend on the other rows.
    family = {}
    for keys in (controls, contests):
        raw = [pairs[key].p for key in keys]
        corrected = holm(raw)
        for key, p in zip(keys, corrected, strict=True):
            gain = pairs[key].gain
            family[key] = gain.value, p

    # A row without rivals leads nothing.
    best = set(leaders(0, count, family)) if count > 1 else set()
    trivial_rows = [row for row, entry in enumerate(entries) if _is_trivial(entry)]
    trivial = trivial_rows[0] if trivial_rows else None
    for row, beaten in enumerate(wins(count, family)):
        numbers = statistics[row]
        numbers.sample_set = digest(column.samples(row))[:8]
        numbers.seed_values = column.seeds(row)
        numbers.beats = [entries[loser].label for loser in beaten]
        numbers.leader = row in best
        numbers.tests = len(contests)
        numbers.controls = len(controls)
        numbers.draws = column.draws

        opponents: dict[Opponent, int | None] = {
            "baseline": base,
            "shuffled": twins.get(row),
            "trivial": None if _is_trivial(entries[row]) else trivial,
        }
        for role, opponent in opponents.items():
            if opponent is None or opponent == row:
                continue
            key = (min(row, opponent), max(row, opponent))
            # Pairs are stored in one direction; the other one is computed when it is needed.
            comparison = pairs[key] if row < opponent else column.compare(row, opponent)
            _, corrected_p = family[key]
            numbers.contrasts[role] = Contrast(
                comparison,
                corrected=corrected_p,
                over=entries[opponent].label,
            )


def baseline_of(entries: Sequence[Entry], name: str) -> int | None:
    """Find the row of that name, or else the only row of that method; None without one.

    Of rows that differ in seeds and samples alone, the one with most samples, then with most seeds.
    """

    def size(row: int) -> tuple[int, int]:
        entry = entries[row]
        return entry.summary.n, len(entry.runs)

    matches = [row for row, entry in enumerate(entries) if name in (entry.name, entry.label)]
    if matches:
        return max(matches, key=size)

    matches = [row for row, entry in enumerate(entries) if entry.summary.method == name]
    return matches[0] if len(matches) == 1 else None


def _is_trivial(entry: Entry) -> bool:
    return entry.is_rule and entry.summary.history == "own"


def _shuffled_twin(row: int, entries: Sequence[Entry]) -> int | None:
    """Find the same method and parameters with another user's history.

    If there are several, the one with most seeds.
    """
    summary = entries[row].summary
    if summary.history != "own":
        return None

    twins = []
    for candidate, entry in enumerate(entries):
        peer = entry.summary
        same_method = peer.method == summary.method and peer.params == summary.params
        if same_method and peer.history == "shuffled":
            twins.append(candidate)

    def seeds(candidate: int) -> int:
        return len(entries[candidate].runs)

    return max(twins, key=seeds, default=None)
