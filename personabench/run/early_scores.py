"""Scores of answers, computed while a run waits for further ones.

Scoring after the last answer then has little left to do, and the display shows the score so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from personabench.api.task import Task
from personabench.metrics.metric import mean
from personabench.run.answer_scorer import AnswerScorer
from personabench.run.interrupts import cancel_all
from personabench.types import Prediction, Sample, Score

# Scoring may hold up the calls for half of a run's time if an answer takes a moment, because after
# the calls it would take as long. A slow metric is computed of a part of the answers, for display.
_SHARE = 0.5
_SLOW_SHARE = 0.02
_SLOW = 0.02
# Seconds that scoring may take in any case.
_ALWAYS = 0.1
# Seconds of scoring between two looks at the replies.
_MOMENT = 0.002
# Scores in memory, about a kilobyte each; further ones are computed after the calls.
_MOST = 10_000
# Samples in memory, with their histories; further ones are scored after the calls as well.
_MOST_WAITING = 256


class EarlyScores:
    """The scores of answers of this attempt, as far as there was time for them.

    Attributes:
        scorer: what has been counted over the answers in `scores`.
        scores: by position; None for an answer that cannot be scored.
    """

    def __init__(self, task: Task) -> None:
        self.scorer = AnswerScorer(task)
        self.scores: dict[int, Score | None] = {}
        self._task = task
        self._metric = task.metrics[0]
        self._waiting: deque[tuple[int, Sample, Prediction]] = deque()
        self._has_arrived = asyncio.Event()
        # What trajectories and conversations have shown so far is no sample of the whole.
        self._is_off = task.protocol != "static"
        self._first: asyncio.Future[None] | None = None
        self._began = time.monotonic()
        self._spent = 0.0
        self._values: list[Any] = []
        self._described = 0, ""

    def add(self, position: int, sample: Sample, prediction: Prediction) -> None:
        """Have an answer scored when nothing else is to be done."""
        has_room = len(self._waiting) < _MOST_WAITING
        if prediction.error is None and has_room and not self._is_off:
            self._waiting.append((position, sample, prediction))
            self._has_arrived.set()

    @contextlib.asynccontextmanager
    async def scoring(self, loading: asyncio.Future[None]) -> AsyncIterator[None]:
        """Score what arrives within the block, once the metrics are loaded."""
        task = asyncio.create_task(self._score_all(loading), name="early scores")
        try:
            yield
        finally:
            await cancel_all([task])
        # After a failure nothing is scored, so nothing is waited for.
        if self._first is not None:
            await asyncio.wait([self._first])

    async def _score_all(self, loading: asyncio.Future[None]) -> None:
        # Awaiting it directly would cancel it with this task.
        await asyncio.wait([loading])
        await self._has_arrived.wait()
        # Scoring the first answer may load a model, which must not hold up the replies.
        loop = asyncio.get_running_loop()
        self._first = loop.run_in_executor(None, self.score, *self._waiting.popleft())
        await asyncio.wait([self._first])
        self._spent = 0.0
        while not self._is_off:
            await self._has_arrived.wait()
            self._has_arrived.clear()
            while self._waiting:
                # Replies that have arrived go first, and those that arrive meanwhile wait a moment.
                await asyncio.sleep(0)
                end = time.monotonic() + _MOMENT
                while self._waiting and time.monotonic() < end:
                    self.score(*self._waiting.popleft())

    def score(self, position: int, sample: Sample, prediction: Prediction) -> None:
        """Score an answer, unless scoring has taken too much of the time so far."""
        began = time.monotonic()
        is_slow = self._spent > _SLOW * len(self.scores)
        share = _SLOW_SHARE if is_slow else _SHARE
        has_no_time = self._spent > max(_ALWAYS, share * (began - self._began))
        if self._is_off or has_no_time or len(self.scores) >= _MOST:
            return
        try:
            score = self.scorer.score(sample, prediction)
        except Exception:
            # Scoring, after the calls, names the fault.
            self._is_off = True
            self._waiting.clear()
            return
        self.scores[position] = score
        if score is not None:
            value = score.values[self._task.scorers[0]][self._metric.name]
            self._values.append(value)
        self._spent += time.monotonic() - began

    def describe(self) -> str:
        """The score so far in words; empty without one."""
        count = len(self._values)
        if not count:
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
