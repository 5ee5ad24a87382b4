"""The score so far of a run in progress, for its display."""

from __future__ import annotations

import time
from typing import Any

from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.metrics.metric import mean
from personabench.types import Prediction

# Share of the time of a run that its score so far may take; slow metrics are computed of fewer
# samples.
_SHARE = 0.02
_SECONDS = 0.1


class RunningScore:
    """The primary metric of the answers of this attempt; nothing if only a judge can tell it."""

    def __init__(self, task: Task, dataset: Dataset) -> None:
        self._task = task
        self._dataset = dataset
        self._metric = task.metrics[0]
        self._values: list[Any] = []
        self._began = time.monotonic()
        self._spent = 0.0
        self._is_off = task.protocol != "static"
        self._described = 0, ""

    def add(self, position: int, prediction: Prediction) -> None:
        """Score an answer, unless that has taken too much time so far."""
        began = time.monotonic()
        is_slow = self._spent > max(_SECONDS, _SHARE * (began - self._began))
        if self._is_off or is_slow or prediction.error is not None:
            return
        try:
            value = self._measure(position, prediction.output or "")
        except Exception:
            # Scoring, after the calls, names the fault.
            self._is_off = True
            return
        if value is None:
            self._is_off = True
            return
        self._values.append(value)
        self._spent += time.monotonic() - began

    def _measure(self, position: int, output: str) -> Any:
        sample = self._dataset.load(position)
        if not sample.references:
            return None
        parsed = self._task.parse(output, sample, self._task.scorers[0])
        return self._task.measure(parsed, sample).get(self._metric.name)

    def describe(self) -> str:
        """The score in words; empty without one."""
        count = len(self._values)
        if not count or self._is_off:
            return ""
        if self._described[0] != count:
            plural = "s" * (count > 1)
            text = f"{self._metric.name} {self._aggregate(count):.4f} of {count} sample{plural}"
            self._described = count, text
        return self._described[1]

    def _aggregate(self, count: int) -> float:
        values = self._values[:count]
        if self._metric.aggregate is mean:
            return float(sum(values) / count)
        import numpy as np

        return float(self._metric.aggregate(np.array(values, dtype=np.float64)))
