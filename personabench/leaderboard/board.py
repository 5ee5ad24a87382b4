"""One table of comparable runs: rows with their statistics, controls and costs, and the notes that go with them.

Statistics need numpy and some time, a leaderboard is asked for often: they are kept under `results/statistics`, named
after what they were made from, and looked up before anything heavy is imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import msgspec

from personabench.api.registry import standing
from personabench.hashing import digest
from personabench.leaderboard.costs import Prices, costs, frontier
from personabench.leaderboard.rows import Entry, entries, judge_of, metric_directions, silent
from personabench.results.index import SCORER, Run, spec

WORDS = ("letter", "label", "model")
BASELINE = "none"
ALPHA = 0.05
_VERSION = 6
_KEPT = 200


@dataclass(frozen=True)
class Board:
    """One table.

    Attributes:
        title: task, separation and split.
        columns: the row keys that people read, in order, with their headings; all_columns: those of `--wide`.
        rows: plain values by key, None where there is none; more keys than `columns` shows.
        notes: where the data came from and what keeps rows from being comparable.
        primary: the metric that ranks; higher_is_better: its direction.
        baseline: what gains are measured against.
        entries: the runs behind the rows, in the same order.
    """

    title: str
    columns: Mapping[str, str]
    all_columns: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    primary: str = ""
    higher_is_better: bool = True
    baseline: str = BASELINE
    entries: Sequence[Entry] = ()


@dataclass(frozen=True)
class BoardOptions:
    """How boards are wanted.

    Attributes:
        baseline: name of the row that gains are measured against.
        thorough: intervals for every metric, not for the primary one only.
        prices, queries: as in `costs`.
        results: the folder that keeps statistics; None keeps none.
    """

    baseline: str = BASELINE
    thorough: bool = False
    prices: Prices | None = None
    queries: float | None = None
    results: Path | None = None


def boards(
    runs: Iterable[Run], task: str | None = None, asked: BoardOptions = BoardOptions()
) -> list[Board]:
    """Summaries as boards, one per task, separation, split and data.

    Raises:
        DataError: a run's files are damaged; the message names the file.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if task in (None, run["task"]):
            key = (run["task"], run["separation"], run["split"], run["data_hash"])
            groups.setdefault(key, []).append(run)
    return [_board(group, asked) for _, group in sorted(groups.items())]


def _board(runs: Sequence[Run], asked: BoardOptions) -> Board:
    first = runs[0]
    directions = metric_directions(runs)
    primary = first["primary"]

    def rank(entry: Entry) -> tuple[bool, float, str]:
        value = _pooled(entry, SCORER, primary)
        return (
            value is None,
            0.0 if value is None else -value if directions[primary] else value,
            entry.label,
        )

    found = sorted(entries(runs), key=rank)
    numbers = statistics(found, asked)
    hidden = silent(runs)
    rows = [_row(entry, asked, hidden) for entry in found]
    for row, about in zip(rows, numbers, strict=True):
        row |= _facts(about, [entry.label for entry in found], row, directions)
    for row, best in zip(rows, frontier(rows, primary, directions[primary]), strict=True):
        row["frontier"] = best
    known = any(about["estimates"] for about in numbers)
    newest = [run for entry in found for run in entry.runs]
    columns = _columns(rows, runs, directions, asked, known)
    return Board(
        title=f"{first['task']}/{first['separation']}/{first['split']}",
        columns={name: heading for name, heading in columns.items() if name not in ONLY_WIDE},
        all_columns=columns,
        rows=rows,
        notes=[
            *_about_data(runs, rows, newest),
            *_about_task(newest, numbers, directions if asked.thorough else [primary]),
            *_about_numbers(rows, asked, known),
            *_about_runs(found),
        ],
        primary=primary,
        higher_is_better=directions[primary],
        baseline=asked.baseline,
        entries=found,
    )


