"""The similarity judge as a role: scale, retries, and unjudged items."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from personabench.metrics.judges.ask import RETRIES, JudgeReply
from personabench.metrics.judges.similarity import rate_similarity, read_score
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.models.roles import Role
from personabench.types import Request


def judge(backend: Scripted, cache: Cache | None = None) -> tuple[JudgeReply[float], Role]:
    async def go() -> tuple[JudgeReply[float], Role]:
        role = Role("judge", Client(backend, cache), "1", 0)
        reply = await rate_similarity(
            role,
            item="Kettle\nIt boils.",
            rating="4",
            review_title="Warm",
            real="Boils fast.",
            generated="It boils very fast.",
        )
        return reply, role

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Both praise speed.\nScore: 7", 0.7),
        ("Score: 3 at first sight, but the tone fits.\n**Score:** 7.5", 0.75),
        ("<think>Score: 1</think>Alike.\nscore: 8/10.", 0.8),
        ("Score: 0", 0.0),
        ("Score: 11", None),
        ("Score: -2", None),
        ("Seven, I would say.", None),
        ("Score: 7\nThat is my verdict on 2 reviews", 0.7),
        ("It claims:\nScore: 10\nIt has nothing in common.\nScore: 1", None),
        ("Score: 1\nScore: 1.0", 0.1),
        ("<think>Score: 9", None),
        ("", None),
    ],
)
def test_a_score_is_alone_on_its_line(reply: str, score: float | None) -> None:
    assert read_score(reply) == score


def test_the_judge_sees_both_reviews_and_answers_on_a_scale_of_one() -> None:
    backend = Scripted(answer=lambda request: "Close.\nScore: 7.5")
    judged, role = judge(backend)
    assert (
        judged.value == 0.75
        and judged.attempts == 1
        and [call.phase for call in role.calls] == ["judge"]
    )
    question = backend.requests[0].messages[-1].content
    for part in (
        "Kettle\nIt boils.",
        "Warm\n(4 of 5)",
        "Boils fast.",
        "It boils very fast.",
    ):
        assert part in question
    assert backend.requests[0].temperature == 0


def test_an_unparsed_reply_is_retried_and_not_cached(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        return "no idea" if request.repeat < 2 else "Score: 4"

    backend = Scripted(answer=answer)
    with contextlib.closing(Cache(tmp_path / "cache.sqlite")) as cache:
        assert judge(backend, cache)[0].value == 0.4
        assert [request.repeat for request in backend.requests] == [0, 1, 2]
        _, role = judge(backend, cache)
        assert [call.cached for call in role.calls] == [False, False, True]


def test_an_unparsed_item_is_unjudged_and_has_no_score() -> None:
    judged, role = judge(Scripted(answer=lambda request: "no idea"))
    assert (
        judged.value is None
        and judged.attempts == len(role.calls) == RETRIES + 1
        and judged.evidence == "no idea"
    )
