"""Counters of a client's calls, for displays of progress."""

from __future__ import annotations

from dataclasses import dataclass, field

from personabench.types import Phase, Request, Response


@dataclass
class PhaseTraffic:
    """Paid calls of one phase.

    Attributes:
        seconds: of the model, summed over calls that overlap.
        allowance: tokens that their replies could have at most.
    """

    calls: int = 0
    seconds: float = 0.0
    allowance: int = 0

    def add(self, other: PhaseTraffic) -> None:
        """Add other calls."""
        self.calls += other.calls
        self.seconds += other.seconds
        self.allowance += other.allowance


@dataclass
class Traffic:
    """Totals for the progress display: paid and cached calls, tokens, retries.

    Attributes:
        by_phase: the paid calls of each phase.
        trouble: the error of the last retry, until a call succeeds; trouble_kind: its kind alone.
    """

    paid: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    retries: int = 0
    trouble: str = ""
    trouble_kind: str = ""
    by_phase: dict[Phase, PhaseTraffic] = field(default_factory=dict)

    def book(self, phase: Phase, request: Request, response: Response, *, cached: bool) -> None:
        """Count a call."""
        if cached:
            self.cached += 1
            return
        usage = response.usage
        self.paid += 1
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        call = PhaseTraffic(1, response.seconds, request.max_tokens)
        self.by_phase.setdefault(phase, PhaseTraffic()).add(call)
