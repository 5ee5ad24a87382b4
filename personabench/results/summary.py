"""The summary of a run: one struct that scoring builds once and every reader reads by attribute."""

from __future__ import annotations

from typing import Any

import msgspec

from personabench.results.checksums import Seal
from personabench.types import Sampling

# Both types are named because msgspec reads 3 as 3.0 into a plain `float`, and a summary that is
# published or printed again has to keep the numbers that scoring wrote.
Number = int | float


class Phase(msgspec.Struct, frozen=True):
    """Usage of the model calls of one phase.

    Attributes:
        calls: distinct calls: each is booked once, where it first appears.
        reasoning_tokens: the part of the output that is thought; unset if no call reports any.
        seconds: of the model, summed over calls that overlap; a run's own time is in `durations`.
        repeated: replies that a further sample used again, with their tokens; they are in no other
            number.
        served: calls by who answered them, as the server says; unset if it says nothing.
        max_tokens: the allowances of the replies, each once; unset in earlier versions.
    """

    calls: int
    cached: int
    input_tokens: int
    output_tokens: int
    seconds: float
    served: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    reasoning_tokens: int | msgspec.UnsetType = msgspec.UNSET
    max_tokens: list[int] | msgspec.UnsetType = msgspec.UNSET
    repeated: int = 0
    repeated_input_tokens: int = 0
    repeated_output_tokens: int = 0


class Role(msgspec.Struct, frozen=True):
    """A model beside the one under test, such as a judge.

    Attributes:
        shared: it is the model under test itself.
        adds: metrics that an optional judge adds; None for a judge that the task always has, unset
            for other roles and in summaries of earlier versions.
    """

    model: str
    identity: dict[str, str] = {}
    shared: bool = False
    adds: list[str] | msgspec.UnsetType | None = msgspec.UNSET


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a run that only its runner knows; scoring copies them into the summary.

    The fields are described in docs/files.md.
    """

    data: str | None = None
    subject: str = ""
    changed: dict[str, Any] = {}
    task_changed: dict[str, Any] = {}
    fit: str | None = None
    differs: list[str] = []
    privileged: bool = False
    rule: bool = False
    provenance: dict[str, Any] = {}
    extra_metrics: dict[str, Number | None] = {}
    spent: Number | None = None
    prefix_cache: dict[str, Number] | None = None
    warnings: list[str] = []
    audit: str | None = None
    roles: dict[str, Role] = {}
    judge: str | None = None
    judge_options: dict[str, Any] = {}
    judge_prompt: str = ""
    judge_errors: int = 0
    time: str = ""
    versions: dict[str, str] = {}
    command: str = ""
    harness: dict[str, str] = {}
    machine: dict[str, Any] = {}
    durations: dict[str, float] = {}


class Summary(RunFacts, frozen=True, kw_only=True):
    """`summary.json`, described in docs/files.md.

    Fields with a default may be missing: published results carry no paths, and earlier versions
    wrote fewer fields.
    """

    status: str
    task: str
    separation: str
    split: str
    source: str
    sample: bool
    method: str
    params: dict[str, Any]
    history: str
    selection: str = ""
    model: str
    sampling: Sampling = Sampling()
    seed: int
    fingerprint: str
    data_hash: str
    n: int
    owed: int
    users: int
    user_ids: dict[str, int] = {}
    primary: str
    higher_is_better: dict[str, bool]
    variants: dict[str, str] = {}
    metrics: dict[str, dict[str, Number | None]]
    signatures: dict[str, str] = {}
    parse_failures: dict[str, int] = {}
    counters: dict[str, Number]
    usage: dict[str, Phase]
    profiler_usage: dict[str, Phase] = {}
    profiles: int = 0
    seconds: float
    distinct_answers: int | None = None
    suspicious: list[str] = []
    files: dict[str, Seal] = {}

    def __post_init__(self) -> None:
        # A board ranks by the primary metric and needs its direction, whatever else is missing.
        if self.primary not in self.higher_is_better:
            raise ValueError(
                f"`primary` is {self.primary!r}, which `higher_is_better` does not have"
            )

    @property
    def complete(self) -> bool:
        """Whether no selected sample lacks an answer, or a judgement if the task has a judge."""
        return self.status == "complete"

    @property
    def debt(self) -> str:
        """The part that an incomplete run lacks, in words: answers, or judgements of them."""
        return f"{self.owed} samples are owed" if self.owed else "answers are not judged yet"

    @property
    def judged_by(self) -> str:
        """The judge as tables state it: model, options and version of the prompt; empty without."""
        role = self.roles.get("judge")
        if not self.judge or role is None:
            return ""
        words = [
            value if isinstance(value, str) else f"{name}={value}"
            for name, value in self.judge_options.items()
            if value != ""
        ]
        if self.judge_prompt:
            words.append(f"prompt {self.judge_prompt}")
        return f"{role.model} ({', '.join(words)})" if words else role.model

    @property
    def title(self) -> str:
        """The subject of the measurement: task, separation and split, or one's own data."""
        return self.subject or f"{self.task}/{self.separation}/{self.split}"

    def score(self, metric: str, scorer: str = "official") -> float | None:
        """A metric under one scorer; None if the run does not have it."""
        return self.metrics.get(scorer, {}).get(metric)


def to_dict(summary: Summary) -> dict[str, Any]:
    """The fields of a summary as plain values, in the order of the file."""
    fields: dict[str, Any] = msgspec.to_builtins(summary, order="deterministic")
    return fields
