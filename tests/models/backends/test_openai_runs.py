"""Whole runs against an API that misbehaves: what is counted, kept, paid, and never written."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from fake_api import (
    HEADER,
    SECRET,
    Handler,
    Server,
    close_early,
    close_mid_body,
    completion,
    hang,
    options,
    said,
    serving,
)

from personabench.errors import RunError, UsageError
from personabench.models import client
from personabench.run import runner

PRICES = {"tiny": {"input": 1.0, "output": 2.0}}
EACH = (11 * 1.0 + 3 * 2.0) / 1e6


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with serving(monkeypatch) as served:
        yield served


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(client, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(client, "RETRY_LONGEST", 0.01)


def once(fault: Callable[[], Handler | web.Response]) -> Handler:
    """The fault at the first try of every question, an answer at the second."""
    tries: Counter[str] = Counter()

    async def reply(http: web.Request) -> web.StreamResponse:
        question = json.dumps((await http.json())["messages"])
        tries[question] += 1
        if tries[question] > 1:
            return completion("Dry again")
        answer = fault()
        return answer if isinstance(answer, web.Response) else await answer(http)

    return reply


FAULTS: dict[str, tuple[Callable[[], Handler | web.Response], str]] = {
    "429 bursts": (lambda: said(429, "slow down", **{"Retry-After": "0.02"}), "retried_429"),
    "500s": (lambda: said(500, "oops"), "retried_5xx"),
    "overloaded": (lambda: said(529, "later"), "retried_5xx"),
    "conflict": (lambda: said(409, "busy"), "retried_4xx"),
    "hangs": (lambda: hang, "retried_timeout"),
    "closes before a reply": (lambda: close_early, "retried_connection"),
    "closes mid-body": (lambda: close_mid_body, "retried_connection"),
    "malformed JSON": (
        lambda: web.Response(text='{"choices": [', content_type="application/json"),
        "retried_malformed",
    ),
    "empty choice": (lambda: web.json_response({"choices": []}), "retried_no_choice"),
}


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.usefixtures("hasty")
async def test_faults_are_outlived_and_counted(server: Server, tmp_path: Path, case: str) -> None:
    fault, counter = FAULTS[case]
    server.always = once(fault)
    (outcome,) = await runner.run(options(server, tmp_path, 6, timeout=0.3))
    summary = outcome.summary
    assert (summary.status, summary.n, summary.metrics["official"]["rouge-1"]) == (
        "complete",
        6,
        1.0,
    )
    # A connection that was idle is replaced at once, without counting as a retry.
    is_replaced = case == "closes before a reply"
    assert summary.counters[counter] == 6 or (is_replaced and 0 < summary.counters[counter] < 6)
    assert len(server.bodies) == 12


@pytest.mark.parametrize(
    ("reply", "counter"),
    [
        (lambda: completion("Dry again", model="huge"), "other_model"),
        (lambda: completion("Dry ag", "length"), "truncated"),
        (lambda: completion(""), "empty_output"),
    ],
)
async def test_odd_answers_are_counted(
    server: Server, tmp_path: Path, reply: Callable[[], web.Response], counter: str
) -> None:
    async def odd(_: web.Request) -> web.StreamResponse:
        return reply()

    server.always = odd
    (outcome,) = await runner.run(options(server, tmp_path, 4))
    assert outcome.summary.counters[counter] == 4 and outcome.summary.status == "complete"


async def test_overflow_is_marked_with_the_servers_words(server: Server, tmp_path: Path) -> None:
    async def full(_: web.Request) -> web.StreamResponse:
        return said(400, "maximum context length is 12 tokens, you asked for 90")

    server.always = full
    (outcome,) = await runner.run(options(server, tmp_path, 12))
    assert outcome.summary.counters["request_errors"] == outcome.summary.owed == 12
    assert "maximum context length is 12" in (outcome.folder / "predictions.jsonl").read_text()


async def test_the_same_refusal_eight_times_ends_the_run(server: Server, tmp_path: Path) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return said(400, "Unsupported value: 'temperature' does not support 0")

    server.always = refuse
    with pytest.raises(
        RunError,
        match=r"first 8 calls were all refused alike.*--omit-params temperature.*\n0 of 40 samples",
    ):
        await runner.run(options(server, tmp_path, 40))
    assert len(server.bodies) < 16


@pytest.mark.usefixtures("hasty")
async def test_a_remote_api_that_throttles_is_asked_less_at_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("personabench.models.backends.credentials.nearby", lambda url: False)
    flying, refused = 0, 0

    async def four_at_most(_: web.Request) -> web.StreamResponse:
        nonlocal flying, refused
        if flying >= 4:
            refused += 1
            return said(429, "too many at once", **{"Retry-After": "0.05"})
        flying += 1
        try:
            await asyncio.sleep(0.01)
        finally:
            flying -= 1
        return completion("Dry again")

    server.always = four_at_most
    (outcome,) = await runner.run(options(server, tmp_path, 120, concurrency=24))
    assert (
        outcome.summary.status == "complete" and outcome.summary.counters["retried_429"] == refused
    )
    assert 20 <= refused < 120


async def test_calls_per_minute_are_kept_over_a_run(server: Server, tmp_path: Path) -> None:
    (outcome,) = await runner.run(options(server, tmp_path, 6, rpm=1200.0))
    assert outcome.summary.seconds >= 0.24


async def test_spending_stops_before_the_limit_and_goes_on(server: Server, tmp_path: Path) -> None:
    asked = replace(options(server, tmp_path, 60), prices=PRICES, max_cost=EACH * 40)
    with pytest.raises(
        RunError, match=r"--max-cost .*: stopped with .* spent.*\n\d+ of 60 samples are done"
    ) as stop:
        await runner.run(asked)
    first = len(server.bodies)
    # The probe of the new server is booked as well.
    assert 10 < first < 40 and f"{EACH * (first + 1):.6g} spent" in str(stop.value)
    (outcome,) = await runner.run(replace(asked, max_cost=None))
    assert outcome.summary.status == "complete" and len(server.bodies) == 60
    assert outcome.summary.spent == pytest.approx(EACH * 61)
    (again,) = await runner.run(replace(asked, prices={}, max_cost=None))
    assert again.summary.spent == outcome.summary.spent and len(server.bodies) == 60


async def test_a_limit_without_a_price_is_refused_before_any_call(
    server: Server, tmp_path: Path
) -> None:
    asked = replace(options(server, tmp_path, 3), prices={"huge": PRICES["tiny"]}, max_cost=1.0)
    with pytest.raises(UsageError, match=r"--max-cost needs a price for tiny.*: huge"):
        await runner.run(asked)
    assert not server.bodies


async def test_run_counts_failures_resumes_and_never_writes_a_secret(
    server: Server, tmp_path: Path
) -> None:
    async def echo_secrets(http: web.Request) -> web.StreamResponse:
        number = int((await http.json())["messages"][-1]["content"].split("story ")[1].split()[0])
        words = f"key {http.headers['Authorization']} of team {http.headers['X-Team']}"
        if number % 3 == 0:
            return said(400, f"{words} asked too much")
        if number % 3 == 1:
            return completion(words, model=http.headers["X-Team"])
        return completion(f"Headline {number}")

    server.always = echo_secrets
    (outcome,) = await runner.run(options(server, tmp_path, 12))
    assert outcome.summary.status == "incomplete"
    assert (outcome.summary.n, outcome.summary.owed) == (8, 4)
    assert outcome.summary.counters["request_errors"] == 4
    lines = (outcome.folder / "predictions.jsonl").read_text().splitlines()
    errors = [line for line in lines if "asked too" in line]
    assert len(errors) == 4 and all(
        "answered 400" in line and "Bearer ***" in line for line in errors
    )
    assert sum('"output":"key Bearer *** of team ***"' in line for line in lines) == 4

    async def refuse(http: web.Request) -> web.StreamResponse:
        return said(401, f"Incorrect API key provided: {http.headers['Authorization']}")

    server.always = refuse
    with pytest.raises(RunError, match="check OPENAI_API_KEY") as caught:
        await runner.run(options(server, tmp_path, 12))
    assert SECRET not in str(caught.value)

    server.always = None
    before = len(server.bodies)
    (outcome,) = await runner.run(options(server, tmp_path, 12))
    assert outcome.summary.status == "complete" and len(server.bodies) == before + 4

    written = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert {"cache.sqlite", "spec.json", "001.log"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        assert SECRET.encode() not in content and HEADER.encode() not in content, path
        assert server.url.encode() not in content or path.suffix in (".log", ".jsonl"), path


async def test_finished_run_needs_no_server(
    server: Server, tmp_path: Path, unused_tcp_port: int
) -> None:
    (first,) = await runner.run(options(server, tmp_path, 3, model="tiny"))
    server.url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    (again,) = await runner.run(options(server, tmp_path, 3, model="tiny"))
    assert again.folder == first.folder and again.summary.metrics == first.summary.metrics
    assert len(server.bodies) == 3
