"""Boards: tables of comparable runs, with statistics, controls, costs and notes.

Statistics need numpy and some time, and leaderboards are printed often. Statistics are therefore
stored under `results/statistics`, named after their inputs, and looked up before anything heavy is
imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec

from personabench.api.registry import find_source_hash
from personabench.hashing import digest
from personabench.leaderboard.costs import Prices, costs
from personabench.leaderboard.estimates import ALPHA, RowStatistics
from personabench.leaderboard.memory_notes import describe_memories
from personabench.leaderboard.notes import (
    RankChange,
    describe_bound,
    describe_data,
    describe_mask,
    describe_rank_changes,
    describe_rules,
    describe_runs,
    describe_suspicions,
    describe_task,
)
from personabench.leaderboard.ranking import rank
from personabench.leaderboard.row import Row, frontier
from personabench.leaderboard.rows import (
    Entry,
    collect_entries,
    judge_of,
    metric_directions,
    silent,
)
from personabench.leaderboard.statistics_notes import (
    Note,
    describe_ranks,
    describe_statistics,
    plain,
)
from personabench.leaderboard.training_figures import TRAINING, training_figures
from personabench.results.files import replace_bytes
from personabench.results.index import SCORER, Run
from personabench.results.panels import read_panels

if TYPE_CHECKING:
    from personabench.leaderboard.mask import Mask
    from personabench.results.panels import StoredPanel

# Columns of words, aligned to the left.
WORDS = ("letter", "label", "model", "trained_on")

BASELINE = "none"

# Of stored statistics; a change of their content or meaning needs a new one.
_VERSION = 13

# Number of stored statistics to keep; older files are deleted.
_STORED = 200


@dataclass(frozen=True)
class Board:
    """One table.

    Attributes:
        title: task, separation and split.
        columns: names and headings of the columns to show, in order.
        all_columns: those of `--wide`.
        rows: setting by setting, each best first, with rows that do not rank at its end; they have
            more columns than `columns` shows.
        settings: the names of the settings, in order: the model, and what else tells one from the
            others.
        all_notes: origin of the data, what columns mean, and anything that keeps rows from being
            comparable.
        primary: the metric that ranks; higher_is_better: its direction.
        baseline: name of the row that gains are measured against.
        judges: model, options and version of the prompt of each judge behind scores.
        entries: the runs behind the rows, in the same order.
    """

    title: str
    columns: Mapping[str, str]
    all_columns: Mapping[str, str]
    rows: Sequence[Row]
    settings: Mapping[str, str] = field(default_factory=dict)
    all_notes: Sequence[Note] = ()
    primary: str = ""
    higher_is_better: bool = True
    baseline: str = BASELINE
    judges: Sequence[str] = ()
    entries: Sequence[Entry] = ()

    @property
    def notes(self) -> list[str]:
        """The notes of a table with all columns."""
        return self.list_notes(self.all_columns)

    def list_notes(self, columns: Collection[str]) -> list[str]:
        """The notes of a table with some columns: no other column is explained."""
        texts = [note.text(columns) for note in self.all_notes]
        return [text for text in texts if text]

    def members(self, setting: str) -> list[Row]:
        """The rows of a setting, in order."""
        return [row for row in self.rows if row.setting == setting]

    @property
    def heading(self) -> str:
        """The title, with the judge that the scores are by."""
        if not self.judges:
            return self.title
        noun = "judge" if len(self.judges) == 1 else "judges"
        return f"{self.title} · {noun} {'; '.join(self.judges)}"


@dataclass(frozen=True)
class BoardOptions:
    """Options of boards.

    Attributes:
        baseline: name of the row that gains are measured against.
        thorough: intervals for every metric, not for the primary one only.
        prices, queries: as in `costs`.
        mask: samples that a second, audited score leaves out; None for none.
        results: the folder that stores statistics; None stores none.
    """

    baseline: str = BASELINE
    thorough: bool = False
    prices: Prices | None = None
    queries: float | None = None
    mask: Mask | None = None
    results: Path | None = None


def boards(
    runs: Iterable[Run], task: str | None = None, options: BoardOptions = BoardOptions()
) -> list[Board]:
    """Make boards of runs, one per task, separation, split and data.

    Raises:
        DataError: a run's files are damaged; the message names the file.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        summary = run.summary
        if task in (None, summary.task):
            key = (summary.task, summary.separation, summary.split, summary.data_hash)
            groups.setdefault(key, []).append(run)
    return [_make_board(group, options) for _, group in sorted(groups.items())]


