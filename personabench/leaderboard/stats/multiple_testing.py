"""What becomes of the tests of one table together: corrected p-values, marks of significant wins, tied leaders.

A test that could not be made (None) is no evidence of a difference: it stays in the family, as planned before the
data were seen, wins nothing and ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from personabench.leaderboard.estimates import ALPHA


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of one family of tests; None stays None and counts as a member.

    Rejecting where the result is at most α keeps the chance of any false rejection in the family at α, whatever the
    dependence between tests.  Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    corrected: list[float | None] = [None] * len(p_values)
    made = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    floor = 0.0
    for rank, (p, at) in enumerate(made):
        floor = max(floor, min(1.0, p * (len(p_values) - rank)))
        corrected[at] = floor
    return corrected


def letters(rows: int) -> list[str]:
    """Names of a table's rows: a … z, aa, ab …"""
    names = []
    for number in range(1, rows + 1):
        name = ""
        while number:
            number, digit = divmod(number - 1, 26)
            name = chr(ord("a") + digit) + name
        names.append(name)
    return names


Pairs = Mapping[tuple[int, int], tuple[float | None, float | None]]


def wins(rows: int, pairs: Pairs, alpha: float = ALPHA) -> list[list[int]]:
    """For each row, in order, the rows that it beats significantly: whose letters it carries as superscripts.

    `pairs` maps (a, b) to the gain of a over b and its corrected p-value; each pair once, in either order.
    """
    beaten: list[list[int]] = [[] for _ in range(rows)]
    for (a, b), (gain, p) in pairs.items():
        if gain and p is not None and p <= alpha:
            winner, loser = (a, b) if gain > 0 else (b, a)
            beaten[winner].append(loser)
    return [sorted(each) for each in beaten]


def leaders(best: int, rows: int, pairs: Pairs, alpha: float = ALPHA) -> list[int]:
    """The row with the best score and all rows that it does not beat significantly, in order.

    Ties are not transitive, so this groups rows with the leader only; it does not rank the rest.
    """
    beaten = set(wins(rows, pairs, alpha)[best])
    return [row for row in range(rows) if row not in beaten]
