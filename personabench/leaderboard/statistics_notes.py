"""Notes on the statistics of a board: what its columns mean, its tests, its ranks and intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from personabench.leaderboard.estimates import ALPHA, FEW_USERS, MIN_USERS, name_units
from personabench.leaderboard.row import Row


@dataclass(frozen=True)
class Note:
    """A line under a board.

    Attributes:
        parts: sentences, each with the column that it explains, without which it is left out;
            empty for one that always stands.
    """

    parts: Sequence[tuple[str, str]]

    def text(self, columns: Collection[str]) -> str:
        """The sentences that stand under a table with some columns."""
        sentences = [text for text, column in self.parts if not column or column in columns]
        return " ".join(sentences)


def plain(texts: Iterable[str]) -> list[Note]:
    """Notes that stand under every table."""
    return [Note([(text, "")]) for text in texts]


def describe_statistics(
    rows: Sequence[Row], baseline: str, headings: Mapping[str, str]
) -> list[Note]:
    """Describe intervals, tests, controls and seeds of a board.

    Args:
        headings: the settings of the board and their names.
    """
    return [
        _describe_columns(rows, baseline, headings),
        *describe_frontier(rows, headings),
        *plain(
            [
                *_describe_untested(rows, baseline),
                *_describe_leaders(rows, headings),
                *_describe_controls(rows),
                *_describe_missing_intervals(rows),
                *_describe_few_users(rows),
                *_describe_seeds(rows),
            ]
        ),
    ]


def _describe_columns(rows: Sequence[Row], baseline: str, headings: Mapping[str, str]) -> Note:
    """Explain marks and columns of the statistics, and the tests behind them."""
    parts = []
    units = name_units(row.estimate for row in rows)
    if any(row.estimate is not None and row.estimate.low is not None for row in rows):
        parts.append(
            (f"±: half of a 95 % interval over {units}; [low, high]: one with unequal sides.", "")
        )
    has_gain = any(row.gain is not None and row.gain.gain.value is not None for row in rows)
    if has_gain:
        parts.append((f"Δ {baseline}: gain on the same samples.", "gain"))
        parts.append(("p: of that gain, corrected.", "gain_p"))
    elif len(rows) > 1:
        parts.append(
            (
                f"No single row '{baseline}' is among these to measure gains against: "
                "`personabench leaderboard` has all runs, and --baseline names another row.",
                "",
            )
        )
    if any(row.statistics.beats for row in rows):
        parts.append((f"Superscripts: rows beaten at p ≤ {ALPHA}.", ""))

    tests = _count_tests(rows, headings)
    if tests:
        draws = max(row.statistics.draws for row in rows)
        parts.append(
            (
                f"Tests: sign-flip over {units}, Holm-corrected over {tests}; "
                f"{draws:,} draws, seed 0.",
                "",
            )
        )
    return Note(parts)


def _count_tests(rows: Sequence[Row], headings: Mapping[str, str]) -> str:
    """The sizes of the families of tests in words, by setting; empty without any test."""
    sizes: dict[str, list[str]] = {}
    for setting, heading in headings.items():
        members = [row.statistics for row in rows if row.setting == setting]
        tests = max(numbers.tests for numbers in members)
        controls = max(numbers.controls for numbers in members)
        parts = [f"{tests} pair{'s' * (tests > 1)}"] if tests else []
        if controls:
            apart = "apart from these, " if tests else ""
            parts.append(f"{apart}{controls} of own against shuffled histories")
        if parts:
            sizes.setdefault(" and, ".join(parts), []).append(heading)

    if len(sizes) < 2:
        total = "".join(sizes)
        return f"{total}, in each setting" if total and len(headings) > 1 else total
    return "; ".join(f"{size} ({', '.join(names)})" for size, names in sizes.items())


def _describe_untested(rows: Sequence[Row], baseline: str) -> list[str]:
    count = sum(not row.statistics.all_pairs for row in rows)
    if not count:
        return []
    tests = count * (count - 1) // 2
    return [
        f"{count} rows are too many to correct for all {tests:,} tests between them: only those "
        f"against '{baseline}', the best rule and shuffled histories are made, and no lead is "
        "tested. A results folder with fewer of the runs has them all."
    ]


def _describe_leaders(rows: Sequence[Row], headings: Mapping[str, str]) -> list[str]:
    """Name the rows that the best of their setting does not beat."""
    notes = []
    open_settings = []
    contested = 0
    for setting in headings:
        members = [row for row in rows if row.setting == setting and row.leader is not None]
        ranked = [row for row in members if not row.unranked]
        best = [row.letter for row in ranked if row.leader]
        contested += len(ranked) > 1
        if 1 < len(best) < len(ranked):
            first, *others = best
            notes.append(f"Not significantly behind {first}: {', '.join(others)}.")
        elif len(best) == len(ranked) > 1:
            open_settings.append(setting)

    if open_settings and len(open_settings) == contested:
        every = " of its setting" if len(headings) > 1 else ""
        return [*notes, f"No row is significantly behind the best{every}."]
    for setting in open_settings:
        where = of_setting(setting, headings)
        notes.append(f"No row{where} is significantly behind the best.")
    return notes


def _describe_controls(rows: Sequence[Row]) -> list[str]:
    doubtful = [row.label for row in rows if row.personal is False]
    if not doubtful:
        return []
    return [
        f"† {', '.join(doubtful)}: no significant gain over the same with another user's history, "
        "so it is not shown to be personal."
    ]


def _describe_missing_intervals(rows: Sequence[Row]) -> list[str]:
    letters: dict[str, list[str]] = {}
    for row in rows:
        # Why rows of few users have none is in the note on ranks.
        if row.estimate is not None and row.estimate.reason and row.users >= MIN_USERS:
            letters.setdefault(row.estimate.reason, []).append(row.letter)

    notes = []
    for reason, affected in letters.items():
        rows_named = "" if len(affected) == len(rows) else f" for {', '.join(affected)}"
        notes.append(f"No interval{rows_named}: {reason}.")
    return notes


def _describe_few_users(rows: Sequence[Row]) -> list[str]:
    """Warn of intervals that a handful of users carry, however many samples there are."""
    estimates = [
        row.estimate
        for row in rows
        if row.estimate is not None
        and row.estimate.low is not None
        and row.estimate.users <= FEW_USERS
    ]
    if not estimates:
        return []
    fewest = min(estimate.users for estimate in estimates)
    return [
        f"Only {fewest} {name_units(estimates)} carry the intervals and tests, which therefore "
        "miss small gains: `personabench compare` prints the smallest one that they would find."
    ]


def _describe_seeds(rows: Sequence[Row]) -> list[str]:
    notes = []
    for row in rows:
        if row.seed_sd is not None:
            seeds = ", ".join(map(str, row.seeds))
            notes.append(
                f"{row.label}: mean of seeds {seeds}; standard deviation over seeds "
                f"{row.seed_sd:.4f}."
            )
    return notes


def describe_frontier(rows: Sequence[Row], headings: Mapping[str, str]) -> list[Note]:
    """Name the samples of the frontier, if they are not those of each row."""
    notes = []
    for setting in headings:
        members = [
            row
            for row in rows
            if row.setting == setting
            and row.history == "own"
            and not row.unranked
            and row.estimate
            and row.estimate.n
        ]
        sizes = set()
        excluded = []
        for row in members:
            estimate = row.estimate
            aligned = row.statistics.aligned[row.primary]
            if aligned is None or aligned.value is None:
                excluded.append(row.letter)
            if aligned is not None and estimate is not None and aligned.n != estimate.n:
                sizes.add(aligned.n)
        if sizes:
            notes.append(
                f"Frontier{of_setting(setting, headings)}: scores on the {max(sizes)} samples "
                "that its rows share."
            )
        if excluded:
            notes.append(
                "Not on the frontier, too few samples in common with the others: "
                f"{', '.join(excluded)}."
            )
    return [Note([(note, "frontier")]) for note in notes]


def describe_ranks(rows: Sequence[Row]) -> list[str]:
    """Name the rows without a rank, by reason."""
    letters: dict[str, list[str]] = {}
    for row in rows:
        if row.unranked:
            letters.setdefault(row.unranked, []).append(row.letter)
    if not letters:
        return []
    if [len(rows)] == [len(unranked) for unranked in letters.values()]:
        return [f"§ No row is ranked: {next(iter(letters))}."]
    reasons = [f"{', '.join(unranked)} ({reason})" for reason, unranked in letters.items()]
    return [f"§ Not ranked: {'; '.join(reasons)}."]


def of_setting(setting: str, headings: Mapping[str, str]) -> str:
    """Name a setting in a sentence, if the board has several."""
    return f" of {headings[setting]}" if len(headings) > 1 else ""