def _make_board(runs: Sequence[Run], options: BoardOptions) -> Board:
    summary = runs[0].summary
    primary = summary.primary
    directions = metric_directions(runs)
    higher = directions[primary]

    def score(entry: Entry) -> float | None:
        return _mean_over_seeds(entry, SCORER, primary)

    groups = rank(collect_entries(runs), score, higher)
    headings = {group.setting: group.heading for group in groups}
    ranked = [entry for group in groups for entry in group.entries]
    statistics = tabulate_or_load(ranked, options)
    hidden = silent(runs)
    rows = [
        _make_row(entry, numbers, directions, hidden, options)
        for entry, numbers in zip(ranked, statistics, strict=True)
    ]
    rows = [
        dataclasses.replace(row, frontier=best)
        for row, best in zip(rows, frontier(rows, higher), strict=True)
    ]

    panels = read_panels(options.results)
    rows, changes = mark_rank_changes(rows, ranked, panels)

    has_statistics = any(numbers.estimates for numbers in statistics)
    columns = _choose_columns(rows, runs, directions, options.baseline, has_statistics)
    newest = [run for entry in ranked for run in entry.runs]
    metrics = directions if options.thorough else [primary]
    notes = plain(
        [
            *describe_suspicions(rows, ranked, options.baseline),
            *describe_data(runs, rows, newest),
            *describe_task(newest, rows, metrics),
        ]
    )
    if has_statistics:
        notes += describe_statistics(rows, options.baseline, headings)
        notes += plain(describe_mask(rows, options.mask))
    notes += plain(
        [
            *describe_ranks(rows),
            *describe_rules(rows, ranked, headings),
            *describe_bound(rows, ranked),
            *describe_rank_changes(changes),
            *describe_memories(rows),
            *describe_runs(ranked),
        ]
    )

    return Board(
        title=summary.title,
        columns={name: heading for name, heading in columns.items() if name not in ONLY_WIDE},
        all_columns=columns,
        rows=rows,
        settings=headings,
        all_notes=notes,
        primary=primary,
        higher_is_better=higher,
        baseline=options.baseline,
        judges=list(dict.fromkeys(filter(None, (run.summary.judged_by for run in newest)))),
        entries=ranked,
    )


def mark_rank_changes(
    rows: Sequence[Row], entries: Sequence[Entry], panels: Sequence[StoredPanel]
) -> tuple[list[Row], list[RankChange]]:
    """Mark the rows that have another rank under another judge or prompt of a stored panel.

    Returns:
        the rows, and the panels with the labels of the rows that change their rank under them.
    """
    marks: dict[str, bool] = {}
    changes = []
    for panel in panels:
        ranks = panel.ranks([entry.first for entry in entries])
        for fingerprint, places in ranks.items():
            marks[fingerprint] = marks.get(fingerprint, False) or len(places) > 1
        labels = [
            row.label
            for row, entry in zip(rows, entries, strict=True)
            if len(ranks.get(entry.summary.fingerprint, ())) > 1
        ]
        if ranks:
            changes.append(RankChange(panel, labels))
    marked = [
        dataclasses.replace(row, rank_changes=marks.get(entry.summary.fingerprint))
        for row, entry in zip(rows, entries, strict=True)
    ]
    return marked, changes


def tabulate_or_load(ranked: Sequence[Entry], options: BoardOptions) -> list[RowStatistics]:
    """Compute the statistics of a board's entries, or read them if they are stored."""
    path = None
    if options.results is not None:
        key = _statistics_key(ranked, options)
        path = options.results / "statistics" / f"{key}.json"
        # A file that cannot be read is computed and written again.
        with contextlib.suppress(OSError, UnicodeDecodeError, msgspec.MsgspecError):
            return msgspec.json.decode(path.read_bytes(), type=list[RowStatistics])

    from personabench.leaderboard.board_statistics import tabulate

    statistics = tabulate(ranked, options.baseline, options.thorough, options.mask)
    if path is not None:
        _store(path, statistics)
    return statistics


