"""The leaderboard: runs on disk as rows of one table model, rendered for a terminal, Markdown, CSV or JSON.

A board holds runs that answer the same question: one task, separation, split and data hash.  Inside a board rows are
sorted by the task's primary metric in its own direction.  Rows have the names of `summary.json`; only what people read
has headings.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import DataError

SCORER = "official"
WORDS = ("label", "model")


@dataclass(frozen=True)
class Board:
    """One table.

    Attributes:
        title: task, separation and split.
        columns: the row keys that people read, in order, with their headings.
        rows: plain values by key, None where there is none; more keys than `columns` shows.
        notes: where the data came from and what keeps rows from being comparable.
    """

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()


def summaries(results: Path) -> list[dict[str, Any]]:
    """Every run's summary under a results folder, oldest first.

    Raises:
        DataError: a summary is damaged; the message names the file.
    """
    found = []
    for path in sorted(results.glob("runs/*/*/*/*/summary.json")):
        try:
            found.append({**msgspec.json.decode(path.read_bytes()), "folder": str(path.parent)})
        except msgspec.MsgspecError as error:
            raise DataError(f"{path} is damaged ({error}); repeat the run's command to write it again") from error
    return sorted(found, key=lambda summary: str(summary.get("time", "")))


def boards(runs: Iterable[Mapping[str, Any]], task: str | None = None) -> list[Board]:
    """Summaries as boards, one per task, separation, split and data."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        if task in (None, run["task"]):
            key = (run["task"], run["separation"], run["split"], run["data_hash"])
            groups.setdefault(key, []).append(run)
    return [_board(group) for _, group in sorted(groups.items())]


def _board(runs: Sequence[Mapping[str, Any]]) -> Board:
    first = runs[0]
    directions: Mapping[str, bool] = first["higher_is_better"]
    primary = first["primary"]
    newest = {(label(run), run["model"]): run for run in runs}

    def rank(row: Mapping[str, Any]) -> tuple[bool, float, str]:
        value = row.get(primary)
        return (value is None, 0.0 if value is None else -value if directions[primary] else value, row["label"])

    rows = sorted((_row(run) for run in newest.values()), key=rank)
    columns = {"label": "method", "model": "model", "n": "n", "users": "users"}
    columns |= {metric: f"{metric} {'↑' if higher else '↓'}" for metric, higher in directions.items()}
    scorers = dict.fromkeys(scorer for run in runs for scorer in run["metrics"] if scorer != SCORER)
    columns |= {f"{primary}/{scorer}": f"{primary} ({scorer})" for scorer in scorers if _differs(rows, primary, scorer)}
    columns |= {name: name for run in runs for name in run.get("extra_metrics", {})}
    columns |= {"parse_failures": "unread", "owed": "failed", "calls": "calls"}
    columns |= {"input_tokens": "tokens in", "output_tokens": "tokens out", "seconds": "sec"}
    notes = [f"Data: {first['source']} ({first['data_hash'][:8]})."]
    if len({row["n"] for row in rows}) > 1:
        notes.append("Rows have different n: they do not score the same samples.")
    if older := len(runs) - len(rows):
        notes.append(f"Left out: {older} older run(s) of the same names; `personabench list runs` has them.")
    notes += [note for run in newest.values() for note in _notes(run)]
    return Board(f"{first['task']}/{first['separation']}/{first['split']}", columns, rows, notes)


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("task", "separation", "split", "source", "sample", "data_hash", "method", "params", "history", "seed")
    row = {name: run[name] for name in kept}
    row |= {"label": label(run), "model": run["model"], "status": run["status"], "n": run["n"], "users": run["users"]}
    row["primary"] = run["primary"]
    for scorer, metrics in sorted(run["metrics"].items(), key=lambda item: item[0] != SCORER):
        row |= {name if scorer == SCORER else f"{name}/{scorer}": value for name, value in metrics.items()}
    row |= run.get("extra_metrics", {})
    row |= {"parse_failures": run["counters"].get("parse_failures", 0), "owed": run["owed"]}
    for name in ("calls", "cached", "input_tokens", "output_tokens"):
        row[name] = sum(phase[name] for phase in run["usage"].values())
    return row | {"seconds": run["seconds"], "run": run["fingerprint"][:8], "folder": run["folder"]}


def label(run: Mapping[str, Any]) -> str:
    """A run's name on a board: its method, and every setting that is not at its default."""
    parts = [f"{key}={value}" for key, value in run.get("changed", {}).items()]
    parts += [f"task.{key}={value}" for key, value in run.get("task_changed", {}).items()]
    if run["history"] != "own":
        parts.append(f"history={run['history']}")
    defaults = {"temperature": 0.0, "top_p": 1.0, "max_tokens": None}
    sampling = run.get("sampling", defaults)
    parts += [f"{key}={sampling[key]}" for key, usual in defaults.items() if sampling[key] != usual]
    if run["seed"]:
        parts.append(f"seed={run['seed']}")
    return f"{run['method']} ({', '.join(parts)})" if parts else str(run["method"])


def _notes(run: Mapping[str, Any]) -> list[str]:
    shown = []
    skip = {"parse_failures", "request_errors"}
    shares = {name: amount for name, amount in run["counters"].items() if amount and name not in skip}
    if fallback := shares.get("fallback"):
        share = fallback / max(run["n"], 1)
        shown.append(f"{label(run)}: fell back to another method on {share:.0%} of samples.")
    if run["status"] != "complete":
        shown.append(f"{label(run)}: {run['owed']} samples are owed; repeat its command.")
    return shown


def _differs(rows: Sequence[Mapping[str, Any]], metric: str, scorer: str) -> bool:
    return any(row.get(f"{metric}/{scorer}") != row.get(metric) for row in rows)


def cell(name: str, value: Any) -> str:
    """A row's value as people read it: four decimals for scores, thousands separated for counts."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}" if name == "seconds" or abs(value) >= 100 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def as_markdown(found: Sequence[Board]) -> str:
    """Boards as Markdown tables."""
    parts = []
    for board in found:
        lines = [f"### {board.title}", "", "| " + " | ".join(board.columns.values()) + " |"]
        lines.append("|" + "|".join("---" if name in WORDS else "---:" for name in board.columns) + "|")
        for row in board.rows:
            cells = [cell(name, row.get(name)).replace("|", "\\|") for name in board.columns]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join([*lines, "", *(f"- {note}" for note in board.notes)]))
    return "\n\n".join(parts)


def as_csv(found: Sequence[Board]) -> str:
    """All rows of all boards as one CSV; parameters are JSON text, a value that a row lacks is empty."""
    rows = [{**row, "params": msgspec.json.encode(row["params"]).decode()} for board in found for row in board.rows]
    columns = dict.fromkeys(name for row in rows for name in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def as_json(found: Sequence[Board]) -> str:
    """All rows of all boards as one JSON list."""
    rows = [row for board in found for row in board.rows]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()
