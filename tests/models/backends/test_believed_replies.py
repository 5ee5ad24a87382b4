"""Runs against servers whose replies hold thoughts, end oddly, or do not state their cost."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from fake_api import Handler, Server, options, serving

from personabench.errors import RunError
from personabench.models import client
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.chat_completion import Completion, build_response
from personabench.results.export import Source, rows
from personabench.results.notices import collect_notices
from personabench.results.run_folder import RunFolder
from personabench.run import runner

THOUGHT = "The user likes questions: let me weigh a few options."
PRICES = {"tiny": {"input": 1000.0, "output": 1000.0}}
Message = Mapping[str, Any]


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(client, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(client, "RETRY_LONGEST", 0.01)
    async with serving(monkeypatch) as served:
        yield served


def replying(
    message: Message | Callable[[int], Message],
    finish: Any = "stop",
    usage: Any = "counted",
    **more: Any,
) -> Handler:
    """A server that gives one message, by the number of the call where that is a function."""
    calls = 0

    async def reply(http: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        sent = sum(len(entry["content"]) for entry in (await http.json())["messages"])
        counted = {"prompt_tokens": sent // 4, "completion_tokens": 9}
        choice = {
            "message": message(calls) if callable(message) else message,
            "finish_reason": finish,
        }
        body = {
            "model": "tiny",
            "choices": [choice],
            "usage": counted if usage == "counted" else usage,
            **more,
        }
        return web.json_response(body)

    return reply


def text(content: Any, **fields: Any) -> Message:
    return {"role": "assistant", "content": content, **fields}


def lines(outcome: runner.Outcome) -> list[Any]:
    return list(RunFolder(outcome.folder).iter_predictions())


def stored(tmp_path: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(tmp_path / "results" / "cache.sqlite") as db:
        return [json.loads(row[0]) for row in db.execute("SELECT response FROM responses")]


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}
SUMMARIZED = {"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]}
FINAL = "<|start|>assistant<|channel|>final<|message|>"
FORMS: dict[str, Message] = {
    "inline": text(f"<think>\n{THOUGHT}\n</think>\n\nDry again"),
    "unopened": text(f"{THOUGHT}\n</think>\n\nDry again"),
    "channels": text(f"<|channel|>analysis<|message|>{THOUGHT}<|end|>{FINAL}Dry again"),
    "reasoning_content": text("Dry again", reasoning_content=THOUGHT),
    "reasoning": text("\n\nDry again", reasoning=THOUGHT, reasoning_content=None),
    "parts": text([THINKING, {"type": "text", "text": "Dry again"}]),
    "summary parts": text(
        [SUMMARIZED, {"type": "text", "text": "Dry "}, {"type": "text", "text": "again"}]
    ),
}


@pytest.mark.parametrize("backend", ["openai", "vllm"])
@pytest.mark.parametrize("form", FORMS)
async def test_a_thought_is_no_answer_and_no_profile(
    server: Server, tmp_path: Path, form: str, backend: str
) -> None:
    server.always = replying(FORMS[form])
    asked = replace(
        options(server, tmp_path, 3),
        methods=["none", "summary"],
        backend=backend,
        backend_options=BackendOptions(base_url=server.url),
    )
    outcomes = await runner.run(asked)
    for outcome in outcomes:
        assert {line.output for line in lines(outcome)} == {"Dry again"}
        assert outcome.summary.metrics["official"]["rouge-1"] == 1.0
        assert (
            outcome.summary.counters["empty_output"] == 0 and outcome.summary.status == "complete"
        )
    (profiled,) = {profile.state for profile in RunFolder(outcomes[1].folder).profiles().values()}
    assert profiled == "Dry again"
    assert server.bodies and THOUGHT[:20] not in json.dumps(server.bodies)
    assert {reply["text"].strip() for reply in stored(tmp_path)} == {"Dry again"}
    assert {reply["thought"] for reply in stored(tmp_path)} == {THOUGHT}
    exported = [
        call
        for row in rows(Source(RunFolder(outcomes[1].folder), tmp_path / "results"))
        for call in row["calls"]
    ]
    assert {call["thought"] for call in exported} == {THOUGHT}


async def test_thoughts_that_were_stored_in_answers_are_split_when_read(
    server: Server, tmp_path: Path
) -> None:
    server.always = replying(text("Dry again"))
    asked = options(server, tmp_path, 2)
    (before,) = await runner.run(asked)
    with sqlite3.connect(tmp_path / "results" / "cache.sqlite") as db:
        for key, told in db.execute("SELECT key, response FROM responses").fetchall():
            old = {**json.loads(told), "text": f"<think>{THOUGHT}</think>\nDry again"}
            db.execute(
                "UPDATE responses SET response=?, sha256=NULL WHERE key=?", (json.dumps(old), key)
            )
    paid = len(server.bodies)
    (after,) = await runner.run(replace(asked, history="none"))
    assert after.summary.metrics == before.summary.metrics and len(server.bodies) == paid


def converted(reply: Mapping[str, Any]) -> Completion:
    return msgspec.convert(reply, Completion)


def test_an_answer_in_the_field_for_thoughts_is_read_and_counted() -> None:
    def read(**message: Any) -> Any:
        return build_response(
            converted({"choices": [{"message": message, "finish_reason": "stop"}]})
        )

    found = read(content=None, reasoning_content="Dry again")
    assert (found.text, found.thought, found.oddities) == (
        "Dry again",
        "",
        ("answer_in_reasoning",),
    )
    cut = build_response(
        converted(
            {
                "choices": [{"message": {"reasoning": THOUGHT}, "finish_reason": "length"}],
                "usage": {},
            }
        )
    )
    assert (cut.text, cut.thought, cut.finish, cut.oddities) == ("", THOUGHT, "length", ())
    refusal = read(content=None, refusal="No.")
    assert (refusal.text, refusal.finish, refusal.ending) == ("No.", "refused", "refusal")


async def test_a_thought_that_ate_the_allowance_is_empty_cut_and_said(
    server: Server, tmp_path: Path
) -> None:
    server.always = replying(text(None, reasoning_content=THOUGHT), "length")
    (outcome,) = await runner.run(options(server, tmp_path, 3))
    counters = outcome.summary.counters
    assert (counters["truncated"], counters["empty_output"]) == (3, 3) and stored(tmp_path) == []
    (said,) = collect_notices([outcome.summary])
    assert (
        "3 replies were truncated at their token limit and 3 answers are empty" in said
        and "--max-tokens" in said
    )


@pytest.mark.parametrize("word", ["MAX_TOKENS", "max_tokens", "model_length"])
async def test_every_word_for_a_cut_is_counted(server: Server, tmp_path: Path, word: str) -> None:
    server.always = replying(text("Dry"), word)
    (outcome,) = await runner.run(options(server, tmp_path, 3))
    assert outcome.summary.counters["truncated"] == 3 and stored(tmp_path) == []


async def test_a_filtered_answer_is_counted_and_neither_stored_nor_owed(
    server: Server, tmp_path: Path
) -> None:
    server.always = replying(text("Dry"), "content_filter")
    asked = options(server, tmp_path, 3)
    (outcome,) = await runner.run(asked)
    assert (outcome.summary.counters["refused"], outcome.summary.owed, stored(tmp_path)) == (
        3,
        0,
        [],
    )
    assert "content filter" in collect_notices([outcome.summary])[0]
    assert {call.finish for line in lines(outcome) for call in line.calls} == {"refused"}
    paid = len(server.bodies)
    (again,) = await runner.run(asked)
    assert again.summary.counters["refused"] == 3 and len(server.bodies) == paid


@pytest.mark.parametrize(
    "word",
    [
        pytest.param("error", marks=pytest.mark.variants),
        pytest.param("insufficient_system_resource", marks=pytest.mark.variants),
        "a_word_to_come",
    ],
)
async def test_a_reply_that_was_broken_off_is_asked_for_again(
    server: Server, tmp_path: Path, word: str
) -> None:
    tries: Counter[str] = Counter()
    whole, broken = replying(text("Dry again")), replying(text("Dry"), word)

    async def reply(http: web.Request) -> web.StreamResponse:
        question = json.dumps((await http.json())["messages"])
        tries[question] += 1
        return await (broken if tries[question] == 1 or "story 2" in question else whole)(http)

    server.always = reply
    (outcome,) = await runner.run(options(server, tmp_path, 3, concurrency=1))
    assert Counter(line.output for line in lines(outcome)) == {"Dry again": 2, None: 1}
    (error,) = (line.error for line in lines(outcome) if line.error)
    assert f"'{word}'" in error and sorted(tries.values()) == [2, 2, client.BREAKS]
    counters = outcome.summary.counters
    assert (
        counters["retried_interrupted"],
        counters["interrupted"],
        counters["request_errors"],
    ) == (2, 1, 1)
    assert outcome.summary.owed == 1 and len(stored(tmp_path)) == 2


async def test_replies_that_all_end_in_an_unknown_word_end_the_run(
    server: Server, tmp_path: Path
) -> None:
    server.always = replying(text("Dry"), "a_word_to_come")
    with pytest.raises(RunError, match=r"first 8 calls were all refused alike.*'a_word_to_come'"):
        await runner.run(options(server, tmp_path, 40))
    assert len(server.bodies) < 40


async def test_no_word_for_the_end_is_whole_where_the_server_never_has_one(
    server: Server, tmp_path: Path
) -> None:
    server.always = replying(text("Dry again"), None)
    (outcome,) = await runner.run(options(server, tmp_path, 3))
    assert outcome.summary.counters["finish_unsaid"] == 3 and outcome.summary.n == 3
    assert {reply.get("finish", "stop") for reply in stored(tmp_path)} == {"stop"}
    server.always = replying(
        lambda call: text("Dry again"), None, {"prompt_tokens": 40, "completion_tokens": 9999}
    )
    (outcome,) = await runner.run(replace(options(server, tmp_path, 3), results=tmp_path / "cut"))
    assert outcome.summary.counters["truncated"] == 3


async def test_no_word_from_a_server_that_has_them_is_a_broken_reply(
    server: Server, tmp_path: Path
) -> None:
    whole, wordless = replying(text("Dry again")), replying(text("Dry"), None)

    async def reply(http: web.Request) -> web.StreamResponse:
        return await (wordless if len(server.bodies) % 3 == 2 else whole)(http)

    server.always = reply
    (outcome,) = await runner.run(options(server, tmp_path, 3, concurrency=1))
    assert {line.output for line in lines(outcome)} == {"Dry again"}
    assert outcome.summary.counters["retried_interrupted"] == 1


ERRORS: dict[str, tuple[Any, str]] = {
    "429": ({"error": {"message": "Too Many Requests", "code": 429}}, "retried_429"),
    "502": ({"choices": None, "error": {"message": "overloaded", "code": 502}}, "retried_5xx"),
    "a word": (
        {"error": {"message": "later", "type": "overloaded_error", "code": None}},
        "retried_5xx",
    ),
    "null message": ({"choices": [{"message": None, "finish_reason": None}]}, "retried_no_choice"),
}


@pytest.mark.parametrize("backend", ["openai", pytest.param("vllm", marks=pytest.mark.variants)])
@pytest.mark.parametrize("case", ERRORS)
async def test_an_error_inside_a_200_goes_the_way_of_its_code(
    server: Server, tmp_path: Path, case: str, backend: str
) -> None:
    body, counter = ERRORS[case]
    whole = replying(text("Dry again"))

    async def reply(http: web.Request) -> web.StreamResponse:
        return web.json_response(body) if len(server.bodies) == 1 else await whole(http)

    server.always = reply
    asked = replace(options(server, tmp_path, 2, concurrency=1), backend=backend)
    asked = replace(asked, backend_options=BackendOptions(base_url=server.url))
    (outcome,) = await runner.run(asked)
    assert outcome.summary.counters[counter] == 1 and outcome.summary.status == "complete"


USAGES = {
    "none": None,
    "empty": {},
    "zero": {"prompt_tokens": 0, "completion_tokens": 0},
    "negative": {"prompt_tokens": -50, "completion_tokens": -9},
    "absurd": {"prompt_tokens": 10**12, "completion_tokens": 3},
    "no number": {"prompt_tokens": "many", "completion_tokens": "few"},
}


@pytest.mark.parametrize("case", USAGES)
async def test_a_call_without_a_credible_count_costs_the_most_it_could(
    server: Server, tmp_path: Path, case: str
) -> None:
    server.always = replying(text("Dry again"), usage=USAGES[case])
    asked = replace(options(server, tmp_path, 12, concurrency=1), prices=PRICES)
    (free,) = await runner.run(replace(asked, results=tmp_path / "free"))
    dearest = free.summary.spent / 12
    assert dearest > 0.1 and free.summary.counters["usage_missing"] == 12
    assert (
        free.summary.usage["predict"].input_tokens
        == free.summary.usage["predict"].output_tokens
        == 0
    )
    assert "credible count" in collect_notices([free.summary])[0]
    server.bodies.clear()
    with pytest.raises(
        RunError, match=r"stopped with .* spent \(including \d calls without a credible token count"
    ):
        await runner.run(replace(asked, max_cost=4.5 * dearest))
    assert len(server.bodies) == 4


async def test_counts_written_as_text_are_counts(server: Server, tmp_path: Path) -> None:
    server.always = replying(
        text("Dry again"), usage={"prompt_tokens": "41", "completion_tokens": 3.0}
    )
    (outcome,) = await runner.run(options(server, tmp_path, 2))
    assert outcome.summary.usage["predict"].input_tokens == 82
    assert "usage_missing" not in outcome.summary.counters


async def test_a_prompt_that_was_cut_without_a_word_is_counted_and_said(
    server: Server, tmp_path: Path
) -> None:
    async def reply(http: web.Request) -> web.StreamResponse:
        sent = sum(len(entry["content"]) for entry in (await http.json())["messages"])
        counted = {"prompt_tokens": min(sent // 4, 300), "completion_tokens": 2}
        choice = {"message": text("Dry again"), "finish_reason": "stop"}
        return web.json_response({"model": "tiny", "choices": [choice], "usage": counted})

    server.always = reply
    bundled = replace(
        options(server, tmp_path, 1), data=None, methods=["none", "rag"], assignments=["rag.k=16"]
    )
    short, long = await runner.run(bundled)
    assert "prompt_truncated" not in short.summary.counters
    assert long.summary.counters["prompt_truncated"] > 3
    (said,) = collect_notices([short.summary, long.summary])
    assert re.search(r"prompts were read only in part.*num_ctx.*--context-length N", said)
    server.always = replying(text("Dry again"))
    outcomes = await runner.run(replace(bundled, results=tmp_path / "honest"))
    assert all("prompt_truncated" not in outcome.summary.counters for outcome in outcomes)