def statistics(found: Sequence[Entry], asked: BoardOptions) -> list[dict[str, Any]]:
    """`personabench.comparison.tabulate` of a board's entries, from the folder of statistics where it is there."""
    files = [[_stamp(run) for run in entry.runs] for entry in found]
    named = [(entry.name, entry.setting) for entry in found]
    known = sorted(
        {(task, standing("task", task)) for entry in found for task in [entry.first["task"]]}
    )
    key = digest([_VERSION, asked.baseline, asked.thorough, named, files, known])[:16]
    path = asked.results and asked.results / "statistics" / f"{key}.json"
    if path:
        with contextlib.suppress(OSError, UnicodeDecodeError, msgspec.MsgspecError):
            return msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    from personabench.leaderboard.comparison import tabulate

    numbers = tabulate(found, asked.baseline, asked.thorough)
    if path:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(msgspec.json.encode(numbers))
            temporary.replace(path)
            kept = sorted(
                path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime, reverse=True
            )
            for old in kept[_KEPT:]:
                old.unlink()
    return numbers


def _stamp(run: Run) -> tuple[Any, ...]:
    """What changes when a run's scores do."""
    place = Path(run["folder"])
    with contextlib.suppress(OSError):
        about = (place if place.suffix == ".json" else place / "scores.jsonl").stat()
        return run["fingerprint"], run.get("time"), about.st_size, about.st_mtime_ns
    return run["fingerprint"], run.get("time"), 0, 0


def _pooled(entry: Entry, scorer: str, metric: str) -> float | None:
    """The mean of a metric over an entry's seeds."""
    values = [run["metrics"].get(scorer, {}).get(metric) for run in entry.runs]
    several = len({judge_of(run, metric) for run in entry.runs}) > 1
    return None if None in values or several else values[0] if len(values) == 1 else fmean(values)


def _row(entry: Entry, asked: BoardOptions, hidden: Collection[str]) -> dict[str, Any]:
    run = entry.first
    kept = (
        "task",
        "separation",
        "split",
        "source",
        "sample",
        "data_hash",
        "method",
        "params",
        "history",
        "seed",
    )
    row = {name: run[name] for name in kept}
    row |= {
        "seeds": [each["seed"] for each in entry.runs],
        "label": entry.label,
        "model": run["model"],
    }
    whole = all(each["status"] == "complete" for each in entry.runs)
    row |= {"status": "complete" if whole else "incomplete", "n": run["n"], "users": run["users"]}
    row |= {"setting": entry.setting, "fit": run.get("fit"), "primary": run["primary"]}
    for scorer, metrics in sorted(run["metrics"].items(), key=lambda item: item[0] != SCORER):
        row |= {
            name if scorer == SCORER else f"{name}/{scorer}": _pooled(entry, scorer, name)
            for name in metrics
            if name not in hidden
        }
    row |= run.get("extra_metrics", {})
    row["parse_failures"] = sum(each["counters"].get("parse_failures", 0) for each in entry.runs)
    row["failed"] = sum(each["counters"].get("request_errors", 0) for each in entry.runs)
    row |= {
        "owed": sum(each["owed"] for each in entry.runs),
        **costs(entry, asked.prices or {}, asked.queries),
    }
    row["seconds"] = round(fmean(each["seconds"] for each in entry.runs), 2)
    published = Path(run["folder"]).suffix == ".json"
    return row | {"run": run["fingerprint"][:8], "folder": run["folder"], "published": published}


ROLES = {"baseline": "gain", "shuffled": "shuffled_gain", "trivial": "trivial_gain"}


