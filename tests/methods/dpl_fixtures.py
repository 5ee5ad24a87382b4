"""Fixtures for DPL's tests: toy tasks and users, vectors spelled out in texts, a scripted model."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from unnamed_users import Nameless

from personabench import (
    Context,
    Message,
    Metric,
    Population,
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
from personabench.api.method import Method
from personabench.api.users import JoinedUsers
from personabench.methods.dpl import Dpl
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.types import Sampling

WORDS = Vocabulary(
    person="columnist",
    stimulus="story",
    response="headline",
    profile_question="How does this columnist word headlines?",
    axes=(
        ("Form", "length and punctuation"),
        ("Affect", "tone"),
        ("Substance", "which fact comes first"),
    ),
    instruction="Answer with the headline alone.",
)
TOPICS = (
    "harbour",
    "orchard",
    "tramway",
    "glacier",
    "library",
    "brewery",
    "lighthouse",
    "quarry",
    "vineyard",
    "zoo",
)


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
        parts = [f"<{record.id}> {self.describe(record)}" for record in records]
        return Rendered(
            (
                Message("system", system),
                Message("user", "\n".join([*parts, f"Story: {sample.input}"])),
            )
        )

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


class Vectors:
    """Embedder for tests: `@(x,y)` in a text is its vector, other texts are bags of words."""

    async def embed(
        self,
        texts: Sequence[str],
        name: str,
    ) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), 258), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            if match := re.search(r"@\(([-\d.]+),([-\d.]+)\)", text):
                row[:2] = float(match[1]), float(match[2])
                continue
            for token in text.split():
                row[2 + zlib.crc32(token.encode()) % 256] += 1
        return vectors


def stage(request: Request) -> str:
    opening = request.messages[0].content
    for start, name in (
        ("You find out", "difference"),
        ("You write the profile", "profile"),
        ("You study", "summary"),
    ):
        if opening.startswith(start):
            return name
    return "answer"


def reply(request: Request) -> str:
    name = stage(request)
    if name == "difference":
        topic = re.search(r"Story: .*?(\w+)\n", request.messages[1].content + "\n")
        return f"Form: shorter about {topic[1] if topic else 'nothing'}."
    return {
        "profile": "**Summary:** Terse and dry.",
        "summary": "A summary.",
        "answer": " A headline ",
    }[name]


class ScriptedTask:
    """A task, its users, and a scripted model behind the real client and cache."""

    def __init__(
        self,
        folder: Path,
        users: Sequence[User],
        task: Task | None = None,
        *,
        answer: Callable[[Request], str] = reply,
        window: int | None = None,
        nameless: bool = False,
        model: str = "scripted",
    ) -> None:
        self.task = task or Headlines()
        people = (
            JoinedUsers(Nameless({user.id: user.history for user in users})).population()
            if nameless
            else users
        )
        self.population = Population(people)
        self.backend = Scripted(
            BackendOptions(model=model),
            answer=answer,
            window=window,
        )
        self.client = Client(
            self.backend,
            Cache(folder / "cache.sqlite"),
            concurrency=64,
        )
        self.seed = 0

    def context(self, unit: str = "") -> Context:
        return Context(
            task=self.task,
            client=self.client,
            embedders=Vectors(),  # type: ignore[arg-type]
            sampling=Sampling(),
            seed=self.seed,
            phase="predict",
            unit=unit,
        )

    async def dpl(self, *, prepared: bool = True, **params: Any) -> Dpl:
        method = Dpl(Dpl.Params(**params))
        if prepared:
            await method.prepare(self.population, self.context())
        return method

    async def ask(
        self,
        method: Method,
        sample: Sample,
    ) -> tuple[str, Context, list[Request]]:
        before = len(self.backend.requests)
        ctx = self.context(sample.user_id)
        state = await method.profile(sample.user, ctx) if method.profiles else None
        output = await method.predict(sample.view(), state, ctx)
        return output, ctx, self.backend.requests[before:]


def stages(requests: Sequence[Request]) -> dict[str, int]:
    request_stages = [stage(request) for request in requests]
    return {
        name: request_stages.count(name) for name in ("difference", "profile", "answer", "summary")
    }


def text(requests: Sequence[Request]) -> str:
    return "\n".join(message.content for request in requests for message in request.messages)


def reviewed(
    person: str,
    item: int,
    response: str,
    stimulus: str | None = None,
) -> Record:
    topic = TOPICS[item % len(TOPICS)]
    return Record(
        f"{person}-{item}",
        stimulus or f"The tale of item{item} and the {topic}",
        response,
        item=f"i{item}",
    )


def crowd(items: int = 10, peers: int = 6) -> list[User]:
    """Ann and her peers, who all wrote about the same items, each in a style of their own."""
    people = ["ann", *(f"peer{number}" for number in range(peers))]
    return [
        User(
            person,
            tuple(
                reviewed(person, item, f"{person} words @({10 * index},{index**2})")
                for item in range(items)
            ),
        )
        for index, person in enumerate(people)
    ]


def question(
    users: Sequence[User], about: str = "A new tale of the tramway and the orchard", **fields: Any
) -> Sample:
    user = users[0]
    return Sample(
        "q1",
        user.id,
        about,
        stimulus=about,
        history=user.history,
        references=("GOLD",),
        **fields,
    )
