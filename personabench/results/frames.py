"""Runs as pandas frames, for notebooks.

from personabench import results
frames = results.load("results")
frames.runs, frames.samples, frames.calls

The leaderboard as a frame is in `personabench.leaderboard.frames`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personabench.results.index import SCORER, Run, label, read_runs
from personabench.results.run_folder import RunFolder
from personabench.results.summary import to_dict
from personabench.types import Prediction, Score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Frames:
    """Tidy frames over all runs of a results folder.

    Attributes:
        runs: a row per run, with a column `<metric>` (official) and `<metric>/<scorer>` otherwise.
        samples: a row per run, sample, scorer and metric: `run`, `sample_id`, `user_id`, `scorer`,
            `metric`, `value` (per sample; metrics that are more than a mean have lists).
        calls: a row per model call of a prediction: `run`, `sample_id`, `phase`, `cached`, tokens,
            seconds.
    """

    runs: pd.DataFrame
    samples: pd.DataFrame
    calls: pd.DataFrame


def load(folder: str | Path = "results") -> Frames:
    """Read every run under a results folder.

    Raises:
        DataError: a file is damaged; the message names it.
    """
    import pandas as pd

    runs = []
    samples = []
    calls = []
    for run in read_runs(Path(folder)):
        runs.append(_run_row(run))
        files = RunFolder(run.path)
        for score in files.scores():
            samples += _score_rows(run, score)

        files.verify(files.predictions_path)
        for prediction in files.iter_predictions():
            calls += _call_rows(run, prediction)
    return Frames(pd.DataFrame(runs), pd.DataFrame(samples), pd.DataFrame(calls))


def _run_row(run: Run) -> dict[str, Any]:
    summary = run.summary
    row: dict[str, Any] = {"run": summary.fingerprint[:8], "label": label(summary)}
    # Lists and objects do not fit into a cell.
    for name, value in to_dict(summary).items():
        if isinstance(value, str | int | float):
            row[name] = value
    row["folder"] = str(run.path)

    for scorer, metrics in summary.metrics.items():
        for metric, value in metrics.items():
            row[metric if scorer == SCORER else f"{metric}/{scorer}"] = value
    return row


def _score_rows(run: Run, score: Score) -> list[dict[str, Any]]:
    return [
        {
            "run": run.summary.fingerprint[:8],
            "sample_id": score.sample_id,
            "user_id": score.user_id,
            "scorer": scorer,
            "metric": metric,
            "value": value,
        }
        for scorer, values in score.values.items()
        for metric, value in values.items()
    ]


def _call_rows(run: Run, prediction: Prediction) -> list[dict[str, Any]]:
    return [
        {
            "run": run.summary.fingerprint[:8],
            "sample_id": prediction.sample_id,
            "phase": call.phase,
            "cached": call.cached,
            "input_tokens": call.input_tokens,
            "output_tokens": call.output_tokens,
            "seconds": call.seconds,
        }
        for call in prediction.calls
    ]
