"""The statistics of a board's rows: intervals, gains over the baseline, and tests.

Only rows of one setting (same task, data, model, decoding) are compared. Their tests on the primary
metric are two families for Holm's correction: rows against each other, and rows against the same
method with shuffled histories.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations

from personabench.hashing import digest
from personabench.leaderboard.column import (
    Column,
    aggregate_of,
    check_summary,
    cluster_of,
    count_samples,
    count_subset,
    without_samples,
)
from personabench.leaderboard.estimates import Contrast, Opponent, RowStatistics
from personabench.leaderboard.mask import Mask
from personabench.leaderboard.ranking import COMMON_SHARE
from personabench.leaderboard.rows import Entry, judge_of, lacks_donors, metric_directions
from personabench.leaderboard.stats import holm, leaders, letters, wins
from personabench.leaderboard.stats.scores import DRAWS
from personabench.results.index import SCORER
from personabench.results.published import Vector, vector

# With so many draws per test of a family a p-value can still pass Holm's correction: 1/50 < 5 %.
DRAWS_PER_TEST = 50

# Rows x draws. With more rows than about 110, tests between all of them would need more draws than
# that, and minutes.
MOST_DRAWN = 1 << 25

# Answers of free text that may equal the baseline's, and the fewest answers that show anything.
SAME_TEXTS = 0.8
FEWEST_ANSWERS = 5
FEWEST_DRAWS = 1000


def tabulate(
    board: Sequence[Entry],
    baseline: str,
    thorough: bool,
    mask: Mask | None = None,
) -> list[RowStatistics]:
    """Compute the statistics of a board's rows, which come in the order of rank.

    Args:
        baseline: the name of the row that gains are measured against, in each setting.
        thorough: intervals for all metrics, not for the primary one only.
        mask: samples that audited estimates leave out.

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

            for row in group:
                for seed, values in zip(board[row].runs, vectors[row], strict=True):
                    check_summary(seed, metric, values, aggregate)

            draws, all_pairs = choose_draws(len(group))
            column = Column(
                [vectors[row] for row in group],
                metric,
                higher,
                aggregate,
                draws=draws,
                cluster=cluster_of(run, metric, scores),
            )

            entries = [board[row] for row in group]
            members = [statistics[row] for row in group]
            base = baseline_of(entries, baseline)
            _estimate_metric(members, column, base)
            for row, numbers in zip(group, members, strict=True):
                size = count_subset(board[row].first, metric, vectors[row][0])
                if size is not None:
                    numbers.counted[metric] = size
            if mask is not None:
                _estimate_audited(members, entries, [vectors[row] for row in group], column, mask)
            if metric == primary:
                _test_rows(members, entries, column, base, all_pairs)
                if base is not None:
                    _find_same_answers(members, [vectors[row][0] for row in group], base)
    return statistics


def _find_same_answers(
    statistics: Sequence[RowStatistics], vectors: Sequence[Vector], base: int
) -> None:
    """Note the rows whose answers are suspiciously often those of the baseline."""
    baseline = _answers(vectors[base])
    for row, numbers in enumerate(statistics):
        answers = _answers(vectors[row])
        shared = answers.keys() & baseline.keys()
        if row == base or len(shared) < FEWEST_ANSWERS:
            continue
        share = sum(answers[sample] == baseline[sample] for sample in shared) / len(shared)
        # Labels agree by chance, so only a row that never differs is suspicious.
        is_free = len(set(baseline.values())) >= len(baseline) / 2
        if share >= (SAME_TEXTS if is_free else 1.0):
            numbers.same_as_baseline = share, len(shared)


def _answers(scores: Vector) -> dict[str, str]:
    """The hashes of a row's answers by sample; empty if they are not known."""
    hashes = scores.answers or ()
    return {sample: answer for sample, answer in zip(scores.ids, hashes, strict=False) if answer}


