"""The probe of a server on loopback: what it learns, by how many calls, and when none is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from fake_api import Server, completion, options, said, serving

from personabench.errors import BackendDown, RunError, UsageError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.dialect import Dialect
from personabench.models.backends.openai import OpenAI
from personabench.models.backends.vllm import VLLM
from personabench.models.client import Client
from personabench.models.probe import Dialects, Learnt, probe_request
from personabench.run import runner
from personabench.run.openings import check_backend
from personabench.types import Message, Request, Sampling

Body = dict[str, Any]
Refuse = Callable[[Body], str | None]


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with serving(monkeypatch, more=_with_completions) as served:
        served.probes_too = True
        yield served


def _with_completions(app: web.Application) -> None:
    app.router.add_post("/v1/completions", complete_text)


async def complete_text(http: web.Request) -> web.StreamResponse:
    body = await http.json()
    if "messages" in body or not isinstance(body.get("prompt"), str):
        return said(400, "prompt: field required")
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    choice = {"index": 0, "text": f" after {body['prompt'][-9:]}", "finish_reason": "stop"}
    if "logprobs" in body:
        choice["logprobs"] = {
            "tokens": ["a", "b"],
            "token_logprobs": [-0.1, None],
            "top_logprobs": [{"a": -0.1, "c": -2.0}, None],
        }
    return web.json_response({"model": "tiny", "choices": [choice], "usage": usage})


def refusing(*rules: Refuse) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A server with several quirks, of which it names the first that a request meets."""

    async def reply(http: web.Request) -> web.StreamResponse:
        body = await http.json()
        for rule in rules:
            message = rule(body)
            if message is not None:
                return said(400, message)
        return completion("Dry again")

    return reply


def roles(body: Body) -> list[str]:
    return [message["role"] for message in body["messages"]]


def no_system(body: Body) -> str | None:
    return "System role not supported" if "system" in roles(body) else None


def alternation(body: Body) -> str | None:
    turns = [role for role in roles(body) if role != "system"]
    is_regular = all(role == ("user", "assistant")[at % 2] for at, role in enumerate(turns))
    return None if is_regular else "Conversation roles must alternate user/assistant/..."


def no_max_tokens(body: Body) -> str | None:
    return "Use 'max_completion_tokens' instead of 'max_tokens'." if "max_tokens" in body else None


def only_temperature_1(body: Body) -> str | None:
    is_default = body.get("temperature", 1) == 1
    return None if is_default else "'temperature' does not support 0. Only the default (1) value"


def no_field(name: str) -> Refuse:
    return lambda body: f"Unsupported parameter: '{name}'" if name in body else None


def no_schema(*kinds: str) -> Refuse:
    def rule(body: Body) -> str | None:
        kind = body.get("response_format", {}).get("type")
        return f"response_format {kind} is unavailable" if kind in kinds else None

    return rule


async def learn(
    server: Server, tmp_path: Path, kind: type[OpenAI] | type[VLLM] = OpenAI, **changes: Any
) -> tuple[Learnt, dict[str, str]]:
    backend = kind(BackendOptions(base_url=server.url, **changes))
    await backend.identify()
    await backend.open()
    try:
        client = Client(backend, None, "off")
        learnt = await Dialects(tmp_path).learn(client, probe_request(0.0, 1.0, 0))
        backend.adopt(learnt.dialect)
        return learnt, dict(backend.identity)
    finally:
        await backend.aclose()


@pytest.mark.parametrize("kind", [OpenAI, VLLM])
@pytest.mark.parametrize(
    ("rules", "dialect", "calls"),
    [
        ([], Dialect(), 1),
        ([no_system], Dialect(system="user"), 2),
        ([no_system, alternation], Dialect(system="user", merges_turns=True), 3),
        ([no_max_tokens], Dialect(limit_field="max_completion_tokens"), 2),
        ([no_schema("json_schema")], Dialect(schema="json_object"), 2),
        ([no_schema("json_schema", "json_object")], Dialect(schema="prompt"), 3),
        (
            [no_max_tokens, no_schema("json_schema"), no_system],
            Dialect(limit_field="max_completion_tokens", schema="json_object", system="user"),
            4,
        ),
    ],
)
async def test_what_is_learnt_and_by_how_many_calls(
    server: Server,
    tmp_path: Path,
    kind: type[OpenAI] | type[VLLM],
    rules: Sequence[Refuse],
    dialect: Dialect,
    calls: int,
) -> None:
    server.always = refusing(*rules)
    learnt, identity = await learn(server, tmp_path, kind)
    assert learnt.dialect == dialect and len(server.bodies) == calls
    assert identity.get("dialect", "") == dialect.marks()
    assert await learn(server, tmp_path, kind) == (learnt, identity)
    assert len(server.bodies) == calls, "the second command asks the store"


