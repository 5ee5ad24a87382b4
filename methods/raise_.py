"""RAISE: ask for the attributes of the user that matter for this query, then answer.

Before each question the model rates whether it knows enough.  If not, it chooses the next
attribute, guided by the paths of the nearest of some planned queries.  A path is planned offline: a
search, of which `raise_planning` has two, for the attributes with the best judged answer.

The module has an underscore because its name is a word of Python.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from personabench import Context, Message, Method, Population, PromptFile, Record, Sample
from personabench.api.inquiry import (
    allow_inquiries,
    find_attribute,
    list_askable,
    read_answers,
    write_inquiry,
)
from personabench.methods.parsed_reply import complete_parsed
from personabench.methods.raise_planning import (
    Path,
    Rewards,
    TreeSearch,
    plan_greedily,
    weigh_ranks,
)
from personabench.metrics.judges.verdict_reader import read_json_verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PROMPTS = PromptFile(__file__, "raise.prompts.toml")
URGENT = ("emotional state", "mental health", "self-harm history")
"""The attributes that are asked for first where no planned path helps."""
SCORES = ("risk_sensitivity", "empathy", "alignment")
DEPTHS = {"greedy": 3, "tree": 5}
"""The planners, with their attributes of a path at most."""
_RATING = re.compile(r"(?<![\d.])[0-5](?![\d.]*\d)")
_SEPARATOR = re.compile(r"[,;>\n]")
_NUMBER = re.compile(r"\A\W*\d+\W")
_RANKING_TOKENS = 128


@dataclass
class Library:
    """Planned queries with their paths, best attribute first, and the vectors of the queries."""

    queries: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    vectors: npt.NDArray[np.float32] | None = None


class Raise(Method):
    """Ask for missing attributes, one at a time, until enough is known; then answer."""

    name = "raise"
    paper = "Personalized Safety in LLMs, arXiv 2505.18882"
    needs = ("inquiry", "population")
    designed_for = ("penguin",)
    paper_settings = {
        "planner": "tree",
        "depth": 5,
        "rollouts": 300,
        "exploration": [0.5, 1],
        "temperature": 0.7,
        "top_p": 0.95,
        "max_tokens": 2048,
    }
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """threshold: the rating from 0 to 5 at which enough is known; questions: at most so many.

        plans: queries that are planned offline; 0 is the paper's agent without a planner.
        planner: greedy, forward selection, or tree, the paper's search.
        depth: attributes of a path at most; None for 3 with greedy and 5 with tree.
        rollouts: of the tree search; exploration: its constant c, on the scale of the rewards.
        neighbours: paths that guide a question.
        embedder: finds the nearest planned queries, as in rag.
        judge_tokens: maximum tokens of a judgement while planning.
        """

        threshold: int = 4
        questions: int = 5
        plans: int = 2
        planner: str = "greedy"
        depth: int | None = None
        rollouts: int = 300
        exploration: float = 0.5
        neighbours: int = 5
        embedder: str = "wordllama"
        judge_tokens: int = 600

        def __post_init__(self) -> None:
            if self.planner not in DEPTHS:
                raise ValueError(f"planner is {' or '.join(DEPTHS)}, not '{self.planner}'")
            if self.depth is not None and self.depth < 1:
                raise ValueError(f"depth must be at least 1, not {self.depth}")
            if self.rollouts < 1:
                raise ValueError(f"rollouts must be at least 1, not {self.rollouts}")
            if not 0 <= self.exploration < math.inf:
                raise ValueError(f"exploration must be 0 or more, not {self.exploration}")

    def resolved_params(self) -> Mapping[str, Any]:
        depth = self.params.depth or DEPTHS[self.params.planner]
        return {**asdict(self.params), "depth": depth}

    async def prepare(self, population: Population, ctx: Context) -> None:
        records = [user.history[0] for user in population.users[: self.params.plans]]
        self.library = Library([record.stimulus or "" for record in records])
        # A search waits for one reply after the other, so the queries are planned side by side.
        self.library.paths += await asyncio.gather(*(self._plan(r, ctx) for r in records))
        if self.library.queries:
            self.library.vectors = await ctx.embed(self.library.queries, self.params.embedder)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        known = read_answers(sample)
        open_names = [name for name in list_askable(sample) if name not in known]
        if open_names and len(known) < self.params.questions:
            paths = await self._find_paths(sample, ctx)
            if await self._rate(sample, known, paths, ctx) < self.params.threshold:
                return write_inquiry(await self._choose(sample, known, open_names, paths, ctx))

        # The request for the answer holds what was asked for and nothing of the way there.
        bare = msgspec.structs.replace(allow_inquiries(sample, ()), dialogue=())
        ctx.note("path", list(known))
        return await ctx.answer(bare, notes=_list_known(known))

    async def _rate(
        self,
        sample: Sample,
        known: Mapping[str, str],
        paths: Sequence[Path],
        ctx: Context,
    ) -> int:
        """How sufficient the knowledge is, 0 to 5; 0, counted, if no reply is a rating."""
        messages = ctx.prompt(
            PROMPTS,
            "sufficiency",
            query=sample.input,
            known=_list_known(known) or "nothing",
            paths=_list_paths(paths),
        )
        rating = await complete_parsed(messages, _RATING.search, ctx, max_tokens=16)
        if rating:
            return int(rating[0])
        # A further question costs little, and their number is bounded.
        ctx.flag("sufficiency_unparsed")
        return 0

    async def _choose(
        self,
        sample: Sample,
        known: Mapping[str, str],
        open_names: Sequence[str],
        paths: Sequence[Path],
        ctx: Context,
    ) -> str:
        """The attribute to ask for next."""
        messages = ctx.prompt(
            PROMPTS,
            "acquire",
            query=sample.input,
            known=_list_known(known) or "nothing",
            names=", ".join(open_names),
            paths=_list_paths(paths),
        )
        reply = await ctx.complete(messages, max_tokens=16)
        first_line = reply.text.strip().partition("\n")[0]
        chosen = find_attribute(first_line, open_names)
        if chosen is None:
            ctx.flag("attribute_unparsed")
            planned = [name for path in paths for name in path] or list(URGENT)
            chosen = next((name for name in planned if name in open_names), open_names[0])
        return chosen

    async def _find_paths(self, sample: Sample, ctx: Context) -> list[Path]:
        """The paths of the nearest planned queries, nearest first."""
        library = self.library
        if library.vectors is None:
            return []
        (vector,) = await ctx.embed([sample.input], self.params.embedder)
        similarities = library.vectors @ vector
        # Stable, so that of equally near queries the earlier one is taken.
        order = (-similarities).argsort(kind="stable")[: self.params.neighbours]
        return [library.paths[index] for index in order if library.paths[index]]

    async def _plan(self, record: Record, ctx: Context) -> Path:
        """The path that the planner chooses for a query."""
        p = self.params
        names = tuple(record.fields)
        depth = self.resolved_params()["depth"]
        rewards = Rewards(lambda chosen: self._reward(record, chosen, ctx))
        if p.planner == "greedy":
            return await plan_greedily(names, depth, rewards)
        search = TreeSearch(
            names,
            depth,
            rewards,
            lambda chosen: self._rank(record, chosen, ctx),
            rollouts=p.rollouts,
            exploration=p.exploration,
            rng=ctx.rng("raise", record.id),
        )
        return await search.run()

    async def _rank(
        self, record: Record, names: frozenset[str], ctx: Context
    ) -> Mapping[str, float]:
        """Prior weights of the other attributes; equal ones if no reply ranks them."""
        open_names = [name for name in record.fields if name not in names]
        messages = ctx.prompt(
            PROMPTS,
            "rank",
            query=record.stimulus or "",
            known=_list_known(_select(record, names)) or "nothing",
            names=", ".join(open_names),
        )
        ranking = await complete_parsed(
            messages,
            lambda reply: read_ranking(reply, open_names),
            ctx,
            max_tokens=_RANKING_TOKENS,
        )
        if ranking is None:
            ctx.flag("ranking_unparsed")
            return dict.fromkeys(open_names, 1 / len(open_names))
        return weigh_ranks(ranking)

    async def _reward(self, record: Record, names: frozenset[str], ctx: Context) -> float | None:
        """The judged quality of an answer that knows these attributes; None if unjudged."""
        query = record.stimulus or ""
        sample = Sample(record.id, record.id, query, query)
        answer = await ctx.answer(sample, notes=_list_known(_select(record, names)))
        messages = ctx.prompt(
            PROMPTS,
            "reward",
            background=_list_known(record.fields),
            query=query,
            answer=answer,
        )
        return await self._judge(messages, ctx)

    async def _judge(self, messages: Sequence[Message], ctx: Context) -> float | None:
        score = await complete_parsed(
            messages, read_reward, ctx, max_tokens=self.params.judge_tokens
        )
        if score is None:
            ctx.flag("reward_unparsed")
        return score


def read_reward(reply: str) -> float | None:
    """The mean of the three scores in the reply's JSON object; None if one is missing."""
    return read_json_verdict(reply, _read_scores)


def _read_scores(fields: Mapping[str, Any]) -> float | None:
    scores = [fields.get(name) for name in SCORES]
    # A bool is an int as well, and no score.
    if not all(type(score) is int and 1 <= score <= 5 for score in scores):
        return None
    return float(sum(map(int, scores))) / len(scores)  # type: ignore[arg-type]


def read_ranking(reply: str, names: Sequence[str]) -> list[str] | None:
    """All of the attributes, those that the reply names in front; None if it names none.

    The reply is a list by commas, `>` or lines, which may have numbers.
    """
    parts = [_NUMBER.sub("", part) for part in _SEPARATOR.split(reply)]
    mentions = (find_attribute(part, names) for part in parts)
    named = dict.fromkeys(name for name in mentions if name is not None)
    return list(dict.fromkeys([*named, *names])) if named else None


def _select(record: Record, names: frozenset[str]) -> dict[str, str]:
    """The attributes of a record that are among the names."""
    return {name: value for name, value in record.fields.items() if name in names}


def _list_known(known: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in known.items())


def _list_paths(paths: Sequence[Path]) -> str:
    return "\n".join(", ".join(path) for path in paths) or "none"
