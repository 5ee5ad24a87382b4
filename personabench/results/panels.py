"""Stored results of judge panels: the scores of runs under several judges, for leaderboards.

A panel is known by its runs and judges, so a repeated command replaces its file.  It says nothing
about a run whose answers have changed since, which is told by their checksum.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from personabench.hashing import digest
from personabench.results.files import replace_bytes
from personabench.results.run import Run
from personabench.types import from_json

FOLDER = "panels"
_PREDICTIONS = "predictions.jsonl"


class PanelRun(msgspec.Struct, frozen=True):
    """One run in a panel.

    Attributes:
        predictions: SHA-256 of the answers that were judged.
        scores: the metric under each judge, in their order; None where it has none.
    """

    predictions: str
    scores: Sequence[float | None]


class StoredPanel(msgspec.Struct, frozen=True):
    """A panel: its judges with their wordings, and runs by fingerprint."""

    time: str
    metric: str
    higher_is_better: bool
    judges: Sequence[str]
    runs: Mapping[str, PanelRun]

    def ranks(self, runs: Sequence[Run]) -> dict[str, set[int]]:
        """The ranks that runs of this panel have among each other under its judges.

        Args:
            runs: some runs; those that are not of the panel, or whose answers have changed, are
                left out.

        Returns:
            ranks by fingerprint; empty unless two judges have a score for two of the runs that are
            left.
        """
        members = {
            run.summary.fingerprint: self.runs[run.summary.fingerprint].scores
            for run in runs
            if self._judged(run)
        }
        sign = 1 if self.higher_is_better else -1
        orders = []
        for judge in range(len(self.judges)):
            scores = {name: values[judge] for name, values in members.items()}
            order = {name: sign * score for name, score in scores.items() if score is not None}
            if len(order) > 1:
                orders.append(order)
        # One order, or a judge whose verdicts were unreadable, says nothing about changes.
        if len(orders) < 2:
            return {}
        ranks: dict[str, set[int]] = {name: set() for name in members}
        for order in orders:
            for name, score in order.items():
                ranks[name].add(sum(rival > score for rival in order.values()) + 1)
        return ranks

    def _judged(self, run: Run) -> bool:
        member = self.runs.get(run.summary.fingerprint)
        seal = run.summary.files.get(_PREDICTIONS)
        return member is not None and seal is not None and seal.sha256 == member.predictions


def store_panel(
    results: Path,
    runs: Sequence[tuple[Run, Sequence[float | None]]],
    judges: Sequence[str],
    metric: str,
    higher_is_better: bool,
) -> Path:
    """Write a panel below a results folder, and return its path.

    Args:
        runs: each run with its scores under each judge.

    Raises:
        OSError: it cannot be written.
    """
    members = {}
    for run, scores in runs:
        seal = run.summary.files.get(_PREDICTIONS)
        members[run.summary.fingerprint] = PanelRun(seal.sha256 if seal else "", scores)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    panel = StoredPanel(moment, metric, higher_is_better, judges, members)
    name = digest([metric, list(judges), sorted(members)])[:16]
    path = results / FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, msgspec.json.format(msgspec.json.encode(panel), indent=1) + b"\n")
    return path


def read_panels(results: Path | None) -> list[StoredPanel]:
    """Read the panels of a results folder, oldest first; damaged files are left out."""
    if results is None or not (results / FOLDER).is_dir():
        return []
    panels = []
    for path in sorted((results / FOLDER).glob("*.json")):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            panels.append(from_json(path.read_bytes(), StoredPanel))
    return sorted(panels, key=lambda panel: panel.time)
