"""What every reader of a `summary.json` may rely on, checked once, where one is read."""

from __future__ import annotations

from typing import Any

import msgspec

from personabench.results.checksums import Seal


class Phase(msgspec.Struct, frozen=True):
    """What the model calls of one phase came to."""

    calls: float
    cached: float
    input_tokens: float
    output_tokens: float
    seconds: float


class Sampling(msgspec.Struct, frozen=True):
    """How the model sampled."""

    temperature: float
    top_p: float
    max_tokens: int | None


class Role(msgspec.Struct, frozen=True):
    """Who played a part beside the model under test."""

    model: str
    identity: dict[str, Any] = {}
    shared: bool = False
    adds: list[str] | None = None


class Summary(msgspec.Struct, frozen=True):
    """The fields of a summary, described in docs/files.md; those with a default may be missing."""

    task: str
    separation: str
    split: str
    source: str
    sample: bool
    data_hash: str
    method: str
    params: dict[str, Any]
    history: str
    model: str
    seed: int
    fingerprint: str
    status: str
    n: int
    owed: int
    users: int
    primary: str
    higher_is_better: dict[str, bool]
    metrics: dict[str, dict[str, float | None]]
    counters: dict[str, float]
    usage: dict[str, Phase]
    seconds: float
    sampling: Sampling = Sampling(0.0, 1.0, None)
    changed: dict[str, Any] = {}
    task_changed: dict[str, Any] = {}
    time: str = ""
    data: str | None = None
    variants: dict[str, str] = {}
    user_ids: dict[str, int] = {}
    warnings: list[str] = []
    roles: dict[str, Role] = {}
    judge: str | None = None
    judge_errors: float = 0
    provenance: dict[str, Any] = {}
    extra_metrics: dict[str, float | None] = {}
    prefix_cache: dict[str, float] | None = None
    spent: float | None = None
    files: dict[str, Seal] = {}

    def __post_init__(self) -> None:
        if self.primary not in self.higher_is_better:
            raise ValueError(
                f"`primary` is {self.primary!r}, which `higher_is_better` does not have"
            )


def checked(content: dict[str, Any]) -> dict[str, Any]:
    """The same summary.

    Raises:
        msgspec.ValidationError: a field is missing or of another type; the message names it.
    """
    msgspec.convert(content, Summary)
    return content
