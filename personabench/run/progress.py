"""Progress of a run, and of all runs of a command: counters, and the time that is left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from personabench.models.traffic import PhaseTraffic, Traffic
from personabench.types import Phase

# Finished samples before the calls of a sample are taken from a run itself.
_ENOUGH = 3


@dataclass(frozen=True)
class Expectation:
    """Calls that a run has to pay for, as far as a plan knows.

    Attributes:
        calls: by phase.
        allowance: tokens that the replies of a phase may have, on average.
        samples: pending samples that the calls are for.
    """

    calls: Mapping[Phase, float]
    allowance: Mapping[Phase, float]
    samples: int


@dataclass
class Progress:
    """Counters a display may read at any time; the engine only ever increments them.

    Attributes:
        command: all runs of the command, of which this is one.
        sensitive: errors are shown without their words, which may quote a text of the task.
        score: describes the primary metric so far; None if nothing computes it.
    """

    total: int = 0
    before: int = 0
    done: int = 0
    failed: int = 0
    stopping: bool = False
    dropped: bool = False
    first_failure: str = ""
    sensitive: bool = False
    started: float = field(default_factory=time.monotonic)
    command: CommandProgress | None = None
    score: Callable[[], str] | None = None


@dataclass
class RunProgress:
    """A run of a command: to come, in progress, or ended.

    Attributes:
        total: samples; pending: those without an answer when the command began.
        expectation: None if nothing is known.
        is_simple: a call per sample is a fair guess.
        progress, traffic: of the run in progress.
    """

    title: str
    total: int
    pending: int
    expectation: Expectation | None = None
    progress: Progress | None = None
    traffic: Traffic | None = None
    elapsed: float = 0.0
    began: float | None = None
    has_ended: bool = False
    is_simple: bool = True

    @property
    def is_open(self) -> bool:
        """Whether nothing says yet how many calls the run makes, which may be many."""
        done = self.progress.done if self.progress is not None else 0
        is_guessed = self.expectation is None and not self.is_simple and done < _ENOUGH
        return is_guessed and not self.has_ended and self.pending > done

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of a block as work on the run."""
        self.began = time.monotonic()
        try:
            yield
        finally:
            self.elapsed = self.seconds
            self.began = None

    @property
    def completed(self) -> int:
        """Samples that need no more work."""
        if self.progress is not None:
            return self.progress.before + self.progress.done
        return self.total - self.pending

    @property
    def seconds(self) -> float:
        """Seconds of work so far."""
        # Read once: a display runs in a thread of its own.
        began = self.began
        return self.elapsed + (0.0 if began is None else time.monotonic() - began)

    def remaining_calls(self) -> dict[Phase, float]:
        """Calls still to pay for, by phase."""
        if self.has_ended:
            return {}
        done = self.progress.done if self.progress is not None else 0
        remaining = max(0, self.pending - done)
        paid = self.traffic.by_phase if self.traffic is not None else {}
        if self.expectation is None:
            return {"predict": remaining * self._calls_per_sample(paid, done)}

        calls: dict[Phase, float] = {}
        for phase, expected in self.expectation.calls.items():
            made = paid[phase].calls if phase in paid else 0
            rest = max(0.0, expected - made)
            if phase == "predict" and self.expectation.samples:
                # Calls so far may have been more than expected.
                rest = max(rest, expected / self.expectation.samples * remaining)
            calls[phase] = rest
        return calls

    def _calls_per_sample(self, paid: Mapping[Phase, PhaseTraffic], done: int) -> float:
        """Calls of a sample, of all phases, as far as this run has shown them."""
        if done < _ENOUGH:
            return 1.0
        return sum(traffic.calls for traffic in paid.values()) / done


@dataclass
class CommandProgress:
    """All runs of a command, in their order.

    Attributes:
        groups: the runs of each of the command's options, such as those of one seed.
    """

    groups: list[list[RunProgress]] = field(default_factory=list)

    @property
    def runs(self) -> Sequence[RunProgress]:
        """The runs in their order."""
        return [run for group in self.groups for run in group]

    @property
    def total(self) -> int:
        """Samples of all runs."""
        return sum(run.total for run in self.runs)

    @property
    def completed(self) -> int:
        """Samples of all runs that need no more work."""
        return sum(run.completed for run in self.runs)

    @property
    def elapsed(self) -> float:
        """Seconds of work on all runs so far."""
        return sum(run.seconds for run in self.runs)

    @property
    def ahead(self) -> int:
        """Pending samples of runs that have not begun."""
        return sum(run.pending for run in self.runs if run.progress is None and not run.has_ended)

    @property
    def is_open(self) -> bool:
        """Whether the time that is left is a lower bound only."""
        return any(run.is_open for run in self.runs)

    def place(self, progress: Progress) -> tuple[int, int]:
        """The number of a run, from 1, and the number of runs."""
        runs = self.runs
        numbers = [number for number, run in enumerate(runs, 1) if run.progress is progress]
        return (numbers or [len(runs)])[0], len(runs)

    def remaining(self) -> float | None:
        """Seconds that are left; None before anything is known.

        Calls that are left take as long as those so far, phase by phase, concurrency and all else
        included. A phase that was never called takes as long as its replies may be longer.
        """
        paid = _sum_traffic(self.runs)
        elapsed = self.elapsed
        weights = _weigh_phases(paid, self.runs)
        made = sum(weights[phase] * traffic.calls for phase, traffic in paid.items())
        if made <= 0:
            return self._remaining_by_samples(elapsed)
        rest = 0.0
        for run in self.runs:
            for phase, calls in run.remaining_calls().items():
                rest += weights.get(phase, 0.0) * calls
        return elapsed * rest / made

    def _remaining_by_samples(self, elapsed: float) -> float | None:
        """The same if no call was paid for: all samples take as long as those so far."""
        done = sum(run.progress.done for run in self.runs if run.progress is not None)
        if not done:
            return None
        return elapsed / done * (self.total - self.completed)


def _sum_traffic(runs: Sequence[RunProgress]) -> dict[Phase, PhaseTraffic]:
    total: dict[Phase, PhaseTraffic] = {}
    for run in runs:
        # Copied, since the calls of another thread may add a phase.
        for phase, traffic in dict(run.traffic.by_phase if run.traffic else {}).items():
            total.setdefault(phase, PhaseTraffic()).add(traffic)
    return total


def _weigh_phases(
    paid: Mapping[Phase, PhaseTraffic], runs: Sequence[RunProgress]
) -> dict[Phase, float]:
    """The time of a call of each phase, in any unit."""
    seconds = sum(traffic.seconds for traffic in paid.values())
    tokens = sum(traffic.allowance for traffic in paid.values())
    calls = sum(traffic.calls for traffic in paid.values())
    weights: dict[Phase, float] = {}
    for run in runs:
        expected: Mapping[Phase, float] = {"predict": 0.0}
        if run.expectation is not None:
            expected = run.expectation.allowance
        for phase, allowance in expected.items():
            # Of a phase without a call, by the tokens that its replies may have.
            by_tokens = seconds / tokens * allowance if tokens and allowance else 0.0
            weights[phase] = by_tokens or (seconds / calls if calls else 0.0)
    for phase, traffic in paid.items():
        weights[phase] = traffic.seconds / traffic.calls
    # A model that takes no time, as scripted replies, leaves the number of calls.
    return weights if seconds else dict.fromkeys(weights, 1.0)