def choose_draws(rows: int) -> tuple[int, bool]:
    """Choose the number of draws for a table, and whether all its rows are tested in pairs.

    A larger table would take too long for that many tests; its rows are tested against the
    baseline, the best rule and their shuffled selves only.
    """
    pairs = rows * (rows - 1) // 2
    draws = max(DRAWS, DRAWS_PER_TEST * pairs)
    if draws * rows <= MOST_DRAWN:
        return draws, True
    draws = max(DRAWS, DRAWS_PER_TEST * 2 * rows)
    return max(FEWEST_DRAWS, min(draws, MOST_DRAWN // rows)), False


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
    aligned = column.align(COMMON_SHARE)
    for row, numbers in enumerate(statistics):
        numbers.aligned[column.name] = aligned[row]
        numbers.estimates[column.name] = column.estimate(row)
        if base is not None and row != base:
            numbers.gains[column.name] = column.gain(row, base)


def _estimate_audited(
    statistics: Sequence[RowStatistics],
    entries: Sequence[Entry],
    vectors: Sequence[Sequence[Vector]],
    column: Column,
    mask: Mask,
) -> None:
    """Fill in the estimates of one metric without the samples of a mask."""
    masked = mask.hashed_ids(entries[0].summary.task)
    remaining = [[without_samples(seed, masked) for seed in seeds] for seeds in vectors]
    audited = column.over(remaining)
    for row, numbers in enumerate(statistics):
        run = entries[row].first
        estimate = audited.estimate(row)
        count = count_samples(run, column.name, remaining[row][0])
        numbers.mask = mask.label
        numbers.audited[column.name] = dataclasses.replace(estimate, n=count)
        numbers.counted[column.name] = count_samples(run, column.name, vectors[row][0])


def _test_rows(
    statistics: Sequence[RowStatistics],
    entries: Sequence[Entry],
    column: Column,
    base: int | None,
    all_pairs: bool,
) -> None:
    """Fill in all tests of one setting on the primary metric."""
    count = len(entries)
    twins = _find_shuffled_twins(entries)
    trivial_rows = [row for row, entry in enumerate(entries) if _is_trivial(entry)]
    trivial = trivial_rows[0] if trivial_rows else None

    controls = [_in_order(row, twin) for row, twin in twins.items()]
    pairs = list(combinations(range(count), 2))
    if not all_pairs:
        rivals = [row for row in (base, trivial) if row is not None]
        planned = {_in_order(row, rival) for rival in rivals for row in range(count)}
        pairs = sorted({*planned, *controls} - {(row, row) for row in rivals})
    tests = column.tests(pairs)
    control_pairs = set(controls)
    contests = [pair for pair in pairs if pair not in control_pairs]

    # Rows against their own shuffled selves are a family of their own: whether a gain is personal
    # is one planned question per method, and its answer must not depend on the other rows.
    family = {}
    for keys in (controls, contests):
        corrected = holm([tests[key][1] for key in keys])
        for key, p in zip(keys, corrected, strict=True):
            family[key] = tests[key][0], p

    # A row without rivals leads nothing, nor does one without a rank.
    ranked = {row for row, entry in enumerate(entries) if not entry.unranked}
    best = set()
    if len(ranked) > 1 and all_pairs:
        best = ranked.intersection(leaders(min(ranked), count, family))
    for row, beaten in enumerate(wins(count, family)):
        numbers = statistics[row]
        numbers.sample_set = digest(column.samples(row))[:8]
        numbers.seed_values = column.seeds(row)
        numbers.beats = [entries[loser].label for loser in beaten]
        numbers.leader = row in best
        numbers.tests = len(contests)
        numbers.controls = len(controls)
        numbers.draws = column.draws
        numbers.all_pairs = all_pairs

        opponents: dict[Opponent, int | None] = {
            "baseline": base,
            "shuffled": twins.get(row),
            "trivial": None if _is_trivial(entries[row]) else trivial,
        }
        for role, opponent in opponents.items():
            if opponent is None or opponent == row:
                continue
            _, corrected_p = family[_in_order(row, opponent)]
            numbers.contrasts[role] = Contrast(
                column.compare(row, opponent),
                corrected=corrected_p,
                over=entries[opponent].label,
            )


def _in_order(a: int, b: int) -> tuple[int, int]:
    """A pair as the key of its test, which has no direction."""
    return min(a, b), max(a, b)


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


def _find_shuffled_twins(entries: Sequence[Entry]) -> dict[int, int]:
    """Find for rows the same method and parameters with another user's history.

    If there are several, the one with most seeds. A run that got nobody's records is no control.
    """
    twins: dict[str, int] = {}
    own: list[tuple[int, str]] = []
    for row, entry in enumerate(entries):
        summary = entry.summary
        key = digest([summary.method, summary.params])
        if summary.history == "own":
            own.append((row, key))
        elif summary.history == "shuffled" and not lacks_donors(entry):
            twin = twins.setdefault(key, row)
            if len(entry.runs) > len(entries[twin].runs):
                twins[key] = row
    return {row: twins[key] for row, key in own if key in twins}
