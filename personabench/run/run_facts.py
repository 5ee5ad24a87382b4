"""Facts of a run for its summary: changed parameters, external metrics, versions, prefix cache."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.method import Method
from personabench.api.official_files import is_official
from personabench.api.task import Task
from personabench.metrics.external import compute_external
from personabench.models.backends.base import Backend
from personabench.results.run_folder import RunFolder
from personabench.results.summary import Number, Summary

# Marks the warnings that later attempts keep.
_EDITED = "was changed by something else than a run"

# Distributions whose version can change an answer or a score.
_DISTRIBUTIONS = (
    "personabench-harness",
    "xllamacpp",
    "openai",
    "rouge-score",
    "sacrebleu",
    "nltk",
    "numpy",
)


def changed_params(plugin: Method | Task) -> dict[str, Any]:
    """Return the parameters that are not at their defaults."""
    defaults = dataclasses.asdict(plugin.Params())
    params = dataclasses.asdict(plugin.params)
    return {name: value for name, value in params.items() if value != defaults[name]}


def describe_subject(task: Task, dataset: Dataset, data: Path | None) -> str:
    """Name one's own data for titles; empty for a benchmark's official files and example data."""
    if task.over_own_data:
        return f"your data: {task.name}"
    is_own_task = registry.class_reference(type(task)) != task.name
    if data is None or dataset.sample or is_own_task:
        return ""
    if is_official(dataset, data, task.published_hashes):
        return ""
    return f"your data: {data.name} ({dataset.separation}/{dataset.split}, read as {task.name})"


def describe_edits(folder: RunFolder, earlier: Summary | None) -> list[str]:
    """Warn about answers and judgements that were changed since a run was last scored.

    A new score makes the files agree again, so the warning stays in the run until the changed file
    is deleted.
    """
    edits = []
    for name, recorded in (earlier.files if earlier else {}).items():
        path = folder.path / name
        # Scores are written again, and a deleted file is made again.
        if path == folder.scores_path or not path.exists():
            continue
        change = folder.describe_change(path, recorded)
        if change is not None:
            edits.append(
                f"{name} {_EDITED}: it {change}; what it holds now was scored. To restore it, "
                "delete it and repeat the command: stored replies are not paid again"
            )
        elif earlier:
            prefix = f"{name} {_EDITED}"
            edits += [warning for warning in earlier.warnings if warning.startswith(prefix)]
    return edits


def external_metrics(
    folder: RunFolder, dataset: Dataset, positions: Sequence[int], metrics: Sequence[str]
) -> dict[str, float]:
    """Compute metrics beside the task's own, over the answers to samples with a reference.

    Raises:
        UsageError: a metric cannot be loaded or computed.
    """
    if not metrics:
        return {}

    index = dataset.index()
    outputs, references = [], []
    predictions = folder.ordered_predictions(index[position][0] for position in positions)
    for position, prediction in zip(positions, predictions, strict=True):
        sample = dataset.load(position)
        if prediction is not None and prediction.error is None and sample.references:
            outputs.append(prediction.output or "")
            references.append(sample.references[0])

    values: dict[str, float] = {}
    for metric in metrics:
        values |= compute_external(metric, outputs, references)
    return values


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that make a run."""
    installed = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


async def prefix_cache_totals(
    model: Backend, start: tuple[int, int] | None, earlier: dict[str, Number] | None
) -> dict[str, Number] | None:
    """Add up the prompt tokens of this attempt and of earlier ones that the prefix cache served.

    Args:
        start: the model's counts before this attempt, or None without calls or counts.
        earlier: the totals of earlier attempts.
    """
    end = None if start is None else await model.prefix_counts()
    if start is None or end is None:
        return earlier

    totals = earlier or {"hits": 0, "queries": 0}
    # A server that was restarted meanwhile counts from 0 again.
    hits, queries = (max(0, after - before) for before, after in zip(start, end, strict=True))
    return {"hits": totals["hits"] + hits, "queries": totals["queries"] + queries}
