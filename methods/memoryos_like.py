"""A memory in three layers: a short queue, segments by topic with a heat, and a profile.

After MemoryOS.  The oldest exchange of a full queue becomes a page of the segment whose topic it
shares; a segment that gets hot updates the profile and the lists of facts.  Times come from the
data, and a segment grows only by pages that it got.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from personabench import Batch, Context, Memory, MemoryItem, PromptFile
from personabench.api.memory import days_between
from personabench.api.memory_batches import Unit
from personabench.api.memory_messages import write_time
from personabench.methods.memory_parts import (
    TEXT,
    Retriever,
    by_number,
    compute_similarities,
    describe_batch,
    list_schema,
    object_schema,
    rank,
    read_text,
    read_texts,
    request_object,
    unite,
)

PROMPTS = PromptFile(__file__, "memoryos_like.prompts.toml")
VISIT_WEIGHT = LENGTH_WEIGHT = 0.8
RECENCY_WEIGHT = 0.0001
HOT = 5.0
FACTS = 100
_KEYWORDS = list_schema(TEXT, 10)

State = dict[str, Any]


class MemoryOSLike(Memory):
    """Move exchanges from a queue to segments, and from hot segments to a profile and facts."""

    name = "memoryos_like"
    paper = "Memory OS of AI Agent, arXiv 2506.06326"
    needs = ("history|feedback",)
    designed_for = ("locomo",)
    paper_settings = {"queue": 7, "join": 0.6, "segments": 5, "k": 10}
    prompts = (PROMPTS,)
    retrieval_params = ("memory_tokens", "segments", "k", "facts", "threshold")

    @dataclass(frozen=True)
    class Params(Memory.Params):
        """unit: the records of a page.

        queue: exchanges in the short queue.
        join: similarity at which a page joins a segment; capacity: segments that are kept.
        segments, k, facts: segments searched, and pages and facts of each list shown.
        threshold: least similarity of segments, pages and facts that are shown.
        strengthen: segments that are recalled get hotter; in online tasks only.
        retriever: dense or bm25; embedder: for dense, as in rag.
        """

        unit: Unit = "exchange"
        queue: int = 7
        join: float = 0.6
        capacity: int = 2000
        segments: int = 5
        k: int = 10
        facts: int = 10
        threshold: float = 0.1
        strengthen: Literal["off", "on"] = "off"
        retriever: Retriever = "dense"
        embedder: str = "wordllama"

    def requirements(self) -> set[str]:
        needs = super().requirements()
        return needs | {"feedback"} if self.params.strengthen == "on" else needs

    async def start(self, ctx: Context) -> State:
        return {
            "queue": [],
            "segments": {},
            "next": 1,
            "last": None,
            "profile": {"text": "", "ids": []},
            "user_facts": [],
            "assistant_facts": [],
        }

    async def ingest(self, state: State, batch: Batch, ctx: Context) -> State:
        text = describe_batch(batch, ctx)
        state["queue"].append({"text": text, "time": batch.time, "ids": list(batch.record_ids)})
        while len(state["queue"]) > self.params.queue:
            page = state["queue"].pop(0)
            await self._move_to_segments(state, page, ctx)
        return state

    async def _move_to_segments(self, state: State, page: State, ctx: Context) -> None:
        await self._link(state, page, ctx)
        topic = await self._describe_topic(page, ctx)
        segment = await self._join_segment(state, page, topic, ctx)
        if compute_heat(segment, page["time"]) >= HOT:
            await self._update_profile(state, segment, ctx)

    async def _link(self, state: State, page: State, ctx: Context) -> None:
        """Note the sentence of the chain of pages that this one continues."""
        previous = state["last"]
        page["chain"] = ""
        if previous is not None:
            link = await request_object(
                ctx,
                PROMPTS,
                "link",
                {"previous": _describe_page(previous), "page": page["text"]},
                lambda value: value if "continues" in value else None,
                schema=object_schema(continues={"type": "boolean"}, chain=TEXT),
                max_tokens=120,
                shorten=("previous", "page"),
            )
            if link is not None and link.get("continues") is True:
                page["chain"] = read_text(link.get("chain"))
        state["last"] = dict(page)

    async def _describe_topic(self, page: State, ctx: Context) -> State:
        """The summary and keywords of a page; of an unreadable reply its text, without any."""
        topic = await request_object(
            ctx,
            PROMPTS,
            "topic",
            {"page": _describe_page(page)},
            lambda value: value if read_text(value.get("summary")) else None,
            schema=object_schema(summary=TEXT, keywords=_KEYWORDS),
            max_tokens=200,
            shorten=("page",),
        )
        if topic is None:
            return {"summary": page["text"], "keywords": []}
        keywords = [word.lower() for word in read_texts(topic.get("keywords"))]
        return {"summary": read_text(topic.get("summary")), "keywords": unite(keywords)}

    async def _join_segment(self, state: State, page: State, topic: State, ctx: Context) -> State:
        stored = by_number(state["segments"])
        summaries = [segment["summary"] for _, segment in stored]
        scores = await self._compare(topic["summary"], summaries, ctx)
        if stored:
            best = rank(scores, 1)[0]
            segment: State = stored[best][1]
            overlap = compare_keywords(topic["keywords"], segment["keywords"])
            if scores[best] + overlap >= self.params.join:
                segment["pages"].append(page)
                segment["keywords"] = unite(segment["keywords"], topic["keywords"])
                segment.update(length=segment["length"] + 1, time=page["time"])
                return segment

        segment = {**topic, "pages": [page], "visits": 0, "length": 1, "time": page["time"]}
        state["segments"][str(state["next"])] = segment
        state["next"] += 1
        self._evict(state, ctx)
        return segment

    def _evict(self, state: State, ctx: Context) -> None:
        """Drop the least visited segments beyond the capacity, the oldest of equals first."""
        segments = state["segments"]
        # The newest is not to be dropped for having had no time to be visited.
        while len(segments) > self.params.capacity:
            candidates = by_number(segments)[:-1]
            number, _ = min(candidates, key=lambda pair: pair[1]["visits"])
            del segments[number]
            ctx.flag("memory_evicted")

    async def _update_profile(self, state: State, segment: State, ctx: Context) -> None:
        pages = segment["pages"][len(segment["pages"]) - segment["length"] :]
        ids = unite(*(page["ids"] for page in pages))
        update = await request_object(
            ctx,
            PROMPTS,
            "profile",
            {
                "profile": state["profile"]["text"] or "none",
                "pages": "\n\n".join(map(_describe_page, pages)),
            },
            lambda value: value if read_text(value.get("profile")) else None,
            schema=object_schema(profile=TEXT, user_facts=_KEYWORDS, assistant_facts=_KEYWORDS),
            max_tokens=600,
            shorten=("profile", "pages"),
        )
        if update is not None:
            text = read_text(update.get("profile"))
            state["profile"] = {"text": text, "ids": unite(state["profile"]["ids"], ids)}
            for name in ("user_facts", "assistant_facts"):
                facts = [
                    {"text": fact, "time": segment["time"], "ids": ids}
                    for fact in read_texts(update.get(name))
                ]
                state[name] = [*state[name], *facts][-FACTS:]
        segment.update(length=0, visits=0)

    async def retrieve(
        self, state: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        queue = [_show(page, "queue") for page in reversed(state["queue"])]
        pages = await self._find_pages(state, query, ctx)
        profile = []
        if state["profile"]["text"]:
            # Made of very many records, which would all count as shown.
            profile.append(MemoryItem(f"Profile: {state['profile']['text']}", (), "profile"))
        facts = []
        for name in ("user_facts", "assistant_facts"):
            scores = await self._compare(query, [fact["text"] for fact in state[name]], ctx)
            for index in rank(scores, self.params.facts):
                if scores[index] >= self.params.threshold:
                    facts.append(_show(state[name][index], name))
        return [*queue, *pages, *profile, *facts]

    async def _find_pages(self, state: State, query: str, ctx: Context) -> list[MemoryItem]:
        p = self.params
        stored = by_number(state["segments"])
        if not stored:
            return []
        keywords = await self._find_keywords(query, ctx)
        scores = await self._compare(query, [segment["summary"] for _, segment in stored], ctx)
        candidates = []
        for index in rank(scores, p.segments):
            number, segment = stored[index]
            if scores[index] + compare_keywords(keywords, segment["keywords"]) >= p.threshold:
                candidates += [(number, page) for page in segment["pages"]]

        similarities = await self._compare(query, [page["text"] for _, page in candidates], ctx)
        return [
            _show(candidates[index][1], "pages", candidates[index][0])
            for index in rank(similarities, p.k)
            if similarities[index] >= p.threshold
        ]

    async def _find_keywords(self, query: str, ctx: Context) -> list[str]:
        keywords = await request_object(
            ctx,
            PROMPTS,
            "keywords",
            {"query": query},
            lambda value: read_texts(value.get("keywords")) if "keywords" in value else None,
            schema=object_schema(keywords=_KEYWORDS),
            max_tokens=80,
            shorten=("query",),
        )
        return [word.lower() for word in keywords or ()]

    async def _compare(self, query: str, texts: Sequence[str], ctx: Context) -> list[float]:
        p = self.params
        return await compute_similarities(query, texts, ctx, p.retriever, p.embedder)

    def reinforce(self, state: State, keys: Sequence[str], now: str) -> State:
        if self.params.strengthen == "on":
            for number in dict.fromkeys(keys):
                segment = state["segments"][number]
                segment.update(visits=segment["visits"] + 1, time=now)
        return state

    def size(self, state: State) -> Mapping[str, int]:
        pages = sum(len(segment["pages"]) for segment in state["segments"].values())
        facts = len(state["user_facts"]) + len(state["assistant_facts"])
        return {
            "items": len(state["queue"]) + pages + facts,
            "segments": len(state["segments"]),
            "facts": facts,
        }


def compare_keywords(first: Sequence[str], second: Sequence[str]) -> float:
    """The mean share of keywords that two sets have in common; 0 if one is empty."""
    if not first or not second:
        return 0.0
    common = len(set(first) & set(second))
    return 0.5 * (common / len(set(first)) + common / len(set(second)))


def compute_heat(segment: Mapping[str, Any], now: str) -> float:
    """The heat of a segment: its visits, its pages since the last update, and its recency."""
    recency = math.exp(-days_between(segment["time"], now))
    visits: int = segment["visits"]
    length: int = segment["length"]
    return VISIT_WEIGHT * visits + LENGTH_WEIGHT * length + RECENCY_WEIGHT * recency


def _describe_page(page: Mapping[str, Any]) -> str:
    chain = f"({page['chain']}) " if page.get("chain") else ""
    return f"[{write_time(page['time'])}] {chain}{page['text']}"


def _show(page: Mapping[str, Any], part: str, key: str = "") -> MemoryItem:
    return MemoryItem(_describe_page(page), page["ids"], part, key)
