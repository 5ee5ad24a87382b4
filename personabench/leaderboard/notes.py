"""Notes under a board: origin of the data, statistics in words, and peculiarities of its runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from personabench.api.compatibility import matrix
from personabench.api.registry import find_described, find_source_hash, list_entries
from personabench.leaderboard.estimates import ALPHA
from personabench.leaderboard.row import Row
from personabench.leaderboard.rows import Entry, is_imported, judge_of, lacks_donors
from personabench.leaderboard.statistics_notes import of_setting
from personabench.results.index import Run

if TYPE_CHECKING:
    from personabench.leaderboard.mask import Mask
    from personabench.results.panels import StoredPanel

# The folders of an absolute path, not those of an address.
_FOLDERS = re.compile(r"(?<![\w.:/\\])(?:/|[A-Za-z]:\\)(?:[^\s/\\]+[/\\])*(?=[^\s/\\])")
# The metric that counts the records that a model saw.
SHOWN = "records-shown"
# A method that falls back on more samples than this is hardly measured at all.
MOSTLY = 0.5


def describe_data(runs: Sequence[Run], rows: Sequence[Row], newest: Sequence[Run]) -> list[str]:
    """Describe data, users, task options and samples of a board, and the runs it leaves out."""
    summary = runs[0].summary
    notes = [f"Data: {_shorten_paths(summary.source)} ({summary.data_hash[:8]})."]
    notes += _describe_users(newest[0])
    notes += _describe_selection(newest)
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


def _describe_selection(runs: Sequence[Run]) -> list[str]:
    chosen = [run for run in runs if run.summary.selection]
    if not chosen:
        return []
    rows = "" if len(chosen) == len(runs) else f" of {len(chosen)} of {len(runs)} runs"
    return [f"Users{rows}: those with the longest histories of the split, no random draw."]


def _describe_options(runs: Sequence[Run]) -> list[str]:
    """Name the task options that all runs share; labels leave them out."""
    options = [run.task_params for run in runs]
    shared = [
        f"{name}={value}"
        for name, value in options[0].items()
        if value not in (None, "") and all(params.get(name) == value for params in options)
    ]
    return [f"Task: {', '.join(shared)}."] if shared else []


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
        clauses += _find_missing_donors(entry)
        same = row.statistics.same_as_baseline
        if same is not None and not entry.is_rule:
            share, count = same
            clauses.append(f"{share:.0%} of {count} answers equal those of {baseline}")
        if clauses:
            notes.append(f"Suspicious: {row.label}: {'; '.join(dict.fromkeys(clauses))}.")
    return notes


def _find_missing_donors(entry: Entry) -> list[str]:
    """Say on how many samples a control had no other user's history to show."""
    missing = sum(run.summary.counters.get("no_donor", 0) for run in entry.runs)
    if not missing:
        return []
    count = sum(run.summary.n for run in entry.runs)
    effect = "; no gain is measured against it" if lacks_donors(entry) else ""
    return [
        f"{missing:g} of {count} samples got no other user's records, because those share some "
        f"with the user's own or are newer than the question{effect}"
    ]


def describe_mask(rows: Sequence[Row], mask: Mask | None) -> list[str]:
    """State the mask of audited scores, and over how many samples they are."""
    audited = [row for row in rows if row.primary in row.statistics.audited]
    if mask is None or not audited:
        return []
    sizes = [
        f"{row.statistics.audited[row.primary].n:,} of {row.statistics.counted[row.primary]:,}"
        for row in audited
    ]
    over = " or ".join(dict.fromkeys(sizes))
    return [
        f"Mask: {mask.name} ({mask.label}). audited: {audited[0].primary} without its samples, "
        f"over {over}; the score beside it is over all."
    ]


class RankChange(NamedTuple):
    """A stored panel of judges, and the labels of rows whose rank differs among its judges."""

    panel: StoredPanel
    labels: Sequence[str]