async def test_all_refused_fields_are_in_one_remedy(server: Server, tmp_path: Path) -> None:
    server.always = refusing(
        no_max_tokens, only_temperature_1, no_field("top_p"), no_field("seed"), no_system
    )
    with pytest.raises(
        BackendDown, match=r"repeat the command with --temperature 1 --omit-params top_p,seed,"
    ):
        await learn(server, tmp_path)
    assert len(server.bodies) == 6
    assert not list((tmp_path / "dialects").glob("*.json")), "nothing is settled yet"


async def test_the_remedy_names_what_is_omitted_already_and_the_role(
    server: Server, tmp_path: Path
) -> None:
    server.always = refusing(no_field("top_p"), no_field("service_tier"))
    with pytest.raises(
        BackendDown,
        match=r"--judge-omit-params seed,top_p, .*; leave out --judge-extra service_tier",
    ):
        await learn(server, tmp_path, omit=("seed",), extra={"service_tier": "flex"}, role="judge")


async def test_a_list_of_refused_fields_takes_one_call(server: Server, tmp_path: Path) -> None:
    async def reply(http: web.Request) -> web.StreamResponse:
        body = await http.json()
        unknown = [name for name in ("top_p", "seed", "top_k", "min_p") if name in body]
        if not unknown:
            return completion()
        # The list is longer than what a message quotes.
        faults = [{"type": "extra", "loc": ["body", name], "input": body} for name in unknown]
        return web.json_response({"detail": faults}, status=422)

    server.always = reply
    with pytest.raises(BackendDown, match=r"--omit-params top_p,seed,top_k,min_p,"):
        await learn(server, tmp_path, VLLM)
    assert len(server.bodies) == 2


def streaming(*lines: str) -> web.Response:
    return web.Response(body="\n\n".join(lines).encode(), content_type="text/event-stream")


@pytest.mark.parametrize("kind", ["openai", "vllm"])
async def test_a_server_that_only_streams(server: Server, tmp_path: Path, kind: str) -> None:
    async def reply(http: web.Request) -> web.StreamResponse:
        body = await http.json()
        if not body.get("stream"):
            return said(400, "enable_thinking must be set to false for non-streaming calls")
        deltas = [{"reasoning_content": "H"}, {"reasoning_content": "m"}, {"content": "Dry "}]
        events = [{"choices": [{"delta": delta}]} for delta in (*deltas, {"content": "again"})]
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": {"prompt_tokens": 80, "completion_tokens": 3}})
        return streaming(
            ": waiting", *(f"data: {json.dumps(event)}" for event in events), "data: [DONE]"
        )

    server.always = reply
    messages: list[str] = []
    command = replace(options(server, tmp_path, 2), backend=kind)
    (outcome,) = await runner.run(command, tell=messages.append)
    assert outcome.summary.status == "complete" and "streamed replies" in messages[0]
    assert "dialect" not in json.loads((outcome.folder / "spec.json").read_text())["model"]
    lines = (outcome.folder / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["output"] for line in lines] == ["Dry again"] * 2
    assert outcome.summary.usage["predict"].input_tokens == 160


async def test_a_demand_to_think_is_in_the_remedy(server: Server, tmp_path: Path) -> None:
    def must_think(body: Body) -> str | None:
        is_off = body.get("enable_thinking") is not True
        return "The value of enable_thinking is restricted to True." if is_off else None

    server.always = refusing(must_think, no_field("seed"))
    with pytest.raises(BackendDown, match=r"--omit-params seed --reasoning low,"):
        await learn(server, tmp_path)


