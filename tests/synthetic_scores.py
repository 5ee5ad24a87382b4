"""Run folders with invented scores, and the boards made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from personabench.errors import DataError
from personabench.leaderboard import Board, BoardOptions, boards
from personabench.leaderboard.column import aggregate_of
from personabench.results.checksums import make_seal
from personabench.results.index import Run, read_all, read_run
from personabench.results.published import vector
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.types import Sampling, to_json

USERS = 20
EACH = 3


def write_run(
    results: Path,
    method: str,
    scores: np.ndarray[Any, Any] | dict[str, Any],
    *,
    metric: str = "rouge-1",
    higher: bool = True,
    task: str = "lamp4",
    samples: range | None = None,
    usage: dict[str, Any] | None = None,
    users: int | None = None,
    told: dict[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """Write a run folder with the given scores, sample i of user i // EACH.

    Where a score is None the sample has none; `told` goes into the summary.
    """
    values = scores if isinstance(scores, dict) else {metric: list(map(float, scores))}
    count = len(next(iter(values.values())))
    numbers = samples or range(count)
    spec: dict[str, Any] = {
        **{
            "task": task,
            "task_version": 1,
            "task_params": {},
            "separation": "user",
            "split": "dev",
            "sample": True,
        },
        **{
            "data_hash": "d" * 64,
            "method": method,
            "method_hash": "",
            "params": {},
            "model": {"name": "tiny"},
        },
        **{"sampling": Sampling(), "seed": 0, "history": "own"},
    }
    spec |= {name: value for name, value in changes.items() if name in RunSpec.__struct_fields__}
    run = RunSpec(**spec)
    folder = RunFolder.path_of(results, run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(to_json(run))
    people = [f"u{number // EACH if users is None else number % users}" for number in numbers]
    with (folder / "scores.jsonl").open("w") as file:
        for at, (number, user) in reversed(list(enumerate(zip(numbers, people, strict=True)))):
            line = {"sample_id": str(number), "user_id": user}
            line["values"] = {
                "official": {
                    name: each[at] for name, each in values.items() if each[at] is not None
                }
            }  # type: ignore[assignment]
            file.write(json.dumps(line) + "\n")
    call = {
        "calls": count,
        "cached": 0,
        "input_tokens": 100 * count,
        "output_tokens": 10 * count,
        "seconds": 1.0,
    }
    summary = {
        **{
            name: json.loads(to_json(run))[name]
            for name in ("task", "separation", "split", "sample", "data_hash")
        },
        **{
            "method": method,
            "params": run.params,
            "changed": run.params,
            "history": run.history,
            "seed": run.seed,
        },
        **{
            "model": run.model["name"],
            "sampling": json.loads(to_json(run.sampling)),
            "source": "example data",
        },
        **{
            "status": "complete",
            "fingerprint": run.fingerprint,
            "n": count,
            "users": len(set(people)),
            "owed": 0,
        },
        **{
            "primary": next(iter(values)),
            "higher_is_better": dict.fromkeys(values, higher),
            "seconds": 1.0,
        },
        **{"metrics": {}, "counters": {}, "usage": {"predict": call} if usage is None else usage},
        **{
            "time": changes.get("time", "2026-01-01T00:00:00Z"),
            "warnings": ["a line of the data"],
            "data": "/home/me",
        },
        **(told or {}),
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    seal_scores(folder)
    summary["metrics"] = metrics_from_scores(read_run(folder))
    (folder / "summary.json").write_text(json.dumps(summary))
    seal_scores(folder)
    return read_run(folder)


def seal_scores(folder: Path) -> None:
    """Have the summary say what the scores are, as scoring would."""
    summary = json.loads((folder / "summary.json").read_text())
    names = ("predictions.jsonl", "scores.jsonl")
    summary["files"] = {name: msgspec.to_builtins(make_seal(folder / name)) for name in names}
    (folder / "summary.json").write_text(json.dumps(summary))


def draw_scores(shift: float = 0.0, seed: int = 0, noise: float = 0.1) -> np.ndarray[Any, Any]:
    """Scores of all samples: what samples and users have in common, a shift, and noise of the
    method's own."""
    shared = np.random.default_rng(99).random(USERS * EACH)
    return shared + shift + noise * np.random.default_rng(seed).normal(size=USERS * EACH)


def make_board(folder: Path, **asked: Any) -> Board:
    (found,) = boards(read_all(folder), options=BoardOptions(**asked))
    return found


def make_rows(folder: Path, **asked: Any) -> dict[str, Any]:
    return {row["label"]: row for row in list_rows(make_board(folder, **asked))}


def list_rows(board: Board) -> list[dict[str, Any]]:
    """The rows of a board by column name."""
    return [row.columns for row in board.rows]


def metrics_from_scores(run: Run) -> dict[str, dict[str, float]]:
    """Compute a run's metrics again from its scores, by scorer.

    Raises:
        DataError: the task that defines the metrics is not installed.
    """
    scores = vector(run)
    metrics: dict[str, dict[str, float]] = {}
    for scorer, columns in scores.values.items():
        for name, column in columns.items():
            aggregate = aggregate_of(run, name, scores)
            if aggregate is None:
                raise DataError(
                    f"{run.path}: no installed task defines {name} of {run.summary.task}"
                )
            values = [value for value in column if value is not None]
            result = aggregate(np.array(values, dtype=np.float64))
            metrics.setdefault(scorer, {})[name] = result
    return metrics


def spent(tokens: int) -> dict[str, Any]:
    """What a run's calls used."""
    return {
        "predict": {
            "calls": 60,
            "cached": 0,
            "input_tokens": tokens,
            "output_tokens": 0,
            "seconds": 1.0,
        }
    }
