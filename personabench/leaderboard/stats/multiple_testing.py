"""All tests of one table: corrected p-values, marks of significant wins, tied leaders.

A test that could not be computed (None) is not evidence of a difference: it stays in the family, as
planned before the data were seen, wins nothing and ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from personabench.leaderboard.estimates import ALPHA

Pairs = Mapping[tuple[int, int], tuple[float | None, float | None]]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of one family of tests; None stays None and counts as a member.

    Rejecting if the result is at most α keeps the chance of any false rejection in the family at α,
    whatever the dependence between tests.  Source: Holm, "A Simple Sequentially Rejective Multiple
    Test Procedure", 1979.
    """
    computed = []
    for index, p in enumerate(p_values):
        if p is not None:
            computed.append((p, index))
    computed.sort()

    corrected: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, index) in enumerate(computed):
        # The running maximum keeps a larger p-value from ending up below a smaller one.
        remaining_tests = len(p_values) - rank
        floor = max(floor, min(1.0, p * remaining_tests))
        corrected[index] = floor
    return corrected


def letters(rows: int) -> list[str]:
    """Names of a table's rows: a … z, aa, ab …"""
    labels = []
    for number in range(1, rows + 1):
        label = ""
        while number:
            # Digits run from 1 to 26, without a zero, hence the 1 that is subtracted.
            number, digit = divmod(number - 1, 26)
            label = chr(ord("a") + digit) + label
        labels.append(label)
    return labels


def wins(
    rows: int,
    pairs: Pairs,
    alpha: float = ALPHA,
) -> list[list[int]]:
    """For each row, the rows that it beats significantly, in order; a table marks their letters.

    `pairs` maps (a, b) to the gain of a over b and its corrected p-value; each pair once, in either
    order.
    """
    beaten: list[list[int]] = [[] for _ in range(rows)]
    for (a, b), (gain, p) in pairs.items():
        if not gain or p is None or p > alpha:
            continue
        winner, loser = (a, b) if gain > 0 else (b, a)
        beaten[winner].append(loser)
    return [sorted(losers) for losers in beaten]


def leaders(
    best: int,
    rows: int,
    pairs: Pairs,
    alpha: float = ALPHA,
) -> list[int]:
    """The row with the best score and all rows that it does not beat significantly, in order.

    Ties are not transitive, so this groups rows with the leader only; it does not rank the rest.
    """
    beaten = set(wins(rows, pairs, alpha)[best])
    return [row for row in range(rows) if row not in beaten]