async def test_the_remedy_works(server: Server, tmp_path: Path) -> None:
    server.always = refusing(only_temperature_1, no_field("top_p"))
    command = replace(
        options(server, tmp_path, 2, omit=("top_p",)), sampling=Sampling(temperature=1.0)
    )
    (outcome,) = await runner.run(command)
    assert outcome.summary.status == "complete"


async def test_a_base_model_is_asked_for_completions(server: Server, tmp_path: Path) -> None:
    server.always = refusing(lambda body: "you must provide a chat template")
    learnt, identity = await learn(server, tmp_path, VLLM)
    assert learnt.dialect == Dialect(api="completions")
    assert identity["dialect"] == "plain completions"
    (outcome,) = await runner.run(options(server, tmp_path, 2))
    outputs = (outcome.folder / "predictions.jsonl").read_text()
    assert outcome.summary.status == "complete" and '"output":"after' in outputs


async def test_logprobs_of_a_base_model_are_those_of_a_chat(server: Server) -> None:
    backend = OpenAI(BackendOptions(base_url=server.url))
    await backend.identify()
    backend.adopt(Dialect(api="completions"))
    request = Request((Message("user", "One, two"),), 4, logprobs=2)
    first, second = (await backend.complete(request, "u")).logprobs
    await backend.aclose()
    assert (first["token"], first["logprob"]) == ("a", -0.1)
    assert [token["token"] for token in first["top_logprobs"]] == ["a", "c"]
    assert second["top_logprobs"] == []


async def test_a_base_model_without_completions_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serving(monkeypatch) as server:
        server.probes_too = True
        server.always = refusing(lambda body: "no chat template")
        with pytest.raises(BackendDown, match=r"base model.*--vllm-args '--chat-template FILE'"):
            await learn(server, tmp_path, VLLM)


async def test_a_refusal_for_another_reason_leaves_the_decision_to_the_calls(
    server: Server, tmp_path: Path
) -> None:
    server.always = refusing(lambda body: "no reason" if "JSON" in str(body) else None)
    (outcome,) = await runner.run(options(server, tmp_path, 2))
    assert outcome.summary.status == "complete"


async def test_a_run_records_its_dialect_and_says_it_once(server: Server, tmp_path: Path) -> None:
    server.always = refusing(no_system)
    messages: list[str] = []
    command = options(server, tmp_path, 2)
    (outcome,) = await runner.run(command, tell=messages.append)
    assert messages == ["dialect  tiny: system message in the user turn"]
    assert outcome.summary.provenance["dialect"] == "system message in the user turn"
    model = json.loads((outcome.folder / "spec.json").read_text())["model"]
    assert model == {"dialect": messages[0].split(": ")[1], "kind": "api", "name": "tiny"}

    paid = len(server.bodies)
    (again,) = await runner.run(command, tell=messages.append)
    assert again.folder == outcome.folder and len(server.bodies) == paid
    # Requests without a system message are those of a plain server.
    server.always = None
    (plain,) = await runner.run(replace(command, results=tmp_path / "plain"))
    keys = [
        [call["key"] for line in _lines(run.folder) for call in line["calls"]]
        for run in (outcome, plain)
    ]
    assert keys[0] == keys[1]


