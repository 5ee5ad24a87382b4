"""What the method of a row was trained on, and what a user's artifact costs.

The figures are those of the cards of a run's artifacts, which the run keeps in its summary; a row
of imported answers has only what its card states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from personabench.leaderboard.rows import Entry, is_imported

# Headings of the columns, all of which only wide tables have room for.
TRAINING = {
    "trained_on": "trained on",
    "train_parameters": "parameters /user",
    "train_seconds": "train s /user",
    "train_seconds_p95": "train s p95",
    "train_bytes": "bytes /user",
    "train_records": "records /user",
}


@dataclass(frozen=True)
class TrainingFigures:
    """Figures of training, averaged over an entry's seeds; the fields are columns.

    All but the first are of the users' own artifacts: None if no user has one, or if the answers
    were made elsewhere.

    Attributes:
        trained_on: "train" for samples of the training split, "history" for the users' own records,
            "both", "none", or "unknown".
        train_parameters: the largest number of trained numbers of a user.
        train_seconds, train_seconds_p95: wall time of a user's training, the mean and the 95th
            percentile over users.
        train_bytes, train_records: of a user's artifact and of its training, means over users.
    """

    trained_on: str
    train_parameters: float | None = None
    train_seconds: float | None = None
    train_seconds_p95: float | None = None
    train_bytes: float | None = None
    train_records: float | None = None


def training_figures(entry: Entry) -> TrainingFigures | None:
    """Collect the figures of an entry; None if its method was not trained."""
    if is_imported(entry.first):
        trained_on = str(entry.summary.provenance["card"].get("trained_on"))
        return None if trained_on == "none" else TrainingFigures(trained_on)

    runs = [run.summary.provenance.get("training") for run in entry.runs]
    facts = [run for run in runs if run]
    if not facts:
        return None
    trained_on = _name_sources(facts[0])
    if not _count_adapters(facts[0]):
        return TrainingFigures(trained_on)

    def mean(name: str) -> float:
        return fmean(run[name] for run in facts)

    return TrainingFigures(
        trained_on,
        train_parameters=mean("parameters"),
        train_seconds=mean("seconds_mean"),
        train_seconds_p95=mean("seconds_p95"),
        train_bytes=mean("bytes"),
        train_records=mean("records"),
    )


def _count_adapters(facts: Mapping[str, Any]) -> int:
    """The number of users with an artifact of their own; see `personabench.run.training`."""
    return int(facts["users"] - facts["without_adapter"])


def _name_sources(facts: Mapping[str, Any]) -> str:
    if not _count_adapters(facts):
        return "train" if facts["corpus_samples"] else "none"
    return "both" if facts["corpus_samples"] else "history"