def _statistics_key(ranked: Sequence[Entry], options: BoardOptions) -> str:
    files = [[_stamp(run) for run in entry.runs] for entry in ranked]
    rows = [(entry.name, entry.label, entry.setting, entry.unranked) for entry in ranked]
    # Metrics are defined by the task's code, so statistics change with it.
    names = sorted({entry.summary.task for entry in ranked})
    tasks = [(name, find_source_hash("task", name)) for name in names]
    inputs = [_VERSION, options.baseline, options.thorough, rows, files, tasks]
    if options.mask is not None:
        inputs.append(options.mask.sha256)
    return digest(inputs)[:16]


def _stamp(run: Run) -> tuple[Any, ...]:
    """Values that change whenever a run's scores do."""
    path = run.path if run.published else run.path / "scores.jsonl"
    size, modified = 0, 0
    with contextlib.suppress(OSError):
        status = path.stat()
        size, modified = status.st_size, status.st_mtime_ns
    return run.summary.fingerprint, run.summary.time, size, modified


def _store(path: Path, statistics: Sequence[RowStatistics]) -> None:
    # The results folder may be read-only; then statistics are computed each time.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, msgspec.json.encode(statistics))

        newest_first = sorted(
            path.parent.glob("*.json"),
            key=lambda stored: stored.stat().st_mtime,
            reverse=True,
        )
        for old in newest_first[_STORED:]:
            old.unlink()


def _mean_over_seeds(entry: Entry, scorer: str, metric: str) -> float | None:
    scores = [run.summary.score(metric, scorer) for run in entry.runs]
    judges = {judge_of(run, metric) for run in entry.runs}
    present = [score for score in scores if score is not None]
    # Scores by different judges have no common mean.
    if len(present) < len(scores) or len(judges) > 1:
        return None
    return present[0] if len(present) == 1 else fmean(present)


def _make_row(
    entry: Entry,
    statistics: RowStatistics,
    directions: Mapping[str, bool],
    hidden: Collection[str],
    options: BoardOptions,
) -> Row:
    summary = entry.summary
    summaries = [run.summary for run in entry.runs]
    complete = all(run.complete for run in summaries)

    # The columns of all rows come in the order of the board's metrics.
    statistics.estimates = {
        metric: statistics.estimates[metric]
        for metric in directions
        if metric in statistics.estimates
    }
    return Row(
        task=summary.task,
        separation=summary.separation,
        split=summary.split,
        source=summary.source,
        sample=summary.sample,
        data_hash=summary.data_hash,
        method=summary.method,
        params=summary.params,
        history=summary.history,
        selection=summary.selection,
        seed=summary.seed,
        seeds=[run.seed for run in summaries],
        label=entry.label,
        model=summary.model,
        status="complete" if complete else "incomplete",
        n=summary.n,
        users=summary.users,
        setting=entry.setting,
        fit=summary.fit,
        differs=summary.differs,
        primary=summary.primary,
        scores=_collect_scores(entry, statistics, hidden),
        extra_metrics=summary.extra_metrics,
        parse_failures=sum(run.counters.get("parse_failures", 0) for run in summaries),
        truncated=sum(run.counters.get("truncated", 0) for run in summaries),
        empty=sum(run.counters.get("empty_output", 0) for run in summaries),
        failed=sum(run.counters.get("request_errors", 0) for run in summaries),
        owed=sum(run.owed for run in summaries),
        costs=costs(entry, options.prices or {}, options.queries),
        seconds=round(fmean(run.seconds for run in summaries), 2),
        run=summary.fingerprint[:8],
        folder=str(entry.first.path),
        published=entry.first.published,
        statistics=statistics,
        personal=_is_personal(statistics),
        unranked=entry.unranked,
        training=training_figures(entry),
    )


def _collect_scores(
    entry: Entry, statistics: RowStatistics, hidden: Collection[str]
) -> dict[str, float | None]:
    """The scores of a row by column, those of the official scorer first."""
    metrics = entry.summary.metrics
    scores: dict[str, float | None] = {}
    for scorer in sorted(metrics, key=lambda name: name != SCORER):
        for metric in metrics[scorer]:
            if metric not in hidden:
                column = metric if scorer == SCORER else f"{metric}/{scorer}"
                scores[column] = _mean_over_seeds(entry, scorer, metric)

    # Over several seeds the estimate counts: it is on the samples that all of them scored.
    if len(entry.runs) > 1:
        for metric, estimate in statistics.estimates.items():
            if estimate.value is not None:
                scores[metric] = estimate.value
    return scores