async def test_the_dialect_of_a_judge_leaves_the_run_in_its_folder(
    server: Server, tmp_path: Path
) -> None:
    server.always = refusing(lambda body: no_system(body) if body["model"] == "judge" else None)
    messages: list[str] = []
    command = runner.Options(
        methods=["none"],
        tasks=["prefdisco_warm"],
        limit=1,
        backend="openai",
        backend_options=BackendOptions("tiny", server.url),
        roles={"judge": ("openai", BackendOptions("judge", server.url, role="judge"))},
        results=tmp_path / "results",
    )
    (outcome,) = await runner.run(command, tell=messages.append)
    assert messages == ["dialect  judge: system message in the user turn"]
    assert (
        outcome.summary.n == len(_lines(outcome.folder)) and (outcome.folder / "spec.json").exists()
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


async def test_a_probe_that_is_repeated_says_why(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("personabench.models.client.RETRY_FIRST", 0.001)
    server.replies = [said(503, "loading model"), said(503, "loading model")]
    learnt, _ = await learn(server, tmp_path)
    assert learnt.dialect == Dialect()
    assert caplog.text.count("the probe is repeated") == 1 and "loading model" in caplog.text


async def test_a_cached_run_and_cache_only_send_no_probe(server: Server, tmp_path: Path) -> None:
    command = options(server, tmp_path, 2)
    await runner.run(replace(command, cache="only"))
    assert not server.bodies
    await runner.run(command)
    assert len(server.bodies) == 3


async def test_commands_that_start_together_probe_once(server: Server, tmp_path: Path) -> None:
    server.always = refusing(no_system)
    await asyncio.gather(*(learn(server, tmp_path) for _ in range(4)))
    assert len(server.bodies) == 2


async def test_check_backend(server: Server, tmp_path: Path) -> None:
    server.always = refusing(no_system)
    command = options(server, tmp_path, 1)
    facts = await check_backend(command)
    assert facts["dialect"] == "system message in the user turn" and facts["window"] == 4096
    assert facts["server"] == server.url
    await check_backend(command)
    assert len(server.bodies) == 4, "it asks anew"


# Thinking ---------------------------------------------------------------------------------------


def thinking(tokens: int) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A model that thinks before it answers, unless it is told not to."""

    async def reply(http: web.Request) -> web.StreamResponse:
        body = await http.json()
        limit = body["max_tokens"]
        is_off = body.get("chat_template_kwargs", {}).get("enable_thinking") is False
        thought = 0 if is_off else tokens
        usage = {"prompt_tokens": 50, "completion_tokens": min(limit, thought + 5)}
        message = {
            "role": "assistant",
            "content": "Dry again",
            "reasoning_content": "Hm." * thought,
        }
        finish = "stop"
        if limit < thought:
            message["content"] = None
            finish = "length"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return web.json_response({"model": "tiny", "choices": [choice], "usage": usage})

    return reply


async def test_a_model_that_thinks_ends_the_run_with_one_message(
    server: Server, tmp_path: Path
) -> None:
    server.always = thinking(200)
    messages: list[str] = []
    with pytest.raises(RunError, match=r"first 5 answers.*empty and truncated.*--reasoning"):
        await runner.run(options(server, tmp_path, 40), tell=messages.append)
    assert len(server.bodies) < 20
    assert messages == [
        "dialect  tiny: plain chat completions; thinks before it answers, so give it room with "
        "--reasoning low"
    ]


@pytest.mark.parametrize(("level", "allowed"), [("low", 2048), ("off", 0), ("300", 300)])
async def test_reasoning_gives_every_answer_room(
    server: Server, tmp_path: Path, level: str, allowed: int
) -> None:
    server.models = {"data": [{"id": "tiny", "max_model_len": 32768}]}
    server.always = thinking(200)
    (outcome,) = await runner.run(options(server, tmp_path, 3, reasoning=level))
    assert outcome.summary.status == "complete"
    assert not outcome.summary.counters.get("empty_output")
    assert outcome.summary.metrics["official"]["rouge-1"] == 1.0
    (limit,) = {body["max_tokens"] for body in server.bodies[1:]}
    # The task's answers have 32 tokens.
    assert limit == 32 + allowed
    spec = json.loads((outcome.folder / "spec.json").read_text())
    assert spec["model"]["reasoning"] == level


async def test_the_allowance_takes_half_of_a_small_window_at_most(
    server: Server, tmp_path: Path
) -> None:
    server.models = {"data": [{"id": "tiny", "max_model_len": 1000}]}
    server.always = thinking(200)
    await runner.run(options(server, tmp_path, 3, reasoning="high"))
    assert {body["max_tokens"] for body in server.bodies[1:]} == {532}


async def test_the_allowance_takes_half_of_the_longest_reply_at_most(
    server: Server, tmp_path: Path
) -> None:
    def at_most(body: Body) -> str | None:
        return "max_tokens: supports at most 4096" if body["max_tokens"] > 4096 else None

    server.models = {"data": [{"id": "tiny"}]}
    server.always = refusing(at_most)
    (outcome,) = await runner.run(options(server, tmp_path, 2, reasoning="high"))
    assert {body["max_tokens"] for body in server.bodies[2:]} == {32 + 2048}
    assert "at most 4096 tokens" in outcome.summary.provenance["dialect"]


async def test_a_probe_may_be_shorter_than_the_shortest_reply(
    server: Server, tmp_path: Path
) -> None:
    def at_least(body: Body) -> str | None:
        return "max_tokens must be at least 32" if body["max_tokens"] < 32 else None

    server.always = refusing(at_least)
    (outcome,) = await runner.run(options(server, tmp_path, 2))
    assert outcome.summary.status == "complete" and "dialect" not in outcome.summary.provenance


@pytest.mark.parametrize("backend", ["openai", "vllm"])
@pytest.mark.parametrize("method", ["none", "summary"])
async def test_refusals_as_empty_answers_are_settled(
    server: Server, tmp_path: Path, backend: str, method: str
) -> None:
    refusals = [
        said(400, "triggered the content management policy"),
        web.json_response({"promptFeedback": {"blockReason": "SAFETY"}}),
        completion("Half of", finish="SAFETY"),
        completion(None, message={"content": None, "refusal": "I can't."}),
    ]
    server.probes_too = False
    server.replies = list(refusals)
    command = replace(
        options(server, tmp_path, 8), backend=backend, methods=[method], concurrency=1
    )
    command = replace(command, sampling=Sampling(refusals="empty"))
    (outcome,) = await runner.run(command)
    assert outcome.summary.status == "complete" and outcome.summary.counters["refused"] >= 4
    assert not outcome.summary.counters["request_errors"]
    lines = (outcome.folder / "predictions.jsonl").read_text().splitlines()
    outputs = [json.loads(line)["output"] for line in lines]
    assert outputs.count("") == 4 or method == "summary"
    assert not {"Half of", "I can't."} & set(outputs)


async def test_a_refused_prompt_fails_its_sample_and_names_the_option(
    server: Server, tmp_path: Path
) -> None:
    server.probes_too = False
    server.replies = [said(400, "triggered the content management policy")]
    (outcome,) = await runner.run(options(server, tmp_path, 4))
    assert outcome.summary.counters["request_errors"] == 1
    assert "--refusals empty" in (outcome.folder / "predictions.jsonl").read_text()


async def test_a_level_that_no_field_can_say(server: Server, tmp_path: Path) -> None:
    server.always = refusing(
        no_field("reasoning_effort"), no_field("chat_template_kwargs"), no_field("top_p")
    )
    with pytest.raises(
        BackendDown, match=r"--omit-params top_p.*none of the fields for --reasoning low.*--extra"
    ):
        await learn(server, tmp_path, reasoning="low")


async def test_a_level_in_another_form_is_part_of_the_identity(
    server: Server, tmp_path: Path
) -> None:
    server.always = refusing(no_field("reasoning_effort"))
    learnt, identity = await learn(server, tmp_path, reasoning="low")
    assert learnt.dialect.reasoning == "chat_template_kwargs"
    assert identity["dialect"] == "reasoning by chat_template_kwargs"
    assert identity["reasoning"] == "low"


# Windows ----------------------------------------------------------------------------------------


async def test_a_window_learnt_from_a_refusal_fits_the_prompts(
    server: Server, tmp_path: Path
) -> None:
    server.models = {"data": [{"id": "tiny"}]}

    def small_window(body: Body) -> str | None:
        length = sum(len(message["content"].split()) for message in body["messages"])
        return None if length < 225 else "request exceeds the available context size (300 tokens)"

    server.always = refusing(small_window)
    command = runner.Options(
        methods=["rag"],
        assignments=["rag.k=16"],
        tasks=["lamp4"],
        limit=4,
        backend="openai",
        backend_options=BackendOptions(base_url=server.url),
        results=tmp_path / "results",
    )
    (outcome,) = await runner.run(command)
    assert outcome.summary.status == "complete"
    assert outcome.summary.counters["records_dropped"] > 0


def test_options_that_do_not_belong_to_a_backend(tmp_path: Path) -> None:
    from personabench.models import backends

    with pytest.raises(UsageError, match="--extra stream: only for servers"):
        backends.create("local", BackendOptions(extra={"stream": True}))
    for changes in ({"omit": ("seed",)}, {"extra": {"a": 1}}, {"reasoning": "low"}):
        with pytest.raises(UsageError, match=r"only with --backend openai or vllm.* not scripted"):
            backends.create("scripted", BackendOptions(**changes))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--judge-omit-params stop: only temperature, top_p, seed"):
        backends.create("openai", BackendOptions(omit=("stop",), role="judge"))