def _facts(
    about: Mapping[str, Any],
    labels: Sequence[str],
    row: Mapping[str, Any],
    directions: Mapping[str, bool],
) -> dict[str, Any]:
    """A row's statistics by row key; the same keys for every row."""
    found: dict[str, Any] = {
        "letter": about["letter"],
        "beats": [labels[at] for at in about["beats"]],
    }
    found |= {
        "leader": about["leader"] if about["estimates"] else None,
        "tests": about["tests"],
        "controls": about["controls"],
        "draws": about["draws"],
    }
    found["sample_set"] = about["sample_set"]
    found["seed_values"] = about["seeds"]
    found["seed_sd"] = stdev(about["seeds"]) if len(about["seeds"]) > 1 else None
    for metric in directions:
        estimate = about["estimates"].get(metric)
        if estimate is None:
            continue
        if estimate["value"] is not None and len(row["seeds"]) > 1:
            found[metric] = estimate["value"]
        found |= {f"{metric}/{key}": estimate[key] for key in ("low", "high", "n")}
        aligned = about["aligned"][metric]
        found |= {f"{metric}/common{end}": aligned and aligned[key] for end, key in _ENDS.items()}
        if metric == row["primary"]:
            found["no_interval"] = estimate["reason"]
        gain = about["gains"].get(metric)
        found |= {f"{metric}/gain{end}": gain and gain[key] for end, key in _ENDS.items()}
    for role, key in ROLES.items():
        pair = about["versus"].get(role)
        gain = pair["gain"] if pair else dict.fromkeys(("value", "low", "high", "n"))
        found |= {
            key: gain["value"],
            f"{key}_low": gain["low"],
            f"{key}_high": gain["high"],
            f"{key}_n": gain["n"],
        }
        found |= {f"{key}_p": pair and pair["corrected"], f"{key}_p_raw": pair and pair["p"]}
        found[f"{key}_over"] = pair and labels[pair["of"]]
    pair = about["versus"].get("baseline") or {}
    found["detectable"] = pair.get("detectable")
    for unit, name in (("samples", "samples"), ("users", "by_user")):
        for way in ("win", "tie", "loss"):
            found[f"{way}_{unit}"] = (pair.get(name) or {}).get(way)
        found[f"hurt_{unit}"] = pair.get("hurt", {}).get(unit)
    quantiles = pair.get("quantiles") or (None,) * 3
    found |= dict(zip(("gain_p10", "gain_p50", "gain_p90"), quantiles, strict=True))
    found["personal"] = _personal(about)
    return found


_ENDS = {"": "value", "/low": "low", "/high": "high", "/n": "n"}


def _personal(about: Mapping[str, Any]) -> bool | None:
    """Whether the gain survives another user's history; None where there is no gain or no such run."""
    shuffled, base = about["versus"].get("shuffled"), about["versus"].get("baseline")
    if not shuffled or (base and not base["gain"]["value"] > 0):
        return None
    p = shuffled["corrected"]
    return bool(shuffled["gain"]["value"] > 0 and p is not None and p <= ALPHA)


def _columns(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Run],
    directions: Mapping[str, bool],
    asked: BoardOptions,
    known: bool,
) -> dict[str, str]:
    primary = runs[0]["primary"]
    has = {name for row in rows for name, value in row.items() if value is not None}
    columns = {"letter": ""} if known else {}
    columns |= {"label": "method", "model": "model", "n": "n", "users": "users"}
    metrics = dict.fromkeys((primary, *directions))
    columns |= {metric: f"{metric} {'↑' if directions[metric] else '↓'}" for metric in metrics}
    scorers = dict.fromkeys(scorer for run in runs for scorer in run["metrics"] if scorer != SCORER)
    columns |= {
        f"{primary}/{scorer}": f"{primary} ({scorer})"
        for scorer in scorers
        if _differs(rows, primary, scorer)
    }
    columns |= {name: name for run in runs for name in run.get("extra_metrics", {})}
    optional = {
        "seed_sd": "seed sd",
        "gain": f"Δ {asked.baseline}",
        "gain_p": "p",
        "shuffled_gain": "Δ shuffled",
    }
    optional |= {
        "shuffled_gain_p": "p shuffled",
        "trivial_gain": "Δ trivial",
        "detectable": "detectable",
    }
    optional |= {"wins": "users + = −", "hurt_users": "users hurt", "hurt_samples": "samples hurt"}
    optional |= {"quantiles": "users p10 p50 p90"}
    shown = {"wins": "win_users", "quantiles": "gain_p10"}
    columns |= {name: heading for name, heading in optional.items() if shown.get(name, name) in has}
    columns |= {
        "parse_failures": "unread",
        "failed": "failed",
        "owed": "owed",
        "calls": "calls",
        "cached_share": "cached",
    }
    columns |= {"input_tokens": "tokens in", "output_tokens": "tokens out"}
    columns |= {
        "offline_tokens": "offline /user",
        "online_tokens": "online /query",
        "frontier": "frontier",
    }
    if "query_price" in has:
        columns |= {
            "offline_price": "price /user",
            "online_price": "price /query",
            "query_price": "price amortised",
        }
    return columns | {"seconds": "sec"}


