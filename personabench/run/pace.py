"""The pace of a model: how long its calls took in earlier runs, to estimate the time of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from personabench.results.summary import Summary


@dataclass(frozen=True)
class Pace:
    """Calls of one model in earlier runs.

    Attributes:
        calls, seconds: by phase; seconds of calls that overlap are added up.
        overlap: calls in progress at once, on average.
        runs: number of runs.
    """

    calls: Mapping[str, int]
    seconds: Mapping[str, float]
    overlap: float
    runs: int

    def seconds_per_call(self, calls_by_phase: Mapping[str, int]) -> float:
        """The time that a call adds to a run, averaged over phases as often as they are called.

        A phase that was never measured takes as long as the average call.
        """
        average = sum(self.seconds.values()) / sum(self.calls.values())
        total, weight = 0.0, 0
        for phase, count in calls_by_phase.items():
            measured = self.calls.get(phase)
            total += count * (self.seconds[phase] / measured if measured else average)
            weight += count
        return (total / weight if weight else average) / self.overlap


def measure_pace(summaries: Iterable[Summary], model: str, concurrency: int) -> Pace | None:
    """Measure a model's pace in earlier runs; None if none has called it.

    Args:
        concurrency: calls in flight, if no run without calls from the cache tells how many.
    """
    calls: dict[str, int] = {}
    seconds: dict[str, float] = {}
    busy = passed = 0.0
    runs = 0
    for summary in summaries:
        phases = {name: phase for name, phase in summary.usage.items() if name != "judge"}
        if summary.model != model or not any(phase.calls for phase in phases.values()):
            continue
        runs += 1
        for name, phase in phases.items():
            calls[name] = calls.get(name, 0) + phase.calls
            seconds[name] = seconds.get(name, 0.0) + phase.seconds
        # Calls from the cache count at their original time, but took none of this run's.
        duration = summary.durations.get("predict", 0.0)
        if duration and not any(phase.cached for phase in phases.values()):
            busy += sum(phase.seconds for phase in phases.values())
            passed += duration
    if not runs:
        return None
    overlap = busy / passed if busy else float(concurrency)
    # Calls alone may fill a part of the time only; the rest is the method's own.
    return Pace(calls, seconds, overlap or 1.0, runs)


def estimate_seconds(row: Mapping[str, Any], pace: Pace | None) -> dict[str, float | None]:
    """The bounds of the time of a planned run, as columns of its row; None without a pace."""
    if pace is None:
        return {"seconds": None, "seconds_at_most": None}
    seconds = pace.seconds_per_call(row["calls_by_phase"])
    return {
        "seconds": round(row["to_pay"] * seconds, 1),
        "seconds_at_most": round(row["to_pay_at_most"] * seconds, 1),
    }
