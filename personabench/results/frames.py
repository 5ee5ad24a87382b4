"""Results as pandas frames, for notebooks.

from personabench import results
frames = results.load("results")
frames.runs, frames.samples, frames.calls
results.leaderboard("results")
results.curve_points("results")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personabench.results.index import SCORER, label, summaries
from personabench.results.run_folder import RunFolder
from personabench.results.summary import to_dict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Frames:
    """Tidy frames over all runs of a results folder.

    Attributes:
        runs: a row per run, with a column `<metric>` (official) and `<metric>/<scorer>` otherwise.
        samples: a row per run, sample, scorer and metric: `run`, `sample_id`, `user_id`, `scorer`, `metric`, `value`
            (the per-sample value; metrics that are more than a mean have lists).
        calls: a row per model call of a prediction: `run`, `sample_id`, `phase`, `cached`, tokens, seconds.
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

    runs: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for found in summaries(Path(folder)):
        summary = found.summary
        run = summary.fingerprint[:8]
        plain: dict[str, Any] = {
            key: value
            for key, value in to_dict(summary).items()
            if isinstance(value, str | int | float)
        }
        plain["folder"] = str(found.path)
        for scorer, metrics in summary.metrics.items():
            plain |= {
                name if scorer == SCORER else f"{name}/{scorer}": value
                for name, value in metrics.items()
            }
        runs.append({"run": run, "label": label(summary), **plain})
        files = RunFolder(found.path)
        for score in files.scores():
            row = {"run": run, "sample_id": score.sample_id, "user_id": score.user_id}
            samples += [
                {**row, "scorer": scorer, "metric": metric, "value": value}
                for scorer, values in score.values.items()
                for metric, value in values.items()
            ]
        files.verify(files.predictions_path)
        for prediction in files.iter_predictions():
            calls += [
                {
                    "run": run,
                    "sample_id": prediction.sample_id,
                    "phase": call.phase,
                    "cached": call.cached,
                    "input_tokens": call.input_tokens,
                    "output_tokens": call.output_tokens,
                    "seconds": call.seconds,
                }
                for call in prediction.calls
            ]
    return Frames(pd.DataFrame(runs), pd.DataFrame(samples), pd.DataFrame(calls))
