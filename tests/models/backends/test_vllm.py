"""The vllm backend with one server that imitates vLLM's endpoints: what is sent, what comes back,
which model it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from fake_vllm import SECRET, FakeVLLM, Site, request
from vllm_fixtures import attaching

from personabench.errors import BackendDown, BackendError, TransientError, UsageError
from personabench.models import backends
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.model_identity import (
    model_identity,
)
from personabench.models.backends.vllm import VLLM
from personabench.results.run_folder import RunFolder
from personabench.run import runner


@pytest_asyncio.fixture
async def sites(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Site]]:
    monkeypatch.setenv("VLLM_API_KEY", SECRET)
    made = [Site(FakeVLLM()) for _ in range(2)]
    for site in made:
        await site.up()
    yield made
    for site in made:
        await site.down()


@pytest_asyncio.fixture
async def attach(sites: list[Site]) -> AsyncIterator[Callable[..., Any]]:
    async with attaching(sites) as make:
        yield make


# One server


async def test_reply_and_what_is_sent(sites: list[Site], attach: Callable[..., Any]) -> None:
    backend = await attach()
    response = await backend.complete(request(seed=5, repeat=2, temperature=0.7), "u")
    assert (response.text, response.finish) == ("answer Hello", "stop")
    assert (
        response.usage.input_tokens,
        response.usage.output_tokens,
        response.usage.cached_tokens,
    ) == (11, 3, 7)
    assert sites[0].fake.bodies == [
        {
            "model": "org/tiny",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 16,
            "temperature": 0.7,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": 7,
        }
    ]
    assert sites[0].fake.heads[0]["Authorization"] == f"Bearer {SECRET}"
    assert backend.window == 4096 and backend.concurrency == 256


async def test_schema_and_logprobs(sites: list[Site], attach: Callable[..., Any]) -> None:
    response = await (await attach()).complete(request(schema={"type": "object"}, logprobs=5), "u")
    body = sites[0].fake.bodies[0]
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)
    assert response.logprobs[0]["token"] == "a"


async def test_tokens_are_the_servers_and_remembered(
    sites: list[Site], attach: Callable[..., Any]
) -> None:
    backend = await attach()
    assert backend.tokens.exact

    def counted() -> tuple[int, int, str, str, str]:
        tokens = backend.tokens
        return (
            tokens.count("abcd"),
            tokens.count("abcd"),
            tokens.truncate("abcd", 3),
            tokens.truncate("ab", 3),
            tokens.truncate("a", 0),
        )

    before = sites[0].fake.tokenized
    assert await asyncio.to_thread(counted) == (4, 4, "abc", "ab", "")
    assert sites[0].fake.tokenized == before + 3


async def test_server_without_a_tokenizer_gets_estimates() -> None:
    async def nowhere(_: web.Request) -> web.StreamResponse:
        return replies.pop() if replies else web.Response(status=404)

    replies = [web.json_response({"error": "no"})]
    app = web.Application()
    app.router.add_get("/v1/models", FakeVLLM().models)
    app.router.add_post("/tokenize", nowhere)
    owner = web.AppRunner(app)
    await owner.setup()
    await web.TCPSite(owner, "127.0.0.1", 0).start()
    backend = VLLM(BackendOptions(base_url=f"http://127.0.0.1:{owner.addresses[0][1]}/v1"))
    await backend.identify()
    await backend.open()
    assert not backend.tokens.exact and backend.prefix_cache_hit_rate is None
    await backend.aclose()
    await owner.cleanup()


async def test_prefix_cache_hit_rate_is_of_this_run(
    attach: Callable[..., Any], tmp_path: Path
) -> None:
    backend = await attach()
    log = tmp_path / "001.log"
    backend._log = log  # noqa: SLF001  (set when a run loads the model)
    await backend.complete(request(), "u")
    await backend.complete(request("Again"), "u")
    await backend.aclose()
    assert backend.prefix_hits == (120, 200) and backend.prefix_cache_hit_rate == 0.6
    assert log.read_text() == "prefix cache: 120 of 200 prompt tokens were cached (60.0%)\n"


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


async def close_mid_body(http: web.Request) -> web.StreamResponse:
    reply = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": "1000"}
    )
    await reply.prepare(http)
    await reply.write(b'{"choices": [{"mess')
    assert http.transport is not None
    http.transport.close()
    return reply


def said(status: int, text: str, **headers: str) -> web.Response:
    return web.json_response({"error": {"message": text}}, status=status, headers=headers)


FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "429": (
        lambda: said(429, "slow down", **{"Retry-After": "3"}),
        TransientError,
        "answered 429.*slow down",
    ),
    "500": (lambda: said(500, "oops"), TransientError, "answered 500.*oops"),
    "hang": (lambda: hang, TransientError, r"did not answer within 0\.3 s"),
    "closed mid-body": (lambda: close_mid_body, TransientError, "broke the connection"),
    "malformed JSON": (lambda: web.Response(text='{"choices": ['), TransientError, "not JSON"),
    "no choice": (lambda: web.json_response({"choices": []}), TransientError, "without a choice"),
    "another shape": (
        lambda: web.json_response({"error": "upstream"}),
        BackendError,
        "not a completion.*upstream",
    ),
    "context": (
        lambda: said(400, "maximum context length is 4096"),
        BackendError,
        "400.*maximum context length",
    ),
    "a refused field": (
        lambda: said(400, "min_p is not supported with speculative decoding"),
        BackendError,
        "; --omit-params min_p omits it",
    ),
    "401": (
        lambda: said(401, f"bad key {SECRET}"),
        BackendDown,
        r"401.*bad key \*\*\*.*set VLLM_API_KEY",
    ),
    "404": (lambda: said(404, "no such model"), BackendDown, "404.*no such model.*--model"),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_faults(sites: list[Site], attach: Callable[..., Any], case: str) -> None:
    fault, kind, words = FAULTS[case]
    backend = await attach(timeout=0.3)
    sites[0].fake.faults = [fault()]
    with pytest.raises(kind, match=words) as caught:
        await backend.complete(request(), "u")
    assert isinstance(caught.value, TransientError) == (kind is TransientError)
    assert SECRET not in str(caught.value)
    if case == "429":
        assert caught.value.retry_after == 3
    assert (await backend.complete(request(), "u")).text == "answer Hello"


# Which model


async def test_identity_is_the_model_behind_an_alias_and_free_of_urls(
    sites: list[Site], tmp_path: Path
) -> None:
    for site in sites[:2]:
        site.fake.entries[0]["id"] = "alias"
    made = VLLM(BackendOptions(base_url=f"{sites[0].url},{sites[1].url}"))
    await made.identify()
    assert made.identity == {"kind": "vllm", "name": "org/tiny"} == model_identity("org/tiny")
    assert await _sent_model(made, sites) == "alias"
    await made.aclose()


async def _sent_model(backend: VLLM, sites: list[Site]) -> str:
    await backend.open()
    await backend.complete(request(), "")
    (body,) = [body for site in sites for body in site.fake.bodies]
    return str(body["model"])


async def test_several_models_ask_for_a_choice(sites: list[Site]) -> None:
    sites[0].fake.entries.append(
        {"id": "ann", "root": "x", "parent": "org/tiny", "max_model_len": None}
    )
    with pytest.raises(
        UsageError, match=r"serves 2 models \(ann, org/tiny\); choose one with --model"
    ):
        await _identified(base_url=sites[0].url)
    assert (await _identified(base_url=sites[0].url, model="ann")).identity["base"] == "org/tiny"
    with pytest.raises(UsageError, match="does not serve bob; it serves ann, org/tiny"):
        await _identified(base_url=sites[0].url, model="bob")


async def test_servers_of_different_models_are_refused(sites: list[Site]) -> None:
    sites[1].fake.entries[0] |= {"id": "org/large", "root": "org/large"}
    with pytest.raises(
        UsageError,
        match=r"serves org/tiny and .* serves org/large; all servers must serve one model",
    ):
        await _identified(base_url=sites[0].url, replicas=(sites[1].url,))


async def _identified(**options: Any) -> VLLM:
    made = VLLM(BackendOptions(**options))
    try:
        await made.identify()
    finally:
        await made.aclose()
    return made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs --model .* or --base-url"),
        ({"base_url": "localhost:8000/v1"}, "has to start with http"),
        ({"base_url": "http://me:pass@host/v1"}, "holds a name or password"),
        ({"base_url": "http://a/v1,http://host/v1?key=pass"}, "holds a query"),
        ({"base_url": "http://127.0.0.1:999999/v1"}, "no host, or no port"),
        (
            {"base_url": "http://host/v1", "vllm_args": ("--dtype",)},
            "--vllm-args apply to a server that is started",
        ),
    ],
)
async def test_options_that_cannot_work(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await _identified(**options)


def test_options_of_vllm_with_another_backend() -> None:
    with pytest.raises(UsageError, match="--vllm-args: only with --backend vllm"):
        backends.create("openai", BackendOptions(vllm_args=("--dtype=half",)))
    with pytest.raises(UsageError, match="several --base-url: only with --backend vllm"):
        backends.create("openai", BackendOptions(base_url="http://a/v1", replicas=("http://b/v1",)))


async def test_server_out_of_reach_is_missed_only_when_needed(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    with pytest.raises(BackendDown, match=r"cannot be reached.*is the server running"):
        await _identified(base_url=url)
    made = VLLM(BackendOptions(base_url=url, model="org/tiny"))
    await made.identify()
    assert made.identity == model_identity("org/tiny")
    with pytest.raises(BackendDown, match="cannot be reached"):
        await made.open()
    await made.aclose()


# Adapters


async def test_each_user_is_answered_by_the_adapter_of_that_name(
    sites: list[Site], tmp_path: Path
) -> None:
    sites[0].fake.adapt(a="/nowhere/a", b="/nowhere/b")
    options = {
        "methods": ["none"],
        "tasks": ["lamp4"],
        "backend": "vllm",
        "results": tmp_path,
        "limit": 6,
    }

    async def run(adapter: str | None) -> runner.Outcome:
        sites[0].fake.bodies.clear()
        one = BackendOptions(
            base_url=sites[0].url, adapter=adapter, model=None if adapter else "org/tiny"
        )
        (outcome,) = await runner.run(runner.Options(backend_options=one, **options))
        return outcome

    plain = await run(None)
    users = {line.user_id for line in RunFolder(plain.folder).iter_predictions()}
    assert len(users) > 1 and {body["model"] for body in sites[0].fake.bodies} == {"org/tiny"}
    missing = await run("of-{user_id}")
    assert missing.summary.counters["request_errors"] == plain.summary.n
    (line, *_) = RunFolder(missing.folder).iter_predictions()
    assert line.error == (
        f"{sites[0].url} serves no adapter 'of-{line.user_id}' of org/tiny; its adapters are a, b"
    )
    sites[0].fake.adapt(**{f"of-{user}": "/nowhere" for user in users})
    adapted_run = await run("of-{user_id}")
    assert adapted_run.folder == missing.folder != plain.folder
    assert adapted_run.summary.model == "org/tiny+of-{user_id}"
    calls = adapted_run.summary.usage["predict"]
    assert (adapted_run.summary.status, calls.cached, calls.calls) == (
        "complete",
        0,
        plain.summary.n,
    )
    assert {body["model"] for body in sites[0].fake.bodies} == {f"of-{user}" for user in users}


async def test_adapter_of_work_for_nobody_is_the_model_itself(
    sites: list[Site], attach: Callable[..., Any]
) -> None:
    sites[0].fake.adapt(ann="/nowhere", house="/nowhere")
    backend = await attach(adapter="{user_id}")
    assert backend.adapter("ann") == "ann" and not backend.adapter("")
    assert (await attach(adapter="house", model="org/tiny")).adapter("") == "house"


async def test_adapters_of_this_machine_are_loaded_once(sites: list[Site], tmp_path: Path) -> None:
    fake = sites[0].fake
    folder = tmp_path / "ann"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")

    async def open_backend() -> VLLM:
        options = BackendOptions(base_url=sites[0].url, model="org/tiny")
        backend = VLLM(options)
        await backend.identify()
        await backend.open()
        backend.add_adapter("ann", folder)
        return backend

    backend = await open_backend()
    calls = [backend.complete(request(adapter="ann"), "ann") for _ in range(4)]
    await asyncio.gather(*calls)
    await backend.complete(request(), "ann")
    await backend.aclose()
    assert fake.loads == [{"lora_name": "ann", "lora_path": str(folder)}]
    assert [body["model"] for body in fake.bodies] == ["ann"] * 4 + ["org/tiny"]

    # Another command finds it loaded.
    backend = await open_backend()
    assert (await backend.complete(request(adapter="ann"), "ann")).text
    backend.add_adapter("bob", tmp_path)
    with pytest.raises(BackendDown, match=r"did not load the adapter .*no adapter in bob"):
        await backend.complete(request(adapter="bob"), "bob")
    fake.may_load = False
    backend.add_adapter("eve", folder)
    with pytest.raises(BackendDown, match=r"--enable-lora .*VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
        await backend.complete(request(adapter="eve"), "eve")
    await backend.aclose()


async def test_no_adapters_at_all(sites: list[Site], attach: Callable[..., Any]) -> None:
    backend = await attach(adapter="{user_id}")
    with pytest.raises(
        BackendDown,
        match=r"no adapter 'ann' of org/tiny, nor any other; start it with --enable-lora",
    ):
        await backend.complete(request(adapter="ann"), "ann")


@pytest.mark.parametrize("template", ["", "{user}", "{user_id}-{"])
def test_adapter_templates_that_name_nothing(template: str) -> None:
    with pytest.raises(UsageError, match=r"\{user_id\} as placeholder for the user"):
        backends.create("vllm", BackendOptions(base_url="http://a/v1", adapter=template))
    with pytest.raises(UsageError, match="--adapter: only with --backend vllm"):
        backends.create("openai", BackendOptions(base_url="http://a/v1", adapter="ann"))


async def test_a_reply_of_another_model_is_counted(sites: list[Site], tmp_path: Path) -> None:
    sites[0].fake.says = "org/other"
    options = BackendOptions(base_url=sites[0].url)
    (outcome,) = await runner.run(
        runner.Options(
            methods=["none"],
            tasks=["lamp4"],
            backend="vllm",
            backend_options=options,
            results=tmp_path,
            limit=4,
        )
    )
    assert outcome.summary.counters["other_model"] == outcome.summary.n
    assert outcome.summary.prefix_cache == {
        "hits": 60 * outcome.summary.n,
        "queries": 100 * outcome.summary.n,
    }
