"""Chat templates of the embedded model: none at all, no system role, and llama.cpp's own server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf_files import NO_SYSTEM, base_model, with_template

from personabench.models.backends.base import BackendOptions
from personabench.models.backends.dialect import PLAIN, Dialect
from personabench.models.backends.gguf import has_chat_template
from personabench.models.backends.local import Local, find_model
from personabench.models.backends.openai import OpenAI
from personabench.models.client import Client
from personabench.models.probe import Dialects, Learnt, probe_request
from personabench.run import runner
from personabench.types import Message, Request, Sampling

pytestmark = pytest.mark.model
SYSTEM = (Message("system", "Answer with one word."), Message("user", "Name a colour."))
NEIGHBOURS = (Message("user", "Name a colour."), Message("user", "One word only."))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_model(tmp_path_factory.mktemp("models") / "base.gguf")


@pytest.fixture(scope="module")
def no_system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_template(tmp_path_factory.mktemp("models") / "no-system.gguf", NO_SYSTEM)


@asynccontextmanager
async def opened(path: Path | None, tmp_path: Path, **options: Any) -> AsyncIterator[Local]:
    model = Local(BackendOptions(str(path) if path else None, window=512, **options))
    await model.identify()
    await model.open(tmp_path / "llama.log")
    try:
        yield model
    finally:
        await model.aclose()


async def learn(model: Local, tmp_path: Path) -> Learnt:
    client = Client(model, None, "off")
    learnt = await Dialects(tmp_path).learn(client, probe_request(0.0, 1.0, 0))
    model.adopt(learnt.dialect)
    return learnt


def test_the_template_is_read_from_the_file(base: Path, no_system: Path) -> None:
    assert has_chat_template(find_model(None)) and has_chat_template(no_system)
    assert not has_chat_template(base)


async def test_the_packaged_model_is_plain(tmp_path: Path) -> None:
    async with opened(None, tmp_path) as model:
        before = dict(model.identity)
        assert (await learn(model, tmp_path)).dialect == PLAIN
        assert model.identity == before
        assert not (tmp_path / "dialects").exists()


async def test_a_base_model_gets_plain_completions(base: Path, tmp_path: Path) -> None:
    async with opened(base, tmp_path) as model:
        learnt = await learn(model, tmp_path)
        assert learnt.dialect == Dialect(api="completions")
        assert model.identity["dialect"] == "plain completions"

        request = Request((Message("user", "One, two, three, four,"),), 6)
        reply = await model.complete(request, "u")
        assert reply.text.strip() and reply.finish == "length"
        # No token of a template stands around the prompt.
        assert reply.usage.input_tokens == model.tokens.count("One, two, three, four,")

        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        answered = await model.complete(Request(SYSTEM, 24, schema=schema), "u")
        assert set(json.loads(answered.text)) == {"n"}
        scored = await model.complete(Request(SYSTEM, 2, logprobs=2), "u")
        assert scored.logprobs and len(scored.logprobs[0]["top_logprobs"]) == 2


@pytest.mark.parametrize("level", ["off", "low", "200"])
async def test_reasoning_and_further_fields_are_taken(level: str, tmp_path: Path) -> None:
    async with opened(None, tmp_path, reasoning=level, extra={"cache_prompt": True}) as model:
        await learn(model, tmp_path)
        assert model.identity["reasoning"] == level
        assert (await model.complete(Request(SYSTEM, 4), "u")).usage.output_tokens > 0


async def test_a_template_without_a_system_role(no_system: Path, tmp_path: Path) -> None:
    async with opened(no_system, tmp_path) as model:
        learnt = await learn(model, tmp_path)
        assert learnt.dialect == Dialect(system="user", merges_turns=True)
        for messages in (SYSTEM, NEIGHBOURS):
            assert (await model.complete(Request(messages, 4), "u")).usage.output_tokens > 0
        assert model.identity_of(Request(NEIGHBOURS[:1], 4)).get("dialect") is None


@pytest.mark.variants
async def test_the_dialect_is_part_of_a_run(base: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    options = runner.Options(
        methods=["none"],
        tasks=["lamp4"],
        limit=2,
        backend="local",
        backend_options=BackendOptions(str(base), window=1024),
        results=tmp_path,
    )
    (outcome,) = await runner.run(options, tell=messages.append)
    assert outcome.summary.status == "complete"
    assert outcome.summary.provenance["dialect"] == "plain completions"
    assert messages == ["dialect  base: plain completions"]
    # One run folder: the one that was opened to load the model has got the run's own name.
    (folder,) = (tmp_path / "runs" / "lamp4" / "none" / "base").iterdir()
    assert folder == outcome.folder
    assert "plain completions" in (folder / "spec.json").read_text()

    written = (folder / "predictions.jsonl").read_text()
    (again,) = await runner.run(options, tell=messages.append)
    assert again.folder == folder and (folder / "predictions.jsonl").read_text() == written


@pytest.mark.variants
async def test_thoughts_of_the_embedded_model_are_scored_in_a_raw_reading(tmp_path: Path) -> None:
    # A grammar makes the small model think.
    thought = 'root ::= "<think>\\nHm\\n</think>\\n\\n" [A-Z] [a-z ]{4,12}'
    options = runner.Options(
        methods=["none"],
        tasks=["lamp4"],
        limit=1,
        backend="local",
        backend_options=BackendOptions(None, window=1024, extra={"grammar": thought}),
        sampling=Sampling(max_tokens=24, reading="raw"),
        results=tmp_path,
    )
    (raw,) = await runner.run(options)
    (answer,) = await runner.run(replace(options, sampling=Sampling(max_tokens=24)))
    assert raw.summary.counters["read_raw"] == raw.summary.n == answer.summary.n
    outputs = [
        sorted(json.loads(line)["output"].strip() for line in (folder / "predictions.jsonl").open())
        for folder in (raw.folder, answer.folder)
    ]
    assert [f"<think>\nHm\n</think>\n\n{text}" for text in outputs[1]] == outputs[0]
    assert answer.summary.usage["predict"].cached == answer.summary.n


# llama.cpp's HTTP server ------------------------------------------------------------------------


@asynccontextmanager
async def served(path: Path | None, tmp_path: Path) -> AsyncIterator[OpenAI]:
    """The `openai` backend on the HTTP server of the embedded library."""
    async with opened(path, tmp_path) as model:
        address = model._server.listening_address  # noqa: SLF001
        backend = OpenAI(BackendOptions(base_url=f"{address}/v1"))
        await backend.identify()
        try:
            yield backend
        finally:
            await backend.aclose()


async def probed(backend: OpenAI, tmp_path: Path) -> Learnt:
    client = Client(backend, None, "off")
    learnt = await Dialects(tmp_path).learn(client, probe_request(0.0, 1.0, 0))
    backend.adopt(learnt.dialect)
    return learnt


async def test_llama_server_with_a_system_role_is_plain(tmp_path: Path) -> None:
    async with served(None, tmp_path) as backend:
        assert (await probed(backend, tmp_path)).dialect == PLAIN
        assert backend.window == 512
        assert (await backend.complete(Request(SYSTEM, 4), "u")).text


async def test_llama_server_that_wants_alternating_turns(no_system: Path, tmp_path: Path) -> None:
    async with served(no_system, tmp_path) as backend:
        learnt = await probed(backend, tmp_path)
        # llama.cpp itself folds a system message, but merges no turns.
        assert learnt.dialect == Dialect(merges_turns=True)
        for messages in (SYSTEM, NEIGHBOURS):
            assert (await backend.complete(Request(messages, 4), "u")).usage.output_tokens > 0
