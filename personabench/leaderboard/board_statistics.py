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


def tabulate(board: Sequence[Entry], baseline: str, thorough: bool) -> list[RowStatistics]:
    """Compute the statistics of a board's rows, which come in the order of rank.

    Args:
        baseline: the name of the row that gains are measured against, in each setting.
        thorough: intervals for all metrics, not for the primary one only.

    Raises:
        DataError: a score file is damaged.
    """
    vectors = [[vector(run) for run in entry.runs] for entry in board]
    statistics = [RowStatistics(letter) for letter in letters(len(board))]
    scored = [row for row, seeds in enumerate(vectors) if _has_samples(seeds)]
    if not scored:
        return statistics

    primary = board[scored[0]].summary.primary
    directions = metric_directions(board[row].first for row in scored)
    if not thorough:
        directions = {primary: directions[primary]}

    for metric, higher in directions.items():
        rows = [row for row in scored if _has_metric(vectors[row], metric)]
        for group in _comparable(board, rows, metric):
            aggregate = aggregate_of(board[group[0]].first, metric, vectors[group[0]][0])
            if aggregate is None:
                continue
            pairs = len(group) * (len(group) - 1) // 2
            column = Column(
                [vectors[row] for row in group],
                metric,
                higher,
                aggregate,
                draws=max(DRAWS, DRAWS_PER_TEST * pairs),
            )
            entries = [board[row] for row in group]
            members = [statistics[row] for row in group]
            base = baseline_of(entries, baseline)
            _estimate_metric(members, column, base)
            if metric == primary:
                _test_rows(members, entries, column, base)
    return statistics


def _has_samples(vectors: Sequence[Vector]) -> bool:
    return bool(set(vectors[0].ids).intersection(*(scores.ids for scores in vectors[1:])))


def _has_metric(vectors: Sequence[Vector], metric: str) -> bool:
    return all(metric in scores.values.get(SCORER, {}) for scores in vectors)


def _comparable(board: Sequence[Entry], rows: Sequence[int], metric: str) -> list[list[int]]:
    """Group rows of one setting whose metric is by the same optional judge.

    Rows whose seeds had different judges are left out.
    """
    groups: dict[tuple[str, str | None], list[int]] = {}
    for row in rows:
        judges = {judge_of(run, metric) for run in board[row].runs}
        if len(judges) == 1:
            groups.setdefault((board[row].setting, judges.pop()), []).append(row)
    return list(groups.values())


def _estimate_metric(statistics: Sequence[RowStatistics], column: Column, base: int | None) -> None:
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

    pairs = {(a, b): column.compare(a, b) for a, b in combinations(range(count), 2)}
    controls = [(min(pair), max(pair)) for pair in twins.items()]

    # Rows against their own shuffled selves are a family of their own: whether a gain is personal
    # is one planned question per method, and its answer must not depend on the other rows.
    family = {}
    for keys in (controls, [key for key in pairs if key not in controls]):
        corrected = holm([pairs[key].p for key in keys])
        for key, p in zip(keys, corrected, strict=True):
            family[key] = pairs[key].gain.value, p

    best = set(leaders(0, count, family)) if count > 1 else set()
    trivial = next((row for row, entry in enumerate(entries) if _is_trivial(entry)), None)
    for row, beaten in enumerate(wins(count, family)):
        numbers = statistics[row]
        numbers.sample_set = digest(column.samples(row))[:8]
        numbers.seed_values = column.seeds(row)
        numbers.beats = [entries[loser].label for loser in beaten]
        numbers.leader = row in best
        numbers.tests = len(pairs) - len(controls)
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
            numbers.contrasts[role] = Contrast(
                comparison,
                corrected=family[key][1],
                over=entries[opponent].label,
            )


def baseline_of(entries: Sequence[Entry], name: str) -> int | None:
    """Find the row of that name, or else the only row of that method; None without one.

    Of rows that differ in seeds and samples alone, the one with most samples, then with most seeds.
    """
    matches = [row for row, entry in enumerate(entries) if name in (entry.name, entry.label)]
    if matches:
        return max(matches, key=lambda row: (entries[row].summary.n, len(entries[row].runs)))

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
    twins = [
        candidate
        for candidate, entry in enumerate(entries)
        if entry.summary.history == "shuffled"
        and entry.summary.method == summary.method
        and entry.summary.params == summary.params
    ]
    return max(twins, key=lambda twin: len(entries[twin].runs), default=None)
