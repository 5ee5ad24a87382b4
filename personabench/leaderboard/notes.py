"""Notes under a board: origin of the data, statistics in words, and peculiarities of its runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from personabench.api.compatibility import matrix
from personabench.api.registry import find_described, find_source_hash, list_entries
from personabench.leaderboard.estimates import ALPHA, MIN_USERS
from personabench.leaderboard.row import Row
from personabench.leaderboard.rows import Entry, is_imported, judge_of
from personabench.results.index import Run

# The folders of an absolute path, not those of an address.
_FOLDERS = re.compile(r"(?<![\w.:/\\])(?:/|[A-Za-z]:\\)(?:[^\s/\\]+[/\\])*(?=[^\s/\\])")
# A method that falls back on more samples than this is hardly measured at all.
MOSTLY = 0.5


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


def describe_data(runs: Sequence[Run], rows: Sequence[Row], newest: Sequence[Run]) -> list[str]:
    """Describe data, users, task options and samples of a board, and the runs it leaves out."""
    summary = runs[0].summary
    notes = [f"Data: {_shorten_paths(summary.source)} ({summary.data_hash[:8]})."]
    notes += _describe_users(newest[0])
    notes += _describe_options(newest)
    audits = dict.fromkeys(run.summary.audit for run in newest)
    notes += [f"Data: {audit}." for audit in audits if audit]

    sizes = {row.n for row in rows}
    sample_sets = {row.statistics.sample_set for row in rows} - {None}
    if len(sizes) > 1 or len(sample_sets) > 1:
        subject = "Rows have different n: they" if len(sizes) > 1 else "Rows"
        notes.append(
            f"{subject} do not score the same samples, and the order is of what each scored. Gains "
            "and tests use the samples of both rows."
        )

    older = len(runs) - len(newest)
    if older:
        notes.append(
            f"Left out: {older} older run(s) of the same names; `personabench list runs` has them."
        )
    published = [row.label for row in rows if row.published]
    if published:
        notes.append(f"Published results: {', '.join(published)}.")
    return notes


def _shorten_paths(source: str) -> str:
    """Drop the folders of absolute paths, which mean nothing on another machine."""
    return _FOLDERS.sub("", source)


def _describe_users(run: Run) -> list[str]:
    counts = run.summary.user_ids
    if not counts.get("joined") and not counts.get("single"):
        return []
    return [
        f"Users of the split: {counts['named']} named by the data, {counts['joined']} joined from "
        f"questions whose profiles coincide, {counts['single']} of one question."
    ]


def _describe_options(runs: Sequence[Run]) -> list[str]:
    """Name the task options that all runs share; labels leave them out."""
    options = [run.task_params for run in runs]
    shared = [
        f"{name}={value}"
        for name, value in options[0].items()
        if value not in (None, "") and all(params.get(name) == value for params in options)
    ]
    return [f"Task: {', '.join(shared)}."] if shared else []


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
                f"Frontier{_of_setting(setting, headings)}: scores on the {max(sizes)} samples "
                "that its rows share."
            )
        if excluded:
            notes.append(
                "Not on the frontier, too few samples in common with the others: "
                f"{', '.join(excluded)}."
            )
    return [Note([(note, "frontier")]) for note in notes]


def _of_setting(setting: str, headings: Mapping[str, str]) -> str:
    """Name a setting in a sentence, if the board has several."""
    return f" of {headings[setting]}" if len(headings) > 1 else ""


def describe_ranks(rows: Sequence[Row]) -> list[str]:
    """Name the rows without a rank, by reason."""
    letters: dict[str, list[str]] = {}
    for row in rows:
        if row.unranked:
            letters.setdefault(row.unranked, []).append(row.letter)
    if not letters:
        return []
    if [len(rows)] == [len(unranked) for unranked in letters.values()]:
        return [f"‡ No row is ranked: {next(iter(letters))}."]
    reasons = [f"{', '.join(unranked)} ({reason})" for reason, unranked in letters.items()]
    return [f"‡ Not ranked: {'; '.join(reasons)}."]


def describe_task(newest: Sequence[Run], rows: Sequence[Row], metrics: Iterable[str]) -> list[str]:
    """Describe the effects of a task whose code has changed or is not installed."""
    name = newest[0].summary.task
    sources = {run.task_hash for run in newest}
    installed = find_source_hash("task", name)
    notes = []
    if len(sources) > 1:
        notes.append(
            "The source of the task has changed between these runs: only rows of the same source "
            "are compared; repeat the commands of the others."
        )
    if installed == "installed" or sources == {installed}:
        return notes

    missing = [
        metric for metric in metrics if all(metric not in row.statistics.estimates for row in rows)
    ]
    effect = f", without interval and gain in {', '.join(missing)}" if missing else ""
    reason = f"{name} is not installed here"
    if installed:
        reason = f"--task FILE names another version of {name} than some"
    notes.append(f"From stored scores{effect}: {reason}; --task FILE names the file of a task.")
    return notes


def describe_suspicions(rows: Sequence[Row], entries: Sequence[Entry], baseline: str) -> list[str]:
    """Name what hints at a fault of server, prompts or reading, row by row."""
    notes = []
    for row, entry in zip(rows, entries, strict=True):
        clauses = [clause for run in entry.runs for clause in run.summary.suspicious]
        same = row.statistics.same_as_baseline
        if same is not None and not entry.is_rule:
            share, count = same
            clauses.append(f"{share:.0%} of {count} answers equal those of {baseline}")
        if clauses:
            notes.append(f"Suspicious: {row.label}: {'; '.join(dict.fromkeys(clauses))}.")
    return notes


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
                *_describe_seeds(rows),
            ]
        ),
    ]


def _describe_columns(rows: Sequence[Row], baseline: str, headings: Mapping[str, str]) -> Note:
    """Explain marks and columns of the statistics, and the tests behind them."""
    parts = []
    if any(row.estimate is not None and row.estimate.low is not None for row in rows):
        parts.append(
            ("±: half of a 95 % interval over users; [low, high]: one with unequal sides.", "")
        )
    has_gain = any(row.gain is not None and row.gain.gain.value is not None for row in rows)
    if has_gain:
        parts.append((f"Δ {baseline}: gain on the same samples.", "gain"))
        parts.append(("p: of that gain, corrected.", "gain_p"))
    elif len(rows) > 1:
        parts.append(
            (
                f"No single row '{baseline}' to measure gains against: run it or name another "
                "with --baseline.",
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
                f"Tests: sign-flip over users, Holm-corrected over {tests}; "
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
        where = _of_setting(setting, headings)
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


def describe_rules(
    rows: Sequence[Row], entries: Sequence[Entry], headings: Mapping[str, str]
) -> list[str]:
    """Name the best rule without a model and the methods that do not beat it, in each setting."""
    pairs = list(zip(rows, entries, strict=True))
    rules = {row.letter for row, entry in pairs if entry.is_rule}
    # Oracles see what neither a method nor a rule may.
    oracles = {row.letter for row, entry in pairs if entry.summary.privileged}
    if not rules:
        return [_suggest_rules(entries[0].summary.task)]

    notes = []
    own = [row for row in rows if row.history == "own" and row.scores.get(row.primary) is not None]
    for setting in headings:
        members = [row for row in own if row.setting == setting]
        # A row without a rank neither sets the bar nor falls short of it, unless none has a rank.
        members = [row for row in members if not row.unranked] or members
        # Rows are in order of rank.
        best = next((row for row in members if row.letter in rules), None)
        if best is not None:
            methods = [row for row in members if row.letter not in rules | oracles]
            lower = members[members.index(best) :]
            where = _of_setting(setting, headings)
            notes.append(_compare_to_rule(best, methods, lower, where))
    return notes


def _compare_to_rule(
    rule: Row,
    methods: Sequence[Row],
    lower: Sequence[Row],
    where: str,
) -> str:
    """Say which methods do not beat a rule; of rows without statistics those that rank lower."""
    behind, untold = [], []
    for row in methods:
        contrast = row.statistics.contrasts.get("trivial")
        gain = contrast.gain.value if contrast else None
        is_behind = row in lower if gain is None else gain <= 0
        if is_behind:
            behind.append(row.label)
        elif contrast is None or contrast.corrected is None or contrast.corrected > ALPHA:
            untold.append(row.label)

    note = f"Best rule without a model{where}: {rule.label} ({rule.scores[rule.primary]:.4f})."
    if behind:
        note += f" Do not beat it: {', '.join(behind)}."
    if untold:
        note += f" Ahead of it, but not significantly: {', '.join(untold)}."
    if methods and not behind and not untold:
        note += " Every method beats it significantly."
    return note


def _suggest_rules(task_name: str) -> str:
    note = "No rule without a model is among the rows, so none is shown to be beaten."
    task = find_described("task", task_name)
    if task is None:
        return note

    rules = [entry for entry in list_entries("method").values() if entry.facts.get("rule")]
    fair = [entry for entry in rules if not entry.facts.get("privileged")]
    fitting = [cell.method for cell in matrix(fair, [task]) if cell.fit != "refused"]
    return f"{note} Rules that run on {task_name}: {', '.join(fitting)}." if fitting else note


def describe_runs(entries: Sequence[Entry]) -> list[str]:
    """Describe peculiarities of single runs: fallbacks, missing samples, roles, oracles."""
    runs = [(entry.label_of(run), run) for entry in entries for run in entry.runs]
    notes = []
    for label, run in runs:
        notes += _describe_completeness(label, run)
    for role in ("simulator", "judge", "profiler"):
        notes += _describe_role(role, runs)
    for label, run in runs:
        notes += _describe_unjudged(label, run)

    notes += describe_differences(runs)
    privileged = dict.fromkeys(label for label, run in runs if run.summary.privileged)
    if privileged:
        notes.append(f"Oracle, sees what a method must not: {', '.join(privileged)}.")
    notes += dict.fromkeys(_describe_card(label, run) for label, run in runs if is_imported(run))
    return notes


def _describe_card(label: str, run: Run) -> str:
    """Say where imported answers come from; see `personabench.run.imported.Card`."""
    card = run.summary.provenance["card"]
    clauses = [f"model {card.get('model')}", f"trained on {card.get('trained_on')}"]
    clauses += [str(card[name]) for name in ("paper", "code", "note") if card.get(name)]
    return f"Imported, answers made elsewhere: {label}: {'; '.join(clauses)}."


def describe_differences(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """Say in which settings runs differ from the papers of their methods."""
    labels_by_differences: dict[str, dict[str, None]] = {}
    unexplained: dict[str, None] = {}
    for label, run in runs:
        differences = ", ".join(run.summary.differs)
        if differences:
            labels_by_differences.setdefault(differences, {})[label] = None
        elif run.summary.fit == "adapted":
            # Summaries of earlier versions do not say in which settings.
            unexplained[label] = None

    notes = [
        f"Not as in the paper: {', '.join(labels)}; differs in: {differences}."
        for differences, labels in labels_by_differences.items()
    ]
    if unexplained:
        notes.append(f"Adapted to a task its paper did not have: {', '.join(unexplained)}.")
    return notes


def _describe_completeness(label: str, run: Run) -> list[str]:
    summary = run.summary
    notes = []
    fallback = summary.counters.get("fallback")
    if fallback:
        share = fallback / max(summary.n, 1)
        warning = "Warning: " if share > MOSTLY else ""
        notes.append(f"{warning}{label}: fell back to another method on {share:.0%} of samples.")
    if not summary.complete:
        notes.append(f"{label}: {summary.owed} samples are owed; repeat its command.")
    return notes


def _describe_role(role: str, runs: Sequence[tuple[str, Run]]) -> list[str]:
    cast = [(label, run.summary.roles[role]) for label, run in runs if role in run.summary.roles]
    notes = []
    if cast:
        models = dict.fromkeys(model.model for _, model in cast)
        notes.append(f"{role.capitalize()}: {', '.join(models)}.")

    # A model that judges or simulates for itself may favour itself.
    shared = dict.fromkeys(label for label, model in cast if model.shared)
    if shared:
        notes.append(f"Warning: the {role} is the model under test itself: {', '.join(shared)}.")
    return notes


def _describe_unjudged(label: str, run: Run) -> list[str]:
    unjudged = run.summary.counters.get("unjudged")
    if not unjudged:
        return []
    metrics = [metric for metric in run.summary.higher_is_better if judge_of(run, metric)]
    return [
        f"{label}: {unjudged} answers are unjudged and have no {', '.join(metrics) or 'score'}."
    ]
