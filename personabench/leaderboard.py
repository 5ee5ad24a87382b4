"""The leaderboard: runs on disk as rows of one table model, rendered for a terminal, Markdown, CSV or JSON.

A board holds runs that answer the same question: one task, separation, split and data hash.  Inside a board rows are
sorted by the task's primary metric in its own direction.
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


@dataclass(frozen=True)
class Board:
    """One table: its title and protocol, column names, and rows of plain values (None where there is none)."""

    title: str
    columns: Sequence[str]
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
    scorers = [SCORER, *(s for run in runs for s in run["metrics"] if s != SCORER)]
    lenient = next((s for s in scorers if s != SCORER and any(_differs(run, s) for run in runs)), None)

    def rank(run: Mapping[str, Any]) -> tuple[bool, float, str]:
        value = run["metrics"].get(SCORER, {}).get(primary)
        return (value is None, 0.0 if value is None else -value if directions[primary] else value, run["method"])

    rows = []
    for run in sorted(runs, key=rank):
        row: dict[str, Any] = {"method": label(run), "model": run["model"], "n": run["n"], "users": run["users"]}
        for metric in directions:
            row[_arrow(metric, directions)] = run["metrics"].get(SCORER, {}).get(metric)
        if lenient:
            row[f"{primary} ({lenient})"] = run["metrics"].get(lenient, {}).get(primary)
        for name, value in run.get("extra_metrics", {}).items():
            row[name] = value
        spent = run["usage"].values()
        row["unread"] = run["counters"].get("parse_failures", 0)
        row["failed"] = run["owed"]
        row["calls"] = sum(phase["calls"] for phase in spent)
        row["tokens in"] = sum(phase["input_tokens"] for phase in spent)
        row["tokens out"] = sum(phase["output_tokens"] for phase in spent)
        row["sec"] = run["seconds"]
        rows.append(row)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    title = f"{first['task']}/{first['separation']}/{first['split']}"
    notes = [f"Data: {first['source']} ({first['data_hash'][:8]})."]
    if len({run["n"] for run in runs}) > 1:
        notes.append("Rows have different n: they do not score the same samples.")
    notes += [note for run in runs for note in _notes(run)]
    return Board(title, columns, rows, list(dict.fromkeys(notes)))


def label(run: Mapping[str, Any]) -> str:
    """A run's name on a board: its method, changed parameters, control and seed where they are not the defaults."""
    parts = [f"{key}={value}" for key, value in run.get("changed", {}).items()]
    if run["history"] != "own":
        parts.append(f"history={run['history']}")
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


def _differs(run: Mapping[str, Any], scorer: str) -> bool:
    return bool(run["metrics"].get(scorer) != run["metrics"].get(SCORER))


def _arrow(metric: str, directions: Mapping[str, bool]) -> str:
    return f"{metric} {'↑' if directions[metric] else '↓'}"


def cell(value: Any) -> str:
    """A value as people read it: three or four decimals for scores, thousands separated for counts."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def as_markdown(found: Sequence[Board]) -> str:
    """Boards as Markdown tables."""
    parts = []
    for board in found:
        lines = [f"### {board.title}", "", "| " + " | ".join(board.columns) + " |"]
        lines.append("|" + "|".join("---" if c in ("method", "model") else "---:" for c in board.columns) + "|")
        for row in board.rows:
            cells = [cell(row.get(c)).replace("|", "\\|") for c in board.columns]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join([*lines, "", *(f"{note}  " for note in board.notes)]))
    return "\n\n".join(parts)


def as_csv(found: Sequence[Board]) -> str:
    """Boards as one CSV with a leading `board` column."""
    columns = list(dict.fromkeys(column for board in found for column in board.columns))
    out = io.StringIO()
    writer = csv.DictWriter(out, ["board", *columns], lineterminator="\n")
    writer.writeheader()
    for board in found:
        writer.writerows({"board": board.title, **row} for row in board.rows)
    return out.getvalue()


def as_json(found: Sequence[Board]) -> str:
    """Boards as JSON: a list of {title, notes, rows}."""
    plain = [{"title": board.title, "notes": list(board.notes), "rows": list(board.rows)} for board in found]
    return msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()