def _is_personal(statistics: RowStatistics) -> bool | None:
    """Whether the gain survives another user's history; None without a gain or such a run."""
    shuffled = statistics.contrasts.get("shuffled")
    baseline = statistics.contrasts.get("baseline")
    if shuffled is None or (baseline is not None and not _is_positive(baseline.gain.value)):
        return None

    p = shuffled.corrected
    return _is_positive(shuffled.gain.value) and p is not None and p <= ALPHA


def _is_positive(value: float | None) -> bool:
    return value is not None and value > 0


# Columns that the plain table has no room for.
ONLY_WIDE = {
    "shuffled_gain_p",
    "detectable",
    "wins",
    "hurt_samples",
    "quantiles",
    "cached_share",
    "frontier",
    "offline_tokens",
    "online_tokens",
    "profiler_tokens",
    "judge_calls",
    "judge_tokens",
    "simulator_calls",
    "simulator_tokens",
    "offline_price",
    "online_price",
    *TRAINING,
}

# Headings of columns that are shown if a row has a value; `{baseline}` is the baseline's name.
_OPTIONAL = {
    "seed_sd": "seed sd",
    "gain": "Δ {baseline}",
    "gain_p": "p",
    "shuffled_gain": "Δ shuffled",
    "shuffled_gain_p": "p shuffled",
    "trivial_gain": "Δ trivial",
    "detectable": "detectable",
    "wins": "users + = −",
    "hurt_users": "users hurt",
    "hurt_samples": "samples hurt",
    "quantiles": "users p10 p50 p90",
}

# Shown columns that stand for several columns of a row, by one of those.
_COMPOSED = {"wins": "win_users", "quantiles": "gain_p10"}

_COSTS = {
    "parse_failures": "unparsed",
    "truncated": "truncated",
    "empty": "empty",
    "failed": "failed",
    "owed": "owed",
    "calls": "calls",
    "cached_share": "cached",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    "offline_tokens": "offline /user",
    "online_tokens": "online /query",
    "profiler_tokens": "profiler tokens",
    "judge_calls": "judge calls",
    "judge_tokens": "judge tokens",
    "simulator_calls": "simulator calls",
    "simulator_tokens": "simulator tokens",
    "frontier": "frontier",
}

_PRICES = {
    "offline_price": "price /user",
    "online_price": "price /query",
    "query_price": "price amortised",
}


def _choose_columns(
    rows: Sequence[Row],
    runs: Sequence[Run],
    directions: Mapping[str, bool],
    baseline: str,
    has_statistics: bool,
) -> dict[str, str]:
    """Names and headings of the columns to show, in order."""
    primary = runs[0].summary.primary
    filled = {name for row in rows for name, value in row.columns.items() if value is not None}
    columns = {"letter": ""} if has_statistics else {}
    columns |= {"label": "method", "model": "model", "n": "n", "users": "users"}

    # The primary metric comes first, whatever the order of the task's metrics.
    for metric in dict.fromkeys((primary, *directions)):
        columns[metric] = f"{metric} {'↑' if directions[metric] else '↓'}"
        if metric == primary and "audited" in filled:
            columns["audited"] = "audited"

    scorers = dict.fromkeys(scorer for run in runs for scorer in run.summary.metrics)
    for scorer in scorers:
        if scorer != SCORER and _differs(rows, primary, scorer):
            columns[f"{primary}/{scorer}"] = f"{primary} ({scorer})"

    columns |= {name: name for run in runs for name in run.summary.extra_metrics}
    for name, heading in _OPTIONAL.items():
        if _COMPOSED.get(name, name) in filled:
            columns[name] = heading.format(baseline=baseline)
    columns |= _COSTS
    for role in ("profiler", "judge", "simulator"):
        if not any(row.columns[f"{role}_calls"] for row in rows):
            columns.pop(f"{role}_calls", None)
            del columns[f"{role}_tokens"]
    if "query_price" in filled:
        columns |= _PRICES
    columns |= {name: heading for name, heading in TRAINING.items() if name in filled}
    return columns | {"seconds": "sec"}


def _differs(rows: Sequence[Row], metric: str, scorer: str) -> bool:
    """Whether a scorer gives any row another score than the official one."""
    for row in rows:
        score = row.scores.get(f"{metric}/{scorer}")
        official = row.scores.get(metric)
        if score is official:
            continue
        if score is None or official is None or not isclose(score, official):
            return True
    return False
