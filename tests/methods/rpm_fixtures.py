"""Fixtures for RPM's tests: a scripted model for all its calls, with client, cache and tasks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from dpl_fixtures import Vectors

from personabench import (
    Context,
    Message,
    Metric,
    Record,
    Rendered,
    Request,
    Sample,
    Task,
    Tokens,
    UsageError,
    User,
    Vocabulary,
)
from personabench.methods.rpm import Rpm
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.types import Sampling, to_json

WORDS = Vocabulary(
    person="columnist",
    stimulus="story",
    response="headline",
    profile_question="How does this columnist word headlines?",
    axes=(("Form", "length"),),
    instruction="Answer with the headline alone.",
)
STAGES = {
    "Group features": "X2",
    "Merge factors": "merge",
    "Below are one": "X3",
    "Explain how this": "X4",
    "Explain step by step": "generic",
    "Say what this": "X0",
    "Below is a part of a chat": "X0",
}


class Headlines(Task):
    name = "headlines"
    metrics = (Metric("exact"),)
    words = WORDS

    def open(self, split: str, data: Path | None) -> Any:
        raise UsageError("only records made up here")

    def render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        system = WORDS.instruction + (f"\nAbout the columnist: {notes}" if notes else "")
        return Rendered((Message("system", system), Message("user", f"Question: {sample.input}")))

    def parse(
        self,
        output: str,
        sample: Sample,
        scorer: str,
    ) -> str | None:
        return output

    def measure(
        self,
        parsed: str | None,
        sample: Sample,
    ) -> Mapping[str, float]:
        return {"exact": float(parsed in sample.references)}


class Tags(Headlines):
    name = "tags"
    kind = "category"


class Stars(Headlines):
    name = "stars"
    kind = "ordinal"
    labels = ("1", "2", "3", "4", "5")


def stage(request: Request) -> str:
    opening = request.messages[0].content
    for start, name in STAGES.items():
        if opening.startswith(start):
            return name
    if "Name the features" in opening:
        return "X5" if "Factors:" in opening else "X1"
    return "X6"


def reply(request: Request) -> str:
    """Reply as a model that turns every #word of a query into a feature and a factor."""
    body = request.messages[-1].content
    tags = re.findall(r"#([^\s#?]+)", body) or ["topic"]
    match stage(request):
        case "X1" | "X5":
            rows = [
                {"name": tag, "context": f"about {tag}", "factor": f"F{tag.partition('@')[0]}"}
                for tag in tags
            ]
            return "```json\n" + json.dumps({"features": rows}) + "\n```"
        case "X2":
            groups: dict[str, list[int]] = {}
            for number, tag in re.findall(r"^(\d+)\. ([^:@]+)", body, re.MULTILINE):
                groups.setdefault(f"F{tag}", []).append(int(number))
            listed = [
                {"factor": name, "description": f"{name}!", "ids": ids}
                for name, ids in groups.items()
            ]
            return json.dumps({"factors": listed})
        case "X3":
            numbers = re.findall(r"^(\d+)\. ", body, re.MULTILINE)
            rows = [
                {"id": int(number), "influential": True, "polarity": "positive"}
                for number in numbers
            ]
            return json.dumps({"judgements": rows})
        case "X4" | "generic":
            return "Because of this and that."
        case "X0":
            return "a plain remark #plain"
    return json.dumps({"reasoning": "as before", "answer": "The answer"})


class ScriptedTask:
    """A task and a scripted model behind the real client and cache."""

    def __init__(
        self,
        folder: Path,
        task: Task | None = None,
        *,
        answer: Callable[[Request], str] = reply,
        window: int | None = None,
    ) -> None:
        self.task = task or Headlines()
        self.backend = Scripted(
            BackendOptions(),
            answer=answer,
            window=window,
        )
        self.client = Client(
            self.backend,
            Cache(folder / "cache.sqlite"),
            concurrency=64,
        )

    def context(self) -> Context:
        return Context(
            task=self.task,
            client=self.client,
            embedders=Vectors(),  # type: ignore[arg-type]
            sampling=Sampling(),
            seed=0,
            phase="predict",
            unit="ann",
        )

    async def study(
        self,
        method: Rpm,
        sample: Sample,
        *,
        all_history: bool = False,
    ) -> tuple[Any, Context]:
        """The state as the engine stores it, from the visible history or from all of it."""
        ctx = self.context()
        history = sample.history if all_history else method.visible(sample)
        state = await method.profile(User(sample.user_id, history), ctx)
        return msgspec.json.decode(to_json(state)), ctx

    async def ask(
        self,
        method: Rpm,
        sample: Sample,
        *,
        all_history: bool = False,
    ) -> tuple[str, dict[str, float], list[Request]]:
        before = len(self.backend.requests)
        state, offline = await self.study(
            method,
            sample,
            all_history=all_history,
        )
        online = self.context()
        output = await method.predict(sample.view(), state, online)
        return output, {**offline.flags, **online.flags}, self.backend.requests[before:]


def stages(requests: Sequence[Request]) -> Counter[str]:
    return Counter(map(stage, requests))


def text(requests: Sequence[Request]) -> str:
    return "\n".join(message.content for request in requests for message in request.messages)


def rpm(**params: Any) -> Rpm:
    return Rpm(Rpm.Params(**params))


def pairs(*answers: str, tags: str = "#war #love") -> tuple[Record, ...]:
    return tuple(
        Record(f"r{index}", f"Tale {index} of {tags}", answer)
        for index, answer in enumerate(answers)
    )


def question(history: Sequence[Record], about: str = "A new tale of #war", **fields: Any) -> Sample:
    return Sample(
        "q",
        "ann",
        about,
        stimulus=about,
        history=tuple(history),
        references=("GOLD",),
        **fields,
    )