ONLY_WIDE = {
    "shuffled_gain_p",
    "detectable",
    "wins",
    "hurt_samples",
    "quantiles",
    "cached_share",
    "frontier",
}
ONLY_WIDE |= {"offline_tokens", "online_tokens", "offline_price", "online_price"}


def _differs(rows: Sequence[Mapping[str, Any]], metric: str, scorer: str) -> bool:
    pairs = [(row.get(f"{metric}/{scorer}"), row.get(metric)) for row in rows]
    return any(a is None or b is None or not isclose(a, b) for a, b in pairs if a is not b)


def _about_data(
    runs: Sequence[Run], rows: Sequence[Mapping[str, Any]], newest: Sequence[Run]
) -> list[str]:
    first = runs[0]
    notes = [f"Data: {first['source']} ({first['data_hash'][:8]})."]
    ids = newest[0].get("user_ids", {})
    if ids.get("joined") or ids.get("single"):
        notes.append(
            f"Users of the split: {ids['named']} named by the data, {ids['joined']} joined from questions whose "
            f"profiles coincide, {ids['single']} of one question."
        )
    settings = [spec(run).get("task_params", {}) for run in newest]
    shared = {
        name: value
        for name, value in settings[0].items()
        if all(each.get(name) == value for each in settings)
    }
    if told := [f"{name}={value}" for name, value in shared.items() if value not in (None, "")]:
        notes.append(f"Task: {', '.join(told)}.")
    sizes, sets = {row["n"] for row in rows}, {row["sample_set"] for row in rows} - {None}
    if len(sizes) > 1 or len(sets) > 1:
        who = "Rows have different n: they" if len(sizes) > 1 else "Rows"
        notes.append(
            f"{who} do not score the same samples, and the order is of what each scored. Gains and tests use the "
            "samples of both rows."
        )
        notes += _about_frontier(rows, first["primary"])
    if older := len(runs) - len(newest):
        notes.append(
            f"Left out: {older} older run(s) of the same names; `personabench list runs` has them."
        )
    if published := [row["label"] for row in rows if row["published"]]:
        notes.append(f"Published results: {', '.join(published)}.")
    return notes


def _about_frontier(rows: Sequence[Mapping[str, Any]], primary: str) -> list[str]:
    """On what samples rows stand on the frontier, where that is not on their own."""
    notes = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting and row.get(f"{primary}/n")]
        sizes = {
            row[f"{primary}/common/n"]
            for row in mine
            if row[f"{primary}/common/n"] != row[f"{primary}/n"]
        }
        if cut := sizes - {None}:
            notes.append(f"Frontier: scores on the {max(cut)} samples that its rows share.")
        if left := [row["letter"] for row in mine if row[f"{primary}/common"] is None]:
            notes.append(
                f"Not on the frontier, too few samples in common with the others: {', '.join(left)}."
            )
    return notes


def _about_task(
    newest: Sequence[Run], numbers: Sequence[Mapping[str, Any]], wanted: Iterable[str]
) -> Sequence[str]:
    """What rows lack because the code of their task is not here, or is not the same for all of them."""
    name, sources = newest[0]["task"], {spec(run).get("task_hash", "") for run in newest}
    notes, known = [], standing("task", name)
    if len(sources) > 1:
        notes.append(
            "The source of the task has changed between these runs: only rows of the same source are compared; "
            "repeat the commands of the others."
        )
    if known != "installed" and sources != {known}:
        missing = [
            metric
            for metric in wanted
            if all(metric not in about["estimates"] for about in numbers)
        ]
        lost = f", without interval and gain in {', '.join(missing)}" if missing else ""
        why = (
            f"--task FILE names another version of {name} than some"
            if known
            else f"{name} is not installed here"
        )
        notes.append(f"From stored scores{lost}: {why}; --task FILE names the file of a task.")
    return notes