def describe_rank_changes(changes: Sequence[RankChange]) -> list[str]:
    """Say which rows have another rank under another judge or prompt."""
    notes = []
    for panel, labels in changes:
        judges = ", ".join(panel.judges)
        if labels:
            notes.append(
                f"‡ {', '.join(labels)}: another rank in {panel.metric} under another judge or "
                f"prompt (judge panel of {panel.time[:10]}: {judges})."
            )
        else:
            notes.append(
                f"Ranks in {panel.metric} are the same under every judge of the panel of "
                f"{panel.time[:10]}: {judges}."
            )
    return notes


def describe_bound(rows: Sequence[Row], entries: Sequence[Entry]) -> list[str]:
    """Name the rows that saw no history, on data whose answers are in the history.

    Whatever such a row reaches comes from the question or from the model's training.
    """
    bounds = []
    for row, entry in zip(rows, entries, strict=True):
        score = row.scores.get(row.primary)
        # Only samples whose evidence is marked have this metric.
        is_blind = row.scores.get(SHOWN) == 0
        if is_blind and score is not None and not (entry.is_rule or entry.summary.privileged):
            bounds.append(f"{row.label} ({score:.4f})")
    if not bounds:
        return []
    return [
        f"Contamination bound: {', '.join(bounds)} saw no record of the history, which holds the "
        "answers. A memory is worth what it adds to this."
    ]


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
    own_rows = [
        row for row in rows if row.history == "own" and row.scores.get(row.primary) is not None
    ]
    for setting in headings:
        members = [row for row in own_rows if row.setting == setting]
        # A row without a rank neither sets the bar nor falls short of it, unless none has a rank.
        members = [row for row in members if not row.unranked] or members
        # Rows are in order of rank.
        best = next((row for row in members if row.letter in rules), None)
        if best is not None:
            methods = [row for row in members if row.letter not in rules | oracles]
            lower = members[members.index(best) :]
            where = of_setting(setting, headings)
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
    notes += dict.fromkeys(
        _describe_training(label, run)
        for label, run in runs
        if "training" in run.summary.provenance
    )
    return notes


def _describe_training(label: str, run: Run) -> str:
    """State the training data of rows and the cost of adapters; see `personabench.run.training`."""
    facts = run.summary.provenance["training"]
    clauses = []
    if facts["corpus_samples"]:
        clauses.append(
            f"the task on {facts['corpus_samples']:,} samples of {facts['corpus_users']:,} other "
            "users"
        )
    adapters = facts["users"] - facts["without_adapter"]
    if adapters:
        clauses.append(
            f"{adapters:,} users on {facts['records']:,.1f} records each: {facts['parameters']:,} "
            f"parameters, {facts['bytes'] / 1e6:.2f} MB and {facts['seconds_mean']:,.1f} s per "
            f"user (95th percentile {facts['seconds_p95']:,.1f} s)"
        )
    if facts["without_adapter"]:
        clauses.append(f"{facts['without_adapter']:,} users have no adapter")
    return f"Trained: {label}: {'; '.join(clauses) or 'nothing'}."


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
        notes.append(f"{label}: {summary.debt}; repeat its command.")
    return notes


def _describe_role(role: str, runs: Sequence[tuple[str, Run]]) -> list[str]:
    cast = [(label, run.summary.roles[role]) for label, run in runs if role in run.summary.roles]
    notes = []
    if role == "judge" and cast:
        judges = dict.fromkeys(
            run.summary.judged_by or run.summary.roles[role].model
            for _, run in runs
            if role in run.summary.roles
        )
        notes.append(f"Judge: {'; '.join(judges)}.")
    elif cast:
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
    primary = run.summary.primary
    if primary in metrics:
        missing = f"no score, since {primary} ranks"
    else:
        missing = f"no {', '.join(metrics) or 'score'}"
    return [f"{label}: {unjudged} answers are unjudged and have {missing}."]
