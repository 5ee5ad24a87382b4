"""Fixtures for methods that learn from edits, and for the tasks that offer them.

The stub model of PRELUDE's specification, a rule-based user and toy notes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from personabench import (
    Context,
    Message,
    Method,
    Metric,
    Record,
    Rendered,
    Request,
    Sample,
    Task,
    Tokens,
    UsageError,
)
from personabench import Vocabulary as TaskVocabulary
from personabench.methods.cipher import Cipher, Continual, CotEdit, EThenE, IclEdit
from personabench.metrics.edits import edit_cost
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.tasks.prelude.rules import BASE, parse_rules
from personabench.types import Sampling, from_json, to_json

SOURCES = ("alpha", "beta", "gamma", "delta", "epsilon")
FAMILY = [Cipher, IclEdit, CotEdit, Continual, EThenE]


RULES = (
    parse_rules(["all lower case"])
    + parse_rules(["bullet points"])
    + parse_rules(["ends with a question"])
)
RULES += parse_rules(["uses an emoji"]) + parse_rules(["opens with a greeting"])
RULE_OF = dict(zip(SOURCES, RULES, strict=True))


class Briefs(Task):
    name = "briefs"
    metrics = (Metric("exact"),)
    max_tokens = 200
    words = TaskVocabulary(
        "reader", "note", "brief", "What briefs does this reader like?", (), "Write the brief only."
    )

    def open(self, split: str, data: Path | None) -> Any:
        raise UsageError("only notes made up here")

    def render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        system = f"{self.words.instruction}\n{notes}" if notes else self.words.instruction
        return Rendered((Message("system", system), Message("user", sample.input)))

    def parse(
        self,
        output: str,
        sample: Sample,
        scorer: str,
    ) -> str | None:
        return output.strip() or None

    def measure(
        self,
        parsed: str | None,
        sample: Sample,
    ) -> Mapping[str, float]:
        return {"exact": float(parsed in sample.references)}


class Markers:
    """One-hot vectors by the marker word in a text; texts without one are all alike."""

    async def embed(
        self,
        texts: Sequence[str],
        name: str,
    ) -> npt.NDArray[np.float32]:
        return np.array(
            [[*(float(source in text) for source in SOURCES), 0.001] for text in texts], np.float32
        )


def stage(request: Request) -> str:
    opening = request.messages[0].content
    for start, name in (
        ("An assistant drafted", "infer"),
        ("You see what", "infer"),
        ("You see a", "infer"),
        ("You see notes", "aggregate"),
        ("Rewrite the", "neutral"),
    ):
        if opening.startswith(start):
            return name
    return "generate"


def written(phrases: str) -> str:
    text = BASE
    for rule in RULES:
        text = rule.fix(text) if rule.phrase in phrases else text
    return text


def inferred(listed: str) -> str:
    pairs = re.findall(
        r"Draft: (.*?)\nFinal: (.*?)(?=\n\nDraft: |\n\nPreference:|\Z)", listed, re.DOTALL
    )
    edited = [pair for pair in pairs if pair[0] != pair[1]]
    draft, final = edited[-1] if edited else ("", pairs[-1][1])
    return "; ".join(
        rule.phrase for rule in RULES if rule.holds(final) and not (edited and rule.holds(draft))
    )


def stub(request: Request) -> str:
    opening, last = request.messages[0].content, request.messages[-1].content
    if stage(request) == "infer":
        return inferred(last)
    if stage(request) == "aggregate":
        phrases = re.findall(r"^- (.*)$", last, re.MULTILINE)
        return max(phrases, key=lambda phrase: (phrases.count(phrase), -phrases.index(phrase)))
    examples = opening.partition("earlier drafts:\n\n")[2]
    text = written(inferred("Draft: " + examples.rpartition("Draft: ")[2]) if examples else opening)
    return f"They share something.\n**Final:** {text}" if "Final:" in last else text


class ScriptedTask:
    """A task and a stub model behind the real client."""

    def __init__(
        self,
        answer: Callable[[Request], str] = stub,
        cache: Cache | None = None,
        window: int | None = None,
    ):
        self.task: Task = Briefs()
        self.backend = Scripted(answer=answer, window=window)
        self.client = Client(self.backend, cache)

    def context(self) -> Context:
        return Context(
            task=self.task,
            client=self.client,
            embedders=Markers(),  # type: ignore[arg-type]
            sampling=Sampling(),
            seed=0,
            phase="predict",
            unit="",
        )


class Round(NamedTuple):
    """The draft, cost and calls of one simulated round."""

    draft: str
    cost: float
    predicting: int
    learning: int


async def live(
    method: Method,
    sources: Sequence[str],
    setup: ScriptedTask | None = None,
    *,
    interrupted: bool = False,
) -> tuple[list[Round], Any, ScriptedTask]:
    """Run rounds with the rule-based user, if `interrupted` in a new process after each one."""
    setup = setup or ScriptedTask()
    state = await method.profile(Sample("", "u", "").user, setup.context())
    rounds = []
    for number, source in enumerate(sources):
        rule = RULE_OF[source]
        hidden = {"preference": rule.phrase} if method.privileged else {}
        text = f"Note {number} about {source}"
        asking, learning = setup.context(), setup.context()
        sample = Sample(
            f"r{number}",
            "u",
            f"Brief this: {text}",
            stimulus=text,
            hidden=hidden,
        )
        draft = await method.predict(sample, state, asking)
        edited = draft if rule.holds(draft) else rule.fix(draft)
        cost = edit_cost(draft, edited)
        state = await method.update(
            state,
            {
                "draft": draft,
                "edited": edited,
                "cost": cost,
            },
            learning,
        )
        if interrupted:
            method, state = type(method)(method.params), from_json(to_json(state), Any)
        rounds.append(Round(draft, cost, len(asking.calls), len(learning.calls)))
    return rounds, state, setup


def paying(rounds: Sequence[Round]) -> list[int]:
    return [number for number, entry in enumerate(rounds) if entry.cost > 0]


def sequences() -> list[list[str]]:
    return [random.Random(seed).choices(SOURCES[: 2 + seed % 4], k=14) for seed in range(8)]


def first_occurrences(sources: Sequence[str]) -> list[int]:
    return sorted({source: index for index, source in reversed(list(enumerate(sources)))}.values())