def _about_numbers(
    rows: Sequence[Mapping[str, Any]], asked: BoardOptions, known: bool
) -> list[str]:
    if not known:
        return []
    notes = []
    if any(row["gain"] is not None for row in rows):
        family = " or ".join(
            str(each) for each in sorted({row["tests"] for row in rows if row["draws"]})
        )
        controls = max(row["controls"] for row in rows)
        apart = f" and, for own against shuffled histories, over {controls}" if controls else ""
        notes.append(
            f"±: half of a 95 % interval over users. Δ {asked.baseline}: gain on the same samples. p: sign-flip test "
            f"over users, Holm-corrected over {family} pair(s){apart}. Superscripts: rows beaten at p ≤ {ALPHA}. "
            f"{max(row['draws'] for row in rows):,} draws, seed 0."
        )
    elif len(rows) > 1:
        notes.append(
            f"±: half of a 95 % interval over users. No single row '{asked.baseline}' to measure gains against: run it "
            "or name another with --baseline."
        )
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting and row["leader"] is not None]
        best = [row["letter"] for row in mine if row["leader"]]
        if 1 < len(best) < len(mine):
            notes.append(f"Tied for the lead: {', '.join(best)}.")
        elif len(best) == len(mine) > 1:
            notes.append("No row is significantly behind the best.")
    if doubtful := [row["label"] for row in rows if row["personal"] is False]:
        notes.append(
            f"† {', '.join(doubtful)}: no significant gain over the same with another user's history, so it is not "
            "shown to be personal."
        )
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if reason := row.get("no_interval"):
            reasons.setdefault(reason, []).append(row["letter"])
    for reason, names in reasons.items():
        of = "" if len(names) == len(rows) else f" for {', '.join(names)}"
        notes.append(f"No interval{of}: {reason}.")
    for row in rows:
        if row["seed_sd"] is not None:
            seeds = ", ".join(map(str, row["seeds"]))
            notes.append(
                f"{row['label']}: mean of seeds {seeds}; standard deviation over seeds {row['seed_sd']:.4f}."
            )
    return notes


def _about_runs(found: Sequence[Entry]) -> list[str]:
    named = [(entry.label_of(run), run) for entry in found for run in entry.runs]
    shown = []
    for name, run in named:
        if fallback := run["counters"].get("fallback"):
            share = fallback / max(run["n"], 1)
            mostly = "Warning: " if share > 0.5 else ""
            shown.append(f"{mostly}{name}: fell back to another method on {share:.0%} of samples.")
        if run["status"] != "complete":
            shown.append(f"{name}: {run['owed']} samples are owed; repeat its command.")
    for role in ("simulator", "judge"):
        played = [(name, run["roles"][role]) for name, run in named if role in run.get("roles", {})]
        if played:
            shown.append(
                f"{role.capitalize()}: {', '.join(dict.fromkeys(who['model'] for _, who in played))}."
            )
        if own := [name for name, who in played if who.get("shared")]:
            shown.append(
                f"Warning: the {role} is the model under test itself: {', '.join(dict.fromkeys(own))}."
            )
    for name, run in named:
        if unjudged := run["counters"].get("unjudged"):
            added = [metric for metric in run["higher_is_better"] if judge_of(run, metric)]
            shown.append(
                f"{name}: {unjudged} answers are unjudged and have no {', '.join(added) or 'score'}."
            )
    if adapted := [name for name, run in named if run.get("fit") == "adapted"]:
        shown.append(
            f"Adapted to a task its paper did not have: {', '.join(dict.fromkeys(adapted))}."
        )
    if privileged := [name for name, run in named if run.get("privileged")]:
        shown.append(
            f"Oracle, sees what a method must not: {', '.join(dict.fromkeys(privileged))}."
        )
    return shown
